-- SPDX-License-Identifier: AGPL-3.0-only
-- What happened on devices: one row each, the body sealed with the device's key. Ids grow with the order of receipt.
CREATE TABLE telemetry_event (
	tenant text NOT NULL,
	device text NOT NULL,
	id text NOT NULL,
	at bigint NOT NULL, -- the device's own time if it can be right, else that of the receipt
	received bigint NOT NULL,
	type text NOT NULL,
	body blob NOT NULL,
	PRIMARY KEY (device, id)
);
CREATE INDEX telemetry_event_at ON telemetry_event (device, at); -- to recognise repeats
