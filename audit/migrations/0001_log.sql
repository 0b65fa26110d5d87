-- SPDX-License-Identifier: AGPL-3.0-only
CREATE TABLE audit_entry (
	id text PRIMARY KEY,
	at bigint NOT NULL,
	actor text NOT NULL,
	tenant text NOT NULL,
	kind text NOT NULL,
	subject text NOT NULL,
	digest text NOT NULL,     -- wire.Leaf.Data
	payload blob NOT NULL,    -- wire.LeafData as JSON; empty once erased
	leaf_hash blob NOT NULL,  -- RecordHash of the leaf that the columns above make
	pos bigint                -- place in the tree; NULL: pending
);
-- Partial, so that a pending insert does not pay for the first.
CREATE UNIQUE INDEX audit_entry_pos ON audit_entry (pos) WHERE pos IS NOT NULL;
CREATE INDEX audit_entry_pending ON audit_entry (id) WHERE pos IS NULL;
CREATE INDEX audit_entry_tenant ON audit_entry (tenant, id);
CREATE INDEX audit_entry_subject ON audit_entry (tenant, subject, id);
CREATE TABLE audit_tile (
	level bigint NOT NULL,
	tile bigint NOT NULL,
	hashes blob NOT NULL,
	PRIMARY KEY (level, tile)
);
-- +pg ALTER TABLE audit_tile ALTER COLUMN hashes SET STORAGE EXTERNAL;
CREATE TABLE audit_tip (
	one bigint PRIMARY KEY CHECK (one = 1),
	size bigint NOT NULL,
	root blob NOT NULL,
	epoch bigint NOT NULL -- of the lease under which it was written
);
CREATE TABLE audit_head (
	size bigint PRIMARY KEY,
	root blob NOT NULL,
	epoch bigint NOT NULL,
	at bigint NOT NULL,
	note text             -- the signed checkpoint; NULL until signed
);
CREATE INDEX audit_head_unsigned ON audit_head (size) WHERE note IS NULL;
CREATE TABLE audit_key (
	one bigint PRIMARY KEY CHECK (one = 1),
	verifier text NOT NULL, -- public half, as golang.org/x/mod/sumdb/note writes it
	sealed blob NOT NULL    -- private half, under the platform key
);
