-- SPDX-License-Identifier: AGPL-3.0-only
-- One row per group commit: zstd of the records as they came, sealed with the hourly key key_id.
CREATE TABLE telemetry_inbox (
	id text PRIMARY KEY,
	at bigint NOT NULL,
	n bigint NOT NULL,
	key_id text NOT NULL,
	body blob NOT NULL,
	error text NOT NULL -- not empty: damaged, set aside for a person to look at
);
-- Columnar zstd, sealed with the device's key. Late data makes an overlapping chunk.
CREATE TABLE telemetry_chunk (
	tenant text NOT NULL,
	device text NOT NULL,
	stream text NOT NULL,
	t0 bigint NOT NULL,
	t1 bigint NOT NULL,
	id text NOT NULL,
	n bigint NOT NULL,
	body blob NOT NULL,
	PRIMARY KEY (device, t0, id)
);
CREATE INDEX telemetry_chunk_small ON telemetry_chunk (tenant, device, stream) WHERE n < 256;
-- The last values, sealed with the device's key, and which messages arrived (numbers only, in the clear).
CREATE TABLE telemetry_latest (
	tenant text NOT NULL,
	device text NOT NULL,
	stream text NOT NULL,
	t bigint NOT NULL,
	boot bigint NOT NULL,
	seq bigint NOT NULL,
	seen blob NOT NULL,
	body blob NOT NULL,
	rev bigint NOT NULL, -- grows with each change: two compactors cannot overwrite each other
	PRIMARY KEY (device, stream)
);
-- Payloads that were dropped, per device.
CREATE TABLE telemetry_refused (
	tenant text NOT NULL,
	device text NOT NULL,
	n bigint NOT NULL,
	at bigint NOT NULL,
	reason text NOT NULL,
	PRIMARY KEY (device)
);
-- Records of other classes on their way to their handlers; sealed with the hourly key key_id.
CREATE TABLE telemetry_pending (
	id text PRIMARY KEY,
	device text NOT NULL,
	at bigint NOT NULL,
	run_at bigint NOT NULL,
	attempts bigint NOT NULL,
	key_id text NOT NULL,
	body blob NOT NULL,
	error text NOT NULL -- of the last attempt
);
CREATE INDEX telemetry_pending_due ON telemetry_pending (run_at);
