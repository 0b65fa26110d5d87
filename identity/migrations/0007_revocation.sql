-- The feed: every loss of trust in the order of commits. n grows by one under the lock of the row in feed, which is held
-- to the end of the transaction: whoever has read up to n has missed nothing before it, on whichever node it was written.
-- hash chains the entries, so that a journal is compared with the database by its last line.
ALTER TABLE distrust ADD COLUMN n bigint NOT NULL DEFAULT 0;
ALTER TABLE distrust ADD COLUMN hash text NOT NULL DEFAULT '';
CREATE UNIQUE INDEX distrust_n ON distrust (n) WHERE n > 0;
CREATE TABLE feed (
	one bigint PRIMARY KEY,
	n bigint NOT NULL,
	hash text NOT NULL
);
INSERT INTO feed(one, n, hash) VALUES (1, 0, '');

-- A bar is the tenant's own affair, except one on an authority (tenant ''). It is effective at once; the job behind it
-- revokes the certificates one by one: certificates is how many so far, after the last fingerprint, finished when.
DROP TABLE bar;
CREATE TABLE bar (
	tenant text NOT NULL,
	scope text NOT NULL,
	id text NOT NULL,
	reason text NOT NULL,
	actor text NOT NULL,
	at bigint NOT NULL,
	certificates bigint NOT NULL,
	after text NOT NULL,
	finished bigint NOT NULL,
	PRIMARY KEY (tenant, scope, id)
);
CREATE INDEX device_in_batch ON device (batch);

-- The certificates of an authority are issued into shards; each shard has a certificate revocation list of its own,
-- named by url. touched counts what changed in it, signed is the count that the list of number shows. refresh is when
-- the list is due also without a change, ends when the last certificate of the shard does.
ALTER TABLE issue_intent ADD COLUMN shard bigint NOT NULL DEFAULT 0;
CREATE TABLE crl_head (
	authority text PRIMARY KEY,
	shards bigint NOT NULL
);
CREATE TABLE crl (
	authority text NOT NULL,
	shard bigint NOT NULL,
	url text NOT NULL,
	touched bigint NOT NULL,
	signed bigint NOT NULL,
	number bigint NOT NULL,
	updated bigint NOT NULL,
	until bigint NOT NULL,
	refresh bigint NOT NULL,
	ends bigint NOT NULL,
	PRIMARY KEY (authority, shard)
);
CREATE INDEX crl_touched ON crl (authority, shard) WHERE touched <> signed;
CREATE INDEX crl_refresh ON crl (refresh);
CREATE TABLE crl_list (
	authority text NOT NULL,
	shard bigint NOT NULL,
	base blob NOT NULL,
	complete blob NOT NULL,
	delta blob NOT NULL,
	PRIMARY KEY (authority, shard)
);
