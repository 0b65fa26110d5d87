-- SPDX-License-Identifier: AGPL-3.0-only
-- What a report said when somebody said that it was submitted: the canonical bytes. The key is that of the event.
CREATE TABLE respond_pack (
	case_id text NOT NULL,
	seq bigint NOT NULL,
	tenant text NOT NULL,
	sha256 text NOT NULL,
	body text NOT NULL,
	PRIMARY KEY (case_id, seq)
);
-- Receipts as files: sealed, never shown, only handed out as they came.
CREATE TABLE respond_file (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	case_id text NOT NULL,
	name text NOT NULL,
	size bigint NOT NULL,
	sha256 text NOT NULL, -- of the plain bytes
	sealed blob NOT NULL,
	stored bigint NOT NULL
);
CREATE INDEX respond_file_case ON respond_file (tenant, case_id);
-- Whose coordinator answers for the tenant, as people confirmed it. Append-only; the last one counts.
CREATE TABLE respond_coordinator (
	tenant text NOT NULL,
	seq bigint NOT NULL,
	data text NOT NULL, -- Confirmed as JSON
	PRIMARY KEY (tenant, seq)
);
