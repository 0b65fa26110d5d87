-- SPDX-License-Identifier: AGPL-3.0-only
-- What a device sent and its product's catalogue refused: one row per device, the names sealed with the device's key.
CREATE TABLE telemetry_dropped (
	tenant text NOT NULL,
	device text NOT NULL,
	n bigint NOT NULL,
	body blob NOT NULL, -- sealed: per stream, field and rule how often, and when last
	rev bigint NOT NULL, -- grows with each change
	PRIMARY KEY (device)
);
-- The names among them that a product's catalogue does not know, of no device in particular, so that a person can
-- declare them. At most 256 of one product.
CREATE TABLE telemetry_undeclared (
	tenant text NOT NULL,
	product text NOT NULL,
	stream text NOT NULL,
	field text NOT NULL,
	n bigint NOT NULL,
	at bigint NOT NULL, -- of the last one
	PRIMARY KEY (tenant, product, stream, field)
);
-- Devices with a hole in their count of messages, numbers only. ended is 0 while the hole is open.
CREATE TABLE telemetry_gap (
	tenant text NOT NULL,
	device text NOT NULL,
	missing bigint NOT NULL,
	since bigint NOT NULL,
	ended bigint NOT NULL,
	rev bigint NOT NULL,
	PRIMARY KEY (device)
);
CREATE INDEX telemetry_gap_open ON telemetry_gap (tenant, device) WHERE ended = 0;
-- Up to where the chunks of a stream were searched for fields whose time is over, under which catalogue and default.
CREATE TABLE telemetry_retained (
	tenant text NOT NULL,
	device text NOT NULL,
	stream text NOT NULL,
	upto bigint NOT NULL,
	rules text NOT NULL,
	PRIMARY KEY (device, stream)
);
