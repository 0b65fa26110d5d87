-- SPDX-License-Identifier: AGPL-3.0-only
CREATE TABLE job (
	id text PRIMARY KEY,
	kind text NOT NULL,
	key text NOT NULL,
	run_at bigint NOT NULL,
	attempts bigint NOT NULL,
	lease_until bigint NOT NULL, -- 0: nobody runs it
	again bigint NOT NULL,       -- 1: enqueued once more while it ran
	data text NOT NULL,
	error text NOT NULL
);
CREATE UNIQUE INDEX job_key ON job (kind, key);
CREATE INDEX job_due ON job (run_at);
CREATE TABLE lease (
	name text PRIMARY KEY,
	holder text NOT NULL,
	epoch bigint NOT NULL,
	until bigint NOT NULL
);
