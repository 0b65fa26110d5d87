-- SPDX-License-Identifier: AGPL-3.0-only
-- In whose name a tenant publishes.
CREATE TABLE respond_publisher (
	tenant text PRIMARY KEY,
	data text NOT NULL,
	updated bigint NOT NULL
);
-- OpenPGP keys; the newest signs, all are published, since they signed what is still read.
CREATE TABLE respond_signing_key (
	tenant text NOT NULL,
	fingerprint text NOT NULL,
	public text NOT NULL, -- armored
	sealed blob NOT NULL, -- under the platform key
	made bigint NOT NULL,
	PRIMARY KEY (tenant, fingerprint)
);
CREATE TABLE respond_advisory (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	product text NOT NULL,
	vuln text NOT NULL, -- name of the vulnerability, resolved anew whenever the advisory is written
	tracking text NOT NULL,
	data text NOT NULL, -- what people wrote: the next revision's words
	created bigint NOT NULL,
	changed bigint NOT NULL,
	actor text NOT NULL, -- who drafted it
	hold_reason text NOT NULL,
	hold_until bigint NOT NULL, -- 0: not held back
	hold_actor text NOT NULL,
	revision bigint NOT NULL, -- newest published one; 0: none
	initial bigint NOT NULL, -- when the first was published
	latest bigint NOT NULL, -- when the newest was published
	tlp text NOT NULL -- of the newest published one
);
CREATE UNIQUE INDEX respond_advisory_tracking ON respond_advisory (tenant, tracking);
CREATE INDEX respond_advisory_list ON respond_advisory (tenant, id);
-- Append-only: what was published stays as it was. Nothing without its digests and its signature has a place here.
CREATE TABLE respond_advisory_revision (
	advisory text NOT NULL,
	number bigint NOT NULL,
	tenant text NOT NULL,
	at bigint NOT NULL,
	actor text NOT NULL,
	summary text NOT NULL, -- what changed
	tlp text NOT NULL,
	title text NOT NULL, -- as it stands in the document, for lists
	note text NOT NULL, -- likewise: what users are told
	product_name text NOT NULL, -- likewise
	document blob NOT NULL,
	sha256 text NOT NULL CHECK (length(sha256) = 64),
	sha512 text NOT NULL CHECK (length(sha512) = 128),
	signature text NOT NULL CHECK (length(signature) > 0), -- armored
	fingerprint text NOT NULL, -- of the key that signed
	PRIMARY KEY (advisory, number)
);
