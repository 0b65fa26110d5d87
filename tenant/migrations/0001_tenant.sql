-- SPDX-License-Identifier: AGPL-3.0-only
CREATE TABLE tenant (
	id   text NOT NULL PRIMARY KEY,
	name text NOT NULL UNIQUE,
	at   bigint NOT NULL
);
CREATE TABLE solution (
	id     text NOT NULL PRIMARY KEY,
	tenant text NOT NULL,
	name   text NOT NULL,
	owner  text NOT NULL, -- the customer it serves, in words
	at     bigint NOT NULL,
	UNIQUE (tenant, name)
);
CREATE TABLE person (
	id      text NOT NULL PRIMARY KEY,
	tenant  text NOT NULL,
	name    text NOT NULL,
	handle  blob NOT NULL UNIQUE, -- WebAuthn user handle, 64 random bytes
	at      bigint NOT NULL,
	seen    bigint NOT NULL, -- last sign-in
	removed bigint NOT NULL  -- 0: may enter
);
CREATE INDEX person_tenant ON person (tenant, id);
CREATE TABLE passkey (
	id         text NOT NULL PRIMARY KEY, -- base64url of the credential id
	person     text NOT NULL,
	credential text NOT NULL, -- public key, counter and flags, as JSON
	at         bigint NOT NULL,
	used       bigint NOT NULL
);
CREATE INDEX passkey_person ON passkey (person);
CREATE TABLE access_grant (
	holder   text NOT NULL, -- person or token
	role     text NOT NULL,
	tenant   text NOT NULL,
	product  text NOT NULL,
	solution text NOT NULL,
	PRIMARY KEY (holder, role, tenant, product, solution)
);
CREATE TABLE token (
	id      text NOT NULL PRIMARY KEY,
	tenant  text NOT NULL,
	name    text NOT NULL,
	hash    text NOT NULL, -- SHA-256 of the secret
	made_by text NOT NULL,
	at      bigint NOT NULL,
	expires bigint NOT NULL,
	used    bigint NOT NULL,
	revoked bigint NOT NULL
);
CREATE INDEX token_tenant ON token (tenant, id);
CREATE TABLE session (
	hash    text NOT NULL PRIMARY KEY, -- SHA-256 of the cookie
	person  text NOT NULL,
	at      bigint NOT NULL,
	used    bigint NOT NULL,
	expires bigint NOT NULL -- absolute end
);
CREATE INDEX session_person ON session (person);
CREATE TABLE entry_link (
	hash     text NOT NULL PRIMARY KEY, -- SHA-256 of the secret in the link
	tenant   text NOT NULL, -- '' is the setup link, which makes the first person
	name     text NOT NULL,
	role     text NOT NULL,
	product  text NOT NULL,
	solution text NOT NULL,
	made_by  text NOT NULL,
	at       bigint NOT NULL,
	expires  bigint NOT NULL,
	used     bigint NOT NULL
);
CREATE TABLE ceremony ( -- a passkey being made or used, between its two requests
	hash    text NOT NULL PRIMARY KEY,
	data    text NOT NULL,
	expires bigint NOT NULL
);
