-- Who is to be told about a product, whether or not any device is connected. sealed holds name, address and the secret of a
-- webhook under the contact's own key, which ends with it; hash is keyed and finds an address without knowing it. An erased
-- contact (erased > 0) keeps its row as its tombstone: hash is its id then and sealed is empty.
CREATE TABLE inform_contact (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	role text NOT NULL,
	channel text NOT NULL,
	lang text NOT NULL,
	hash text NOT NULL,
	sealed blob NOT NULL,
	created bigint NOT NULL,
	changed bigint NOT NULL,
	erased bigint NOT NULL,
	UNIQUE (tenant, hash)
);
CREATE INDEX inform_contact_tenant ON inform_contact(tenant, id);

-- What a contact has. revision is empty where nobody knows which hardware it is: then it is all of them.
CREATE TABLE inform_holding (
	contact text NOT NULL,
	product text NOT NULL,
	revision text NOT NULL,
	tenant text NOT NULL,
	PRIMARY KEY (contact, product, revision)
);
CREATE INDEX inform_holding_product ON inform_holding(tenant, product, contact);
CREATE INDEX inform_holding_contact ON inform_holding(tenant, contact, product, revision);

-- What users are told. source makes what the platform makes by itself happen once: it names the event; else it is the id.
-- texts is JSON: language -> title and text. query is JSON: who was meant when it was sent. served is when a delivery of it
-- was last taken, so that campaigns take turns; finished when nothing waited any more.
CREATE TABLE inform_campaign (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	source text NOT NULL,
	kind text NOT NULL,
	severity text NOT NULL,
	product text NOT NULL,
	case_id text NOT NULL,
	vulnerability text NOT NULL,
	subject text NOT NULL,
	audience text NOT NULL,
	revisions text NOT NULL,
	devices bigint NOT NULL,
	lang text NOT NULL,
	texts text NOT NULL,
	url text NOT NULL,
	template text NOT NULL,
	replaces text NOT NULL,
	state text NOT NULL,
	version bigint NOT NULL,
	created bigint NOT NULL,
	actor text NOT NULL,
	sent bigint NOT NULL,
	sent_by text NOT NULL,
	query text NOT NULL,
	finished bigint NOT NULL,
	served bigint NOT NULL,
	UNIQUE (tenant, source)
);
CREATE INDEX inform_campaign_tenant ON inform_campaign(tenant, id);
CREATE INDEX inform_campaign_case ON inform_campaign(tenant, case_id);
CREATE INDEX inform_campaign_open ON inform_campaign(served, id) WHERE state = 'sent' AND finished = 0;

-- Documents that a campaign carries, as they were when it was sent. body is empty where it is only linked.
CREATE TABLE inform_document (
	campaign text NOT NULL,
	n bigint NOT NULL,
	tenant text NOT NULL,
	kind text NOT NULL,
	name text NOT NULL,
	url text NOT NULL,
	sha256 text NOT NULL,
	size bigint NOT NULL,
	body blob NOT NULL,
	PRIMARY KEY (campaign, n)
);

-- One per campaign and contact, written with the sending. hash is that of the address that was used; busy until when the
-- worker that took it has it.
CREATE TABLE inform_delivery (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	campaign text NOT NULL,
	contact text NOT NULL,
	role text NOT NULL,
	channel text NOT NULL,
	lang text NOT NULL,
	hash text NOT NULL,
	state text NOT NULL,
	attempts bigint NOT NULL,
	next bigint NOT NULL,
	busy bigint NOT NULL,
	ended bigint NOT NULL,
	answer text NOT NULL,
	bounced bigint NOT NULL,
	reason text NOT NULL,
	read_at bigint NOT NULL,
	UNIQUE (campaign, contact)
);
CREATE INDEX inform_delivery_waiting ON inform_delivery(campaign, next) WHERE state = 'waiting';
CREATE INDEX inform_delivery_campaign ON inform_delivery(tenant, campaign, id);
CREATE INDEX inform_delivery_contact ON inform_delivery(contact);

-- The jobs that take a campaign to devices.
CREATE TABLE inform_job (
	campaign text NOT NULL,
	job text NOT NULL,
	tenant text NOT NULL,
	PRIMARY KEY (campaign, job)
);
