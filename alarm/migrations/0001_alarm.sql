-- SPDX-License-Identifier: AGPL-3.0-only
CREATE TABLE alarm_rule (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	changed bigint NOT NULL, -- when it was last written or removed: other processes look for newer ones
	removed bigint NOT NULL, -- 0: it counts
	body text NOT NULL       -- JSON
);
CREATE INDEX alarm_rule_changed ON alarm_rule (changed);
-- What a rule remembers of a device.
CREATE TABLE alarm_standing (
	rule text NOT NULL,
	device text NOT NULL,
	tenant text NOT NULL,
	body text NOT NULL, -- JSON
	PRIMARY KEY (rule, device)
);
CREATE TABLE alarm (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	rule text NOT NULL,
	name text NOT NULL, -- of the rule at that time
	device text NOT NULL,
	product text NOT NULL,
	solution text NOT NULL,
	severity text NOT NULL,
	since bigint NOT NULL,
	value text NOT NULL,
	ended bigint NOT NULL, -- 0: open
	why text NOT NULL,     -- it ended
	acked bigint NOT NULL, -- 0: nobody has
	acked_by text NOT NULL,
	note text NOT NULL
);
CREATE INDEX alarm_tenant ON alarm (tenant, id);
CREATE INDEX alarm_device ON alarm (device, id);
CREATE UNIQUE INDEX alarm_open ON alarm (rule, device) WHERE ended = 0;
CREATE INDEX alarm_open_tenant ON alarm (tenant, severity) WHERE ended = 0;
