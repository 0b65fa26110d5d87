-- SPDX-License-Identifier: AGPL-3.0-only
-- What the tenant's own people say of a device.
CREATE TABLE label (
	tenant text NOT NULL,
	device_id text NOT NULL,
	name text NOT NULL,
	value text NOT NULL,
	PRIMARY KEY (tenant, device_id, name)
);
-- Covers "who has this label" in the order of device ids, and counts by value.
CREATE INDEX label_value ON label (tenant, name, value, device_id);

-- A dynamic group is its filter, a static one its members.
CREATE TABLE fleet_group (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	name text NOT NULL,
	note text NOT NULL,
	filter text NOT NULL, -- empty: static
	members bigint NOT NULL, -- of a static one
	created bigint NOT NULL,
	updated bigint NOT NULL,
	UNIQUE (tenant, name)
);
CREATE TABLE group_member (
	tenant text NOT NULL,
	group_id text NOT NULL,
	device_id text NOT NULL,
	PRIMARY KEY (tenant, group_id, device_id)
);
CREATE INDEX group_member_device ON group_member (tenant, device_id);

-- Which node a device is, or was, connected to, and how many connections it ever had.
ALTER TABLE presence ADD COLUMN node text NOT NULL DEFAULT '';
ALTER TABLE presence ADD COLUMN connections bigint NOT NULL DEFAULT 0;
-- The devices of a node that has died, and who is online, in the order of device ids.
CREATE INDEX presence_node ON presence (node, online, device_id);
DROP INDEX presence_online;
CREATE INDEX presence_online ON presence (tenant, online, device_id);

-- The last connections of a device: a ring of slots, so that nothing has to be deleted.
CREATE TABLE connection (
	device_id text NOT NULL,
	slot bigint NOT NULL,
	tenant text NOT NULL,
	node text NOT NULL,
	from_ts bigint NOT NULL,
	to_ts bigint NOT NULL, -- 9223372036854775807 while it lasts
	reason text NOT NULL,
	PRIMARY KEY (device_id, slot)
);
CREATE INDEX connection_open ON connection (node, device_id) WHERE to_ts = 9223372036854775807;

-- The processes that devices connect to. One whose time has run out without a word has died, and its devices with it.
CREATE TABLE fleet_node (
	node text PRIMARY KEY,
	until bigint NOT NULL
);
-- How many devices are online at each.
CREATE TABLE fleet_node_online (
	node text NOT NULL,
	tenant text NOT NULL,
	n bigint NOT NULL,
	PRIMARY KEY (node, tenant)
);

-- What a device runs now, and its labels, are looked up here. SQLite keeps no statistics: without these it prefers an
-- index that covers the question and walks the tenant's whole fleet, for each device.
CREATE INDEX install_device ON install (tenant, device_id, to_ts, release_id);
CREATE INDEX label_device ON label (tenant, device_id, name, value);
