-- SPDX-License-Identifier: AGPL-3.0-only
-- The links of each device's chain of security events, the body sealed with the device's key, as it came. They stay until
-- the device is erased. Two rows of one number are two versions of what the device says happened.
CREATE TABLE telemetry_security (
	tenant text NOT NULL,
	device text NOT NULL,
	seq bigint NOT NULL,
	id text NOT NULL,
	at bigint NOT NULL, -- the device's own time if it can be right, else that of the receipt
	received bigint NOT NULL,
	kind text NOT NULL,
	body blob NOT NULL,
	PRIMARY KEY (device, seq, id)
);
-- How each chain stands.
CREATE TABLE telemetry_chain (
	tenant text NOT NULL,
	device text NOT NULL,
	head bigint NOT NULL, -- highest number
	since bigint NOT NULL, -- when the first link was received
	checked bigint NOT NULL, -- number of the newest checkpoint that is signed as it should be; 0: none yet
	checked_at bigint NOT NULL, -- when it was received
	rev bigint NOT NULL, -- grows with each change
	PRIMARY KEY (device)
);
-- Where a chain is broken. healed is 0 while it is: only what is missing can still arrive.
CREATE TABLE telemetry_chain_break (
	tenant text NOT NULL,
	device text NOT NULL,
	id text NOT NULL,
	kind text NOT NULL, -- gap, fork, link or checkpoint
	lo bigint NOT NULL,
	hi bigint NOT NULL,
	at bigint NOT NULL,
	healed bigint NOT NULL,
	told bigint NOT NULL, -- 1: announced
	PRIMARY KEY (device, id)
);
