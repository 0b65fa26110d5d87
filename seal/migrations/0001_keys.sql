-- SPDX-License-Identifier: AGPL-3.0-only
CREATE TABLE seal_subject (
	tenant text NOT NULL,
	subject text NOT NULL,
	epoch bigint NOT NULL,     -- number of the epoch key that wraps it
	wrapped blob NOT NULL,     -- empty once destroyed
	created bigint NOT NULL,
	destroyed bigint NOT NULL, -- 0: alive
	PRIMARY KEY (tenant, subject)
);
CREATE INDEX seal_subject_epoch ON seal_subject (epoch) WHERE destroyed = 0;
CREATE TABLE seal_hour (
	id text PRIMARY KEY,
	hour bigint NOT NULL UNIQUE, -- its beginning
	epoch bigint NOT NULL,
	wrapped blob NOT NULL
);
