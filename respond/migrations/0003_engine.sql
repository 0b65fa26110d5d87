-- SPDX-License-Identifier: AGPL-3.0-only
ALTER TABLE respond_assessment ADD COLUMN evidence text NOT NULL DEFAULT ''; -- what is new, where one came before
ALTER TABLE respond_decision ADD COLUMN reason text NOT NULL DEFAULT ''; -- negative: why it is not reportable
ALTER TABLE respond_decision ADD COLUMN known bigint NOT NULL DEFAULT 0; -- since when the exploitation was known; 0: not said
ALTER TABLE respond_decision ADD COLUMN case_id text NOT NULL DEFAULT ''; -- joined: the case that the signal belongs to
-- A signal that nobody decided in time, each time people were told.
CREATE TABLE respond_idle (
	signal text NOT NULL,
	due bigint NOT NULL,
	tenant text NOT NULL,
	at bigint NOT NULL,
	PRIMARY KEY (signal, due)
);
-- The house's own limits; a tenant without a row has the defaults.
CREATE TABLE respond_targets (
	tenant text PRIMARY KEY,
	data text NOT NULL,
	updated bigint NOT NULL,
	actor text NOT NULL
);
