-- SPDX-License-Identifier: AGPL-3.0-only
-- Who is told.
CREATE TABLE notify_endpoint (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	name text NOT NULL,
	kind text NOT NULL,    -- webhook, mail
	address text NOT NULL, -- URL or mail address
	topics text NOT NULL,  -- separated by spaces
	secret blob NOT NULL,  -- sealed; empty for mail
	actor text NOT NULL,
	created bigint NOT NULL,
	off_reason text NOT NULL,   -- not empty: nothing is delivered, and why
	faults bigint NOT NULL,     -- attempts that failed since the last success
	fault text NOT NULL,        -- of the last attempt, if it failed
	reached bigint NOT NULL,    -- when it last took something
	busy_until bigint NOT NULL  -- somebody delivers to it, or it rests after a fault
);
CREATE INDEX notify_endpoint_tenant ON notify_endpoint (tenant, id);
-- What was told.
CREATE TABLE notify_notice (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	topic text NOT NULL,
	subject text NOT NULL, -- the id that it is about
	title text NOT NULL,
	body text NOT NULL,
	link text NOT NULL,
	data text NOT NULL,    -- JSON
	at bigint NOT NULL
);
CREATE INDEX notify_notice_at ON notify_notice (at);
-- To whom, and what became of it.
CREATE TABLE notify_delivery (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	notice text NOT NULL,
	endpoint text NOT NULL,
	state text NOT NULL, -- open, done, failed
	attempts bigint NOT NULL,
	next bigint NOT NULL,
	ended bigint NOT NULL,
	answer text NOT NULL -- of the last attempt
);
CREATE INDEX notify_delivery_tenant ON notify_delivery (tenant, id);
CREATE INDEX notify_delivery_open ON notify_delivery (endpoint, next) WHERE state = 'open';
CREATE INDEX notify_delivery_notice ON notify_delivery (notice);
CREATE INDEX notify_delivery_ended ON notify_delivery (ended) WHERE state <> 'open';
