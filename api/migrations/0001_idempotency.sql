-- SPDX-License-Identifier: AGPL-3.0-only
-- A POST that was made with an Idempotency-Key, kept for 24 hours. status 0 means that it is still being carried out,
-- or that the platform died while it was.
CREATE TABLE api_idempotency (
	caller    text   NOT NULL,
	key       text   NOT NULL,
	operation text   NOT NULL,
	body_hash text   NOT NULL,
	status    bigint NOT NULL,
	head      text   NOT NULL,
	body      blob   NOT NULL,
	at        bigint NOT NULL,
	PRIMARY KEY (caller, key)
);
CREATE INDEX api_idempotency_at ON api_idempotency (at);
