-- SPDX-License-Identifier: AGPL-3.0-only
-- Half-open intervals; the present one has to_ts = 9223372036854775807.
CREATE TABLE install (
	tenant text NOT NULL,
	product text NOT NULL,
	device_id text NOT NULL,
	release_id text NOT NULL,
	from_ts bigint NOT NULL,
	to_ts bigint NOT NULL,
	PRIMARY KEY (tenant, device_id, from_ts)
);
-- Covers "who runs release R now" in the order of device ids, and any past moment by the range of to_ts.
CREATE INDEX install_release ON install (tenant, release_id, to_ts, device_id, from_ts);
-- The part of a day that the daily counters do not tell.
CREATE INDEX install_from ON install (tenant, from_ts, release_id);
CREATE INDEX install_to ON install (tenant, to_ts, release_id);

-- What an installation changed; folded into the two tables below and deleted.
CREATE TABLE fleet_delta (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	release_id text NOT NULL,
	at bigint NOT NULL,
	n bigint NOT NULL
);
CREATE INDEX fleet_delta_tenant ON fleet_delta (tenant, release_id);
CREATE TABLE fleet_count (
	tenant text NOT NULL,
	release_id text NOT NULL,
	n bigint NOT NULL,
	PRIMARY KEY (tenant, release_id)
);
-- Net change per day (days since 1970 UTC).
CREATE TABLE fleet_day (
	tenant text NOT NULL,
	day bigint NOT NULL,
	release_id text NOT NULL,
	n bigint NOT NULL,
	PRIMARY KEY (tenant, day, release_id)
);

CREATE TABLE presence (
	device_id text PRIMARY KEY,
	tenant text NOT NULL,
	online bigint NOT NULL,
	since bigint NOT NULL, -- of this state
	seen bigint NOT NULL,  -- when a session last began or ended
	reason text NOT NULL   -- why it is offline
);
CREATE INDEX presence_online ON presence (tenant, online);
