-- A device's row is kept for its life and the retention after it.
CREATE TABLE device (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	product text NOT NULL,
	revision text NOT NULL,
	batch text NOT NULL,
	serial text NOT NULL,
	solution text NOT NULL,
	state text NOT NULL,
	reason text NOT NULL,
	resume text NOT NULL,
	firmware text NOT NULL,
	created bigint NOT NULL,
	updated bigint NOT NULL,
	UNIQUE (product, serial)
);
CREATE INDEX device_tenant ON device (tenant, id);
CREATE INDEX device_batch ON device (tenant, batch);

-- Written before the issuer signs. One public key gets one certificate, ever.
CREATE TABLE issue_intent (
	key_hash text PRIMARY KEY,
	tenant text NOT NULL,
	subject text NOT NULL,
	kind text NOT NULL,
	serial text NOT NULL,
	not_before bigint NOT NULL,
	not_after bigint NOT NULL,
	created bigint NOT NULL
);
CREATE INDEX issue_intent_subject ON issue_intent (subject, created);

-- The register: what is not here is refused at every door.
CREATE TABLE certificate (
	fp text PRIMARY KEY,
	tenant text NOT NULL,
	subject text NOT NULL,
	kind text NOT NULL,
	phase text NOT NULL,
	serial text NOT NULL,
	key_hash text NOT NULL UNIQUE,
	der blob NOT NULL,
	not_before bigint NOT NULL,
	not_after bigint NOT NULL,
	created bigint NOT NULL,
	revoked bigint NOT NULL,
	reason text NOT NULL
);
CREATE INDEX certificate_subject ON certificate (subject, kind);

-- The twin of the journal file: an entry of the file that is absent here means that this database was restored.
CREATE TABLE distrust (
	id text PRIMARY KEY,
	entry text NOT NULL
);
