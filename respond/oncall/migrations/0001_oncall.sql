-- SPDX-License-Identifier: AGPL-3.0-only
CREATE TABLE oncall_rota (
	tenant text PRIMARY KEY,
	data text NOT NULL,
	updated bigint NOT NULL,
	actor text NOT NULL
);
-- Something that somebody must look at now. The event that it is about makes it one, however often it is heard.
CREATE TABLE oncall_call (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	topic text NOT NULL,
	subject text NOT NULL,
	title text NOT NULL,
	link text NOT NULL,
	data text NOT NULL, -- of the event
	at bigint NOT NULL,
	answered bigint NOT NULL, -- 0: by nobody yet
	answered_by text NOT NULL,
	ended bigint NOT NULL, -- 0: people are still called
	why text NOT NULL -- it ended: answered, over, unanswered
);
CREATE INDEX oncall_call_open ON oncall_call (tenant, id) WHERE ended = 0;
CREATE INDEX oncall_call_list ON oncall_call (tenant, id);
-- Who was called when. The key makes each step one.
CREATE TABLE oncall_step (
	call text NOT NULL,
	n bigint NOT NULL,
	tenant text NOT NULL,
	person text NOT NULL,
	name text NOT NULL,
	endpoints bigint NOT NULL, -- that could be told; 0: none
	at bigint NOT NULL,
	PRIMARY KEY (call, n)
);
