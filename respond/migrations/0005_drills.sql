-- SPDX-License-Identifier: AGPL-3.0-only
-- Drills have tables of their own, so that no question about cases can ever answer with one.
CREATE TABLE respond_drill (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	product text NOT NULL,
	kind text NOT NULL,
	scenario text NOT NULL,
	glossary text NOT NULL,
	started bigint NOT NULL,
	started_by text NOT NULL,
	ended bigint NOT NULL, -- 0: it runs
	ended_by text NOT NULL,
	lesson text NOT NULL -- what was learned
);
CREATE INDEX respond_drill_list ON respond_drill (tenant, id);
CREATE TABLE respond_drill_event (
	case_id text NOT NULL,
	seq bigint NOT NULL,
	tenant text NOT NULL,
	kind text NOT NULL,
	recorded bigint NOT NULL,
	actor text NOT NULL,
	person bigint NOT NULL,
	data text NOT NULL,
	PRIMARY KEY (case_id, seq)
);
-- Who can file: people who say that they have an EU Login with a second factor.
CREATE TABLE respond_filer (
	tenant text NOT NULL,
	person text NOT NULL,
	at bigint NOT NULL,
	PRIMARY KEY (tenant, person)
);
