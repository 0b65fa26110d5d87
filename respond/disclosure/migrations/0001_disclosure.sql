-- SPDX-License-Identifier: AGPL-3.0-only
-- A report is its events; this row says that it exists and what lists are made of.
CREATE TABLE disclosure_report (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	link text NOT NULL, -- SHA-256 of the finder's secret; '': it came without a form
	product text NOT NULL, -- '': nobody knows yet
	received bigint NOT NULL,
	closed bigint NOT NULL, -- 0: open
	next bigint NOT NULL -- when its next timer ends; 0: none runs
);
CREATE UNIQUE INDEX disclosure_report_link ON disclosure_report (tenant, link) WHERE link <> '';
CREATE INDEX disclosure_report_list ON disclosure_report (tenant, id);
-- Append-only. The key keeps two writers from the same place in the log.
CREATE TABLE disclosure_event (
	report text NOT NULL,
	seq bigint NOT NULL,
	tenant text NOT NULL,
	kind text NOT NULL,
	recorded bigint NOT NULL,
	author text NOT NULL,
	actor text NOT NULL,
	data text NOT NULL,
	note blob NOT NULL, -- sealed under the report's key
	words blob NOT NULL, -- what the finder wrote, likewise; opened by a person, on record; empty: nothing
	digest text NOT NULL, -- SHA-256 of the event as it is stored; it is what the log of what happened holds
	logged bigint NOT NULL, -- 0: a finder wrote it and the hourly leaf is still to come
	PRIMARY KEY (report, seq)
);
CREATE INDEX disclosure_event_unlogged ON disclosure_event (tenant, report, seq) WHERE logged = 0;
-- Who the finder is, under a key of its own: destroying it leaves the report as it was.
CREATE TABLE disclosure_finder (
	report text PRIMARY KEY,
	tenant text NOT NULL,
	sealed blob NOT NULL
);
CREATE TABLE disclosure_attachment (
	id text PRIMARY KEY,
	report text NOT NULL,
	seq bigint NOT NULL,
	tenant text NOT NULL,
	size bigint NOT NULL, -- of what the finder sent, in bytes
	at bigint NOT NULL,
	digest text NOT NULL -- of the sealed bytes in the blob store
);
CREATE INDEX disclosure_attachment_report ON disclosure_attachment (tenant, report);
CREATE INDEX disclosure_attachment_day ON disclosure_attachment (tenant, at);
CREATE TABLE disclosure_policy (
	tenant text NOT NULL,
	version bigint NOT NULL,
	data text NOT NULL,
	since bigint NOT NULL,
	actor text NOT NULL,
	PRIMARY KEY (tenant, version)
);
-- Keys that finders encrypt to (age). Old ones stay: what was encrypted to them must open.
CREATE TABLE disclosure_key (
	tenant text NOT NULL,
	recipient text NOT NULL,
	sealed blob NOT NULL,
	made bigint NOT NULL,
	PRIMARY KEY (tenant, recipient)
);
-- security.txt as it was signed: host '' is the one that is served here, others were made for a site of the manufacturer's.
CREATE TABLE disclosure_securitytxt (
	tenant text NOT NULL,
	host text NOT NULL,
	body text NOT NULL,
	made bigint NOT NULL,
	expires bigint NOT NULL,
	PRIMARY KEY (tenant, host)
);
