-- The signed trust bundles, whole, one row a version. Nothing is ever taken away: a device may come back at any of them.
CREATE TABLE trust_bundle (
	version bigint PRIMARY KEY,
	bytes blob NOT NULL,
	created bigint NOT NULL
);

-- By which bundle each device goes, as it said last; the version only grows.
CREATE TABLE bundle_ack (
	device text PRIMARY KEY,
	tenant text NOT NULL,
	version bigint NOT NULL,
	at bigint NOT NULL
);
CREATE INDEX bundle_ack_tenant ON bundle_ack (tenant, version, device);

-- Roots certified by other roots, and anchors by other anchors.
CREATE TABLE bridge (
	fp text PRIMARY KEY,
	authority text NOT NULL,
	signer text NOT NULL,
	cert blob NOT NULL,
	created bigint NOT NULL
);

-- Recovery files that were handed out: the challenge inside, and whether somebody has shown that it can be opened.
CREATE TABLE recovery (
	challenge text PRIMARY KEY,
	authorities text NOT NULL,
	created bigint NOT NULL,
	proven bigint NOT NULL
);

-- Which alarm about the end of an authority was given.
CREATE TABLE authority_alarm (
	authority text NOT NULL,
	level text NOT NULL,
	at bigint NOT NULL,
	PRIMARY KEY (authority, level)
);
