-- SPDX-License-Identifier: AGPL-3.0-only
ALTER TABLE command ADD COLUMN notice text NOT NULL DEFAULT ''; -- id of the notice that it carries

-- What became of a notice on a device. What it says is sealed with the command that carried it last.
CREATE TABLE command_notice (
	tenant text NOT NULL,
	device text NOT NULL,
	notice text NOT NULL,
	command text NOT NULL, -- the last one that carried it
	failed text NOT NULL,  -- how a command ended while the device did not keep it: failed, expired, cancelled; else empty
	stored bigint NOT NULL, -- ms; 0: not, as far as was told
	shown bigint NOT NULL,
	acknowledged bigint NOT NULL,
	PRIMARY KEY (tenant, device, notice)
);
CREATE INDEX command_notice_device ON command_notice (tenant, device, command);
CREATE INDEX command_notice_notice ON command_notice (tenant, notice, device);
