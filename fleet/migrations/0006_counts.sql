-- SPDX-License-Identifier: AGPL-3.0-only
-- Of a million devices, each question has an index that answers it and no other: what runs now is in a part of its own, so
-- that the past costs nothing; what began or ended in some stretch of time is one range per release.
DROP INDEX install_release;
DROP INDEX install_from;
DROP INDEX install_to;
DROP INDEX install_device;
-- SQLite keeps the rows in the order of their key: what a device runs is looked up there, without a second copy.
-- +sqlite CREATE TABLE install_moved (tenant text NOT NULL, product text NOT NULL, device_id text NOT NULL, release_id text NOT NULL, from_ts bigint NOT NULL, to_ts bigint NOT NULL, PRIMARY KEY (tenant, device_id, from_ts)) WITHOUT ROWID;
-- +sqlite INSERT INTO install_moved SELECT tenant, product, device_id, release_id, from_ts, to_ts FROM install ORDER BY tenant, device_id, from_ts;
-- +sqlite DROP TABLE install;
-- +sqlite ALTER TABLE install_moved RENAME TO install;
-- Both engines use a partial index only where the statement says 9223372036854775807 itself, not as a parameter.
CREATE INDEX install_now ON install (tenant, release_id, device_id, from_ts) WHERE to_ts = 9223372036854775807;
CREATE INDEX install_began ON install (tenant, release_id, from_ts);
CREATE INDEX install_ended ON install (tenant, release_id, to_ts, from_ts, device_id) WHERE to_ts < 9223372036854775807;

-- What an installation changed, one row each; '' is no release. Folded into the counters and deleted.
DROP TABLE fleet_delta;
CREATE TABLE fleet_delta (
	tenant text NOT NULL,
	id text NOT NULL,
	from_release text NOT NULL,
	to_release text NOT NULL,
	at bigint NOT NULL,
	PRIMARY KEY (tenant, id)
-- +sqlite ) WITHOUT ROWID;
-- +pg );

-- How many devices run a release. moment is the sum of the times (in ms since 2020 UTC) at which devices began to run it, less
-- those at which they ended: at any time T after the last of them, n * T - moment is how long it ran, summed over devices.
DROP TABLE fleet_count;
DROP TABLE fleet_day;
CREATE TABLE fleet_count (
	tenant text NOT NULL,
	release_id text NOT NULL,
	n bigint NOT NULL,
	moment bigint NOT NULL,
	events bigint NOT NULL,  -- folded so far
	last_at bigint NOT NULL, -- when the latest of them was
	mark_at bigint NOT NULL, -- when the latest mark is; -1: there is none
	PRIMARY KEY (tenant, release_id)
-- +sqlite ) WITHOUT ROWID;
-- +pg );
-- The same at some past instants, with all that was at or before each, and what happened since the mark before (block.go).
CREATE TABLE fleet_mark (
	tenant text NOT NULL,
	release_id text NOT NULL,
	at bigint NOT NULL,
	n bigint NOT NULL,
	moment bigint NOT NULL,
	body blob NOT NULL,
	PRIMARY KEY (tenant, release_id, at)
-- +sqlite ) WITHOUT ROWID;
-- +pg );
-- Marks of what was before are made by the first daily recount. Until then the past is counted from the intervals.
INSERT INTO fleet_count(tenant, release_id, n, moment, events, last_at, mark_at)
	SELECT tenant, release_id, CAST(sum(sign) AS bigint), CAST(sum(sign * (at - 1577836800000)) AS bigint), count(*), max(at), -1
	FROM (SELECT tenant, release_id, from_ts AS at, 1 AS sign FROM install
		UNION ALL SELECT tenant, release_id, to_ts, -1 FROM install WHERE to_ts < 9223372036854775807) e
	GROUP BY tenant, release_id;

-- What is too dear to count at each asking: the answer with the instant that it is for.
CREATE TABLE fleet_ever (
	tenant text NOT NULL,
	id text NOT NULL, -- of the question: a digest of its spans
	devices bigint NOT NULL,
	as_of bigint NOT NULL,
	PRIMARY KEY (tenant, id)
);
