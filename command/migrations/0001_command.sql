-- SPDX-License-Identifier: AGPL-3.0-only
CREATE TABLE command (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	device text NOT NULL,
	name text NOT NULL,
	args text NOT NULL,
	state text NOT NULL,
	actor text NOT NULL,
	attempts bigint NOT NULL,
	created bigint NOT NULL,
	not_after bigint NOT NULL,
	sent bigint NOT NULL,
	received bigint NOT NULL,
	accepted bigint NOT NULL,
	ended bigint NOT NULL,
	reason text NOT NULL,
	result text NOT NULL
);
CREATE INDEX command_device ON command (tenant, device, id);
-- What waits for a device.
CREATE INDEX command_waiting ON command (device, id) WHERE state IN ('queued', 'sent');
