-- SPDX-License-Identifier: AGPL-3.0-only
-- One wipe command and what the device answered. The key is pinned when the wipe is asked for.
CREATE TABLE retire_wipe (
	command text PRIMARY KEY,
	tenant text NOT NULL,
	device text NOT NULL,
	serial text NOT NULL,
	nonce text NOT NULL,
	key blob NOT NULL, -- of the IDevID, PKIX
	reason text NOT NULL,
	actor text NOT NULL,
	asked bigint NOT NULL,
	receipt blob NOT NULL, -- wire.Signed as JSON, empty until a true one came
	answered bigint NOT NULL
);
CREATE INDEX retire_wipe_device ON retire_wipe (tenant, device, asked);
-- The tombstone of a device; done is 0 while steps are open.
CREATE TABLE retire_tombstone (
	tenant text NOT NULL,
	device text NOT NULL,
	product text NOT NULL,
	reason text NOT NULL,
	unwiped bigint NOT NULL, -- 1: without a receipt
	actor text NOT NULL,
	begun bigint NOT NULL,
	done bigint NOT NULL,
	erased bigint NOT NULL, -- when the data key was destroyed
	horizon bigint NOT NULL, -- from when no backup can be read either
	PRIMARY KEY (tenant, device)
);
CREATE TABLE retire_step (
	tenant text NOT NULL,
	device text NOT NULL,
	step text NOT NULL,
	at bigint NOT NULL,
	detail text NOT NULL,
	PRIMARY KEY (tenant, device, step)
);
