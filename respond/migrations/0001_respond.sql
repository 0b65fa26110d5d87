-- SPDX-License-Identifier: AGPL-3.0-only
CREATE TABLE respond_signal (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	product text NOT NULL,
	source text NOT NULL, -- person, vuln
	key text NOT NULL, -- makes a repeated event of the same source harmless
	ref text NOT NULL, -- what the source calls it, such as a vulnerability
	title text NOT NULL,
	detail text NOT NULL,
	exploited text NOT NULL, -- yes, no, unknown: what the source says
	known_since bigint NOT NULL, -- 0: the source did not say
	intake bigint NOT NULL,
	actor text NOT NULL
);
CREATE UNIQUE INDEX respond_signal_key ON respond_signal (tenant, source, key);
CREATE INDEX respond_signal_list ON respond_signal (tenant, id);
CREATE TABLE respond_assessment (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	signal text NOT NULL,
	opened bigint NOT NULL,
	opened_by text NOT NULL,
	verdict text NOT NULL -- '', watch, negative, aware: the last decision; the decisions themselves never change
);
CREATE INDEX respond_assessment_signal ON respond_assessment (tenant, signal);
CREATE TABLE respond_decision (
	assessment text NOT NULL,
	seq bigint NOT NULL,
	id text NOT NULL,
	tenant text NOT NULL,
	verdict text NOT NULL,
	basis text NOT NULL,
	again bigint NOT NULL, -- watch: to be assessed again by
	at bigint NOT NULL,
	actor text NOT NULL,
	PRIMARY KEY (assessment, seq)
);
-- A case is its events; this row only says that it exists.
CREATE TABLE respond_case (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	product text NOT NULL,
	kind text NOT NULL,
	signal text NOT NULL,
	ref text NOT NULL, -- the signal's: a vulnerability, where the signal names one
	opened bigint NOT NULL,
	glossary text NOT NULL, -- version of the reporting platform's fields
	closed bigint NOT NULL -- 0: open
);
CREATE INDEX respond_case_list ON respond_case (tenant, id);
-- Append-only. The key keeps two writers from the same place in the log.
CREATE TABLE respond_event (
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
CREATE TABLE respond_contact (
	tenant text PRIMARY KEY,
	data text NOT NULL,
	updated bigint NOT NULL
);
-- Who answers under which name of this platform.
CREATE TABLE respond_contact_host (
	host text PRIMARY KEY,
	tenant text NOT NULL
);
