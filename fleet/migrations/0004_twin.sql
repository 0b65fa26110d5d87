-- SPDX-License-Identifier: AGPL-3.0-only
-- Documents are sealed with the device's own key, so that erasing the device erases them in every backup.
CREATE TABLE twin (
	device_id text PRIMARY KEY,
	tenant text NOT NULL,
	rev bigint NOT NULL, -- counts every change: who writes has read this one
	desired blob NOT NULL,
	desired_version bigint NOT NULL, -- 0: nothing was ever asked of it
	desired_at bigint NOT NULL,
	desired_by text NOT NULL,
	reported blob NOT NULL,
	reported_version bigint NOT NULL,
	reported_at bigint NOT NULL,
	boot bigint NOT NULL, -- of the newest report, if the device counts
	seq bigint NOT NULL,
	applied bigint NOT NULL,
	behind_since bigint NOT NULL, -- 0: the device goes by the newest desired state
	failed bigint NOT NULL,       -- the version that the device could not apply
	error text NOT NULL
);
-- What devices have not applied yet.
CREATE INDEX twin_behind ON twin (tenant, device_id) WHERE behind_since > 0;
CREATE INDEX twin_fresh ON twin (desired_at) WHERE behind_since > 0;

-- The newest versions of what was desired, whole: the patch between any two can be told, and who asked for it.
CREATE TABLE twin_version (
	device_id text NOT NULL,
	version bigint NOT NULL,
	tenant text NOT NULL,
	doc blob NOT NULL,
	actor text NOT NULL,
	job text NOT NULL, -- of commands; empty: it was set by itself
	at bigint NOT NULL,
	PRIMARY KEY (device_id, version)
);
