CREATE TABLE batch (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	product text NOT NULL,
	revision text NOT NULL,
	name text NOT NULL,
	size bigint NOT NULL,
	issued bigint NOT NULL,
	produced bigint NOT NULL,
	created bigint NOT NULL,
	closed bigint NOT NULL,
	UNIQUE (product, name)
);
CREATE INDEX batch_tenant ON batch (tenant, id);

CREATE TABLE station (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	batch text NOT NULL,
	name text NOT NULL,
	quota bigint NOT NULL,
	used bigint NOT NULL,
	refused bigint NOT NULL,
	created bigint NOT NULL,
	expires bigint NOT NULL,
	killed bigint NOT NULL,
	reason text NOT NULL
);
CREATE INDEX station_tenant ON station (tenant, batch);

-- One claim per device; a repeat at the line replaces its code until it is used.
CREATE TABLE claim (
	device text PRIMARY KEY,
	tenant text NOT NULL,
	station text NOT NULL,
	code_hash text NOT NULL UNIQUE,
	created bigint NOT NULL,
	used bigint NOT NULL,
	solution text NOT NULL
);
CREATE INDEX claim_station ON claim (station);

-- Failed claims in the window that began at since; code_hash '' counts the whole tenant.
CREATE TABLE claim_failure (
	tenant text NOT NULL,
	code_hash text NOT NULL,
	since bigint NOT NULL,
	n bigint NOT NULL,
	PRIMARY KEY (tenant, code_hash)
);
