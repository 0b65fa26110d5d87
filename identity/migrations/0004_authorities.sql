-- Who signs: one row per authority and root, whichever backend holds its key. The certificate is empty while it is only requested.
CREATE TABLE authority (
	id text PRIMARY KEY,
	role text NOT NULL,
	generation bigint NOT NULL,
	backend text NOT NULL,
	algorithm text NOT NULL,
	status text NOT NULL,
	parent text NOT NULL,
	key_id text NOT NULL,
	cert blob NOT NULL,
	not_before bigint NOT NULL,
	not_after bigint NOT NULL,
	created bigint NOT NULL,
	UNIQUE (role, generation)
);

-- What is barred as a whole: everything that this authority, station, batch or trusted CA brought.
CREATE TABLE bar (
	scope text NOT NULL,
	id text NOT NULL,
	reason text NOT NULL,
	at bigint NOT NULL,
	PRIMARY KEY (scope, id)
);

-- Which authority signed, who brought it into the register (a line station or a trusted CA; empty: EST), and its CRL.
ALTER TABLE certificate ADD COLUMN authority text NOT NULL DEFAULT '';
ALTER TABLE certificate ADD COLUMN origin text NOT NULL DEFAULT '';
ALTER TABLE certificate ADD COLUMN shard bigint NOT NULL DEFAULT 0;
ALTER TABLE issue_intent ADD COLUMN authority text NOT NULL DEFAULT '';
CREATE INDEX certificate_authority ON certificate (authority, shard);
CREATE INDEX certificate_origin ON certificate (origin);

-- How sure we are of the key (A attested by hardware, B hardware claimed, C software, empty: not looked at), who brought
-- the device in, and what the factory says of its making (JSON).
ALTER TABLE device ADD COLUMN grade text NOT NULL DEFAULT '';
ALTER TABLE device ADD COLUMN origin text NOT NULL DEFAULT '';
ALTER TABLE device ADD COLUMN made text NOT NULL DEFAULT '';
CREATE INDEX device_origin ON device (tenant, origin);
