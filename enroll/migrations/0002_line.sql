-- What a batch demands of its stations, what it has promised to offline ones, and the head of its manifest.
ALTER TABLE batch ADD COLUMN signed bigint NOT NULL DEFAULT 0;
ALTER TABLE batch ADD COLUMN listed bigint NOT NULL DEFAULT 0;
ALTER TABLE batch ADD COLUMN reserved bigint NOT NULL DEFAULT 0;
ALTER TABLE batch ADD COLUMN units bigint NOT NULL DEFAULT 0;
ALTER TABLE batch ADD COLUMN head text NOT NULL DEFAULT '';
ALTER TABLE batch ADD COLUMN produced_list text NOT NULL DEFAULT '';

-- Skewed counts requests under a clock that is off; the rest is for stations that work without a network.
ALTER TABLE station ADD COLUMN skewed bigint NOT NULL DEFAULT 0;
ALTER TABLE station ADD COLUMN offline bigint NOT NULL DEFAULT 0;
ALTER TABLE station ADD COLUMN permit text NOT NULL DEFAULT '';
ALTER TABLE station ADD COLUMN reserved bigint NOT NULL DEFAULT 0;
ALTER TABLE station ADD COLUMN seq bigint NOT NULL DEFAULT 0;
ALTER TABLE station ADD COLUMN head text NOT NULL DEFAULT '';
ALTER TABLE station ADD COLUMN forked bigint NOT NULL DEFAULT 0;

-- The manifest: one row per identity of a batch, counted and chained, never changed. The envelope is what the station
-- signed; empty for a request that was not.
CREATE TABLE made (
	batch text NOT NULL,
	seq bigint NOT NULL,
	tenant text NOT NULL,
	device text NOT NULL UNIQUE,
	serial text NOT NULL,
	key_hash text NOT NULL,
	fp text NOT NULL,
	station text NOT NULL,
	at bigint NOT NULL,
	envelope blob NOT NULL,
	hash text NOT NULL,
	PRIMARY KEY (batch, seq)
);
CREATE INDEX made_serial ON made (batch, serial);

-- Serial numbers that the factory says it made; those of the batch's produced_list count.
CREATE TABLE produced (
	batch text NOT NULL,
	list text NOT NULL,
	serial text NOT NULL,
	PRIMARY KEY (batch, list, serial)
);

-- Serial numbers that may be made. A row counts once its file is whole: the row of upload says so.
CREATE TABLE upload (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	rows bigint NOT NULL,
	whole bigint NOT NULL,
	created bigint NOT NULL
);
CREATE TABLE preauthorised (
	tenant text NOT NULL,
	product text NOT NULL,
	serial text NOT NULL,
	upload text NOT NULL,
	batch text NOT NULL,
	mac text NOT NULL,
	purchase text NOT NULL,
	line text NOT NULL,
	part text NOT NULL,
	labels text NOT NULL,
	actor text NOT NULL,
	created bigint NOT NULL,
	used bigint NOT NULL,
	device text NOT NULL,
	PRIMARY KEY (tenant, product, serial)
);
CREATE INDEX preauthorised_upload ON preauthorised (upload);

-- Failed claims in the window that began at since, by code, by who typed and by tenant; '' is everybody and any code.
DROP TABLE claim_failure;
CREATE TABLE claim_failure (
	tenant text NOT NULL,
	actor text NOT NULL,
	code_hash text NOT NULL,
	since bigint NOT NULL,
	n bigint NOT NULL,
	PRIMARY KEY (tenant, actor, code_hash)
);

-- Devices that are known and wait for a person, and what was decided.
CREATE TABLE lobby (
	device text PRIMARY KEY,
	tenant text NOT NULL,
	since bigint NOT NULL,
	how text NOT NULL,
	evidence text NOT NULL,
	verdict text NOT NULL,
	actor text NOT NULL,
	reason text NOT NULL,
	decided bigint NOT NULL
);
CREATE INDEX lobby_tenant ON lobby (tenant, verdict, device);

CREATE TABLE device_label (
	device text NOT NULL,
	name text NOT NULL,
	tenant text NOT NULL,
	value text NOT NULL,
	PRIMARY KEY (device, name)
);
CREATE INDEX device_label_value ON device_label (tenant, name, value);

-- Who else is asked before a device gets in: one hook per product, '' for all others of the tenant.
CREATE TABLE hook (
	tenant text NOT NULL,
	product text NOT NULL,
	url text NOT NULL,
	secret blob NOT NULL,
	patience bigint NOT NULL,
	open bigint NOT NULL,
	actor text NOT NULL,
	created bigint NOT NULL,
	asked bigint NOT NULL,
	denied bigint NOT NULL,
	failed bigint NOT NULL,
	fault text NOT NULL,
	PRIMARY KEY (tenant, product)
);

-- What an offline station has brought, entry by entry; refused entries stand here too, so that there are no gaps.
CREATE TABLE station_journal (
	station text NOT NULL,
	seq bigint NOT NULL,
	tenant text NOT NULL,
	hash text NOT NULL,
	serial text NOT NULL,
	device text NOT NULL,
	rule text NOT NULL,
	detail text NOT NULL,
	entry blob NOT NULL,
	at bigint NOT NULL,
	PRIMARY KEY (station, seq)
);
