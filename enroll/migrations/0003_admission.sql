-- Manufacturer CAs that a tenant trusts: what they sign registers itself on its first connect.
CREATE TABLE trusted_ca (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	name text NOT NULL,
	key_hash text NOT NULL,
	cert blob NOT NULL,
	below blob NOT NULL,
	policy text NOT NULL,
	quota bigint NOT NULL,
	used bigint NOT NULL,
	refused bigint NOT NULL,
	expires bigint NOT NULL,
	state text NOT NULL,
	reason text NOT NULL,
	code text NOT NULL,
	code_ends bigint NOT NULL,
	proof text NOT NULL,
	created bigint NOT NULL,
	actor text NOT NULL,
	UNIQUE (tenant, key_hash)
);
CREATE INDEX trusted_ca_key ON trusted_ca (key_hash);

-- By which issuer names a trusted CA is found: its own and those of the authorities below it that were uploaded.
CREATE TABLE trusted_name (
	subject_hash text NOT NULL,
	ca text NOT NULL,
	PRIMARY KEY (subject_hash, ca)
);

-- The newest revocation list of each authority of a trusted CA.
CREATE TABLE trusted_crl (
	ca text NOT NULL,
	issuer text NOT NULL,
	number text NOT NULL,
	this_update bigint NOT NULL,
	next_update bigint NOT NULL,
	entries bigint NOT NULL,
	hash text NOT NULL,
	der blob NOT NULL,
	taken bigint NOT NULL,
	PRIMARY KEY (ca, issuer)
);

-- What a trusted CA brought, with the authorities between it and the certificate.
CREATE TABLE brought (
	fp text PRIMARY KEY,
	tenant text NOT NULL,
	ca text NOT NULL,
	device text NOT NULL,
	issuer text NOT NULL,
	serial text NOT NULL,
	path blob NOT NULL,
	at bigint NOT NULL
);
CREATE INDEX brought_serial ON brought (ca, issuer, serial);

-- Enrolment tokens and shared claim certificates; of a token only its hash is kept.
CREATE TABLE enrol_token (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	name text NOT NULL,
	secret text NOT NULL UNIQUE,
	kind text NOT NULL,
	product text NOT NULL,
	revision text NOT NULL,
	pattern text NOT NULL,
	listed bigint NOT NULL,
	solution text NOT NULL,
	quota bigint NOT NULL,
	used bigint NOT NULL,
	refused bigint NOT NULL,
	expires bigint NOT NULL,
	revoked bigint NOT NULL,
	reason text NOT NULL,
	created bigint NOT NULL,
	actor text NOT NULL
);
CREATE INDEX enrol_token_tenant ON enrol_token (tenant, id);

-- With which keys a device asked for certificates, and since when: an honest one never goes back to an older key.
CREATE TABLE asked (
	device text NOT NULL,
	key_hash text NOT NULL,
	tenant text NOT NULL,
	at bigint NOT NULL,
	place text NOT NULL,
	PRIMARY KEY (device, key_hash)
);

-- When each LDevID was first used: whoever uses an older one afterwards is a second holder.
CREATE TABLE first_use (
	fp text PRIMARY KEY,
	tenant text NOT NULL,
	device text NOT NULL,
	at bigint NOT NULL,
	place text NOT NULL
);
CREATE INDEX first_use_device ON first_use (device, at);

-- Suspected clones: what was seen twice, on which devices, and what a person decided.
CREATE TABLE clone (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	what text NOT NULL,
	mark text NOT NULL,
	state text NOT NULL,
	devices text NOT NULL,
	seen bigint NOT NULL,
	first bigint NOT NULL,
	last bigint NOT NULL,
	verdict text NOT NULL,
	actor text NOT NULL,
	reason text NOT NULL,
	decided bigint NOT NULL
);
CREATE INDEX clone_tenant ON clone (tenant, state, id);
CREATE UNIQUE INDEX clone_open ON clone (tenant, what, mark) WHERE state = 'open';

CREATE TABLE clone_sighting (
	clone text NOT NULL,
	n bigint NOT NULL,
	at bigint NOT NULL,
	device text NOT NULL,
	serial text NOT NULL,
	place text NOT NULL,
	door text NOT NULL,
	key_hash text NOT NULL,
	detail text NOT NULL,
	PRIMARY KEY (clone, n)
);
