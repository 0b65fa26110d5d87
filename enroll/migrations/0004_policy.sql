-- How devices enrol, by label: versions that only grow, the newest one counts. policy is JSON.
CREATE TABLE enrol_policy (
	tenant text NOT NULL,
	label text NOT NULL,
	version bigint NOT NULL,
	policy text NOT NULL,
	actor text NOT NULL,
	created bigint NOT NULL,
	ended bigint NOT NULL,
	PRIMARY KEY (tenant, label, version)
);

-- What a device said last of how it is set up, and what of its product's baseline it did not fulfil (a JSON list).
-- version 0: the product had no baseline.
CREATE TABLE device_baseline (
	device text PRIMARY KEY,
	tenant text NOT NULL,
	at bigint NOT NULL,
	version bigint NOT NULL,
	ok bigint NOT NULL,
	failed text NOT NULL,
	report text NOT NULL
);
CREATE INDEX device_baseline_failing ON device_baseline (tenant, ok, device);

-- A challenge that waits for its proof: one per device, destroyed by the first answer.
CREATE TABLE attest_challenge (
	device text PRIMARY KEY,
	tenant text NOT NULL,
	id text NOT NULL,
	pending text NOT NULL,
	created bigint NOT NULL
);

-- What was proven about a key. A row is about one key of one device; the newest counts.
CREATE TABLE attestation (
	tenant text NOT NULL,
	device text NOT NULL,
	key_hash text NOT NULL,
	grade text NOT NULL,
	ek text NOT NULL,
	evidence text NOT NULL,
	policy text NOT NULL,
	at bigint NOT NULL,
	PRIMARY KEY (device, key_hash)
);

CREATE INDEX attestation_ek ON attestation (tenant, ek);

-- The TPM makers whose endorsement certificates a tenant believes.
CREATE TABLE tpm_maker (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	name text NOT NULL,
	fp text NOT NULL,
	cert blob NOT NULL,
	actor text NOT NULL,
	created bigint NOT NULL,
	UNIQUE (tenant, fp)
);
