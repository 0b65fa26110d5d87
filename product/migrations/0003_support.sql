-- Where a product is declared to be available: codes of Member States with a space between. One row per product; what it
-- was before is in the audit log.
CREATE TABLE product_availability (
	tenant text NOT NULL,
	product text NOT NULL,
	states text NOT NULL,
	actor text NOT NULL,
	changed bigint NOT NULL,
	PRIMARY KEY (tenant, product)
);

-- Placement cohorts: units of a hardware revision that are placed on the market within one span and supported until the
-- same end. declaration is what is being prepared, as JSON; empty means as the hardware revision states it. version is the
-- newest published one and ends_at its last instant of support (0: nothing is published), so that those that end soon
-- are found without reading texts.
CREATE TABLE product_cohort (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	product text NOT NULL,
	revision text NOT NULL,
	name text NOT NULL,
	declaration text NOT NULL,
	version bigint NOT NULL,
	ends_at bigint NOT NULL,
	created bigint NOT NULL,
	UNIQUE (revision, name)
);
CREATE INDEX product_cohort_product ON product_cohort(tenant, product);

-- What was published of a cohort, for ever. note is the declaration under the platform's signature.
CREATE TABLE product_cohort_version (
	cohort text NOT NULL,
	version bigint NOT NULL,
	tenant text NOT NULL,
	declaration text NOT NULL,
	note text NOT NULL,
	actor text NOT NULL,
	published bigint NOT NULL,
	PRIMARY KEY (cohort, version)
);

-- Notices of the end of support: one row per step of one end, announced or left out (skipped = 1). It is what makes each
-- step happen once.
CREATE TABLE product_notice (
	cohort text NOT NULL,
	month text NOT NULL,
	step bigint NOT NULL,
	tenant text NOT NULL,
	skipped bigint NOT NULL,
	at bigint NOT NULL,
	PRIMARY KEY (cohort, month, step)
);

-- What a person decided about the end of a cohort's support; the newest counts.
CREATE TABLE product_end_decision (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	cohort text NOT NULL,
	kind text NOT NULL,
	successor text NOT NULL,
	reason text NOT NULL,
	actor text NOT NULL,
	at bigint NOT NULL
);
CREATE INDEX product_end_decision_cohort ON product_end_decision(tenant, cohort);

-- Leave to enrol new units of a hardware revision after the support of all its cohorts has ended, until a day.
CREATE TABLE product_enrol_leave (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	revision text NOT NULL,
	reason text NOT NULL,
	until bigint NOT NULL,
	actor text NOT NULL,
	at bigint NOT NULL
);
CREATE INDEX product_enrol_leave_revision ON product_enrol_leave(tenant, revision);

-- The user information of a product, item by item and language by language, as it is being prepared. An item that does not
-- apply (absent = 1) has its reason in body.
CREATE TABLE product_information (
	tenant text NOT NULL,
	product text NOT NULL,
	lang text NOT NULL,
	item text NOT NULL,
	body text NOT NULL,
	absent bigint NOT NULL,
	actor text NOT NULL,
	changed bigint NOT NULL,
	PRIMARY KEY (tenant, product, lang, item)
);

-- The user information as it was published, for ever; texts is JSON: language -> item -> text.
CREATE TABLE product_page (
	product text NOT NULL,
	version bigint NOT NULL,
	tenant text NOT NULL,
	texts text NOT NULL,
	actor text NOT NULL,
	published bigint NOT NULL,
	PRIMARY KEY (product, version)
);

-- The end of a maker's business: one run per tenant, and the steps that were done.
CREATE TABLE product_cessation (
	tenant text PRIMARY KEY,
	ends_at bigint NOT NULL,
	reason text NOT NULL,
	actor text NOT NULL,
	at bigint NOT NULL
);
CREATE TABLE product_cessation_step (
	tenant text NOT NULL,
	step text NOT NULL,
	note text NOT NULL,
	actor text NOT NULL,
	at bigint NOT NULL,
	PRIMARY KEY (tenant, step)
);

-- Each hardware revision that there is gets its first cohort: what it states, not published.
INSERT INTO product_cohort(id, tenant, product, revision, name, declaration, version, ends_at, created)
	SELECT 'coh' || substr(id, 4), tenant, product, id, 'first', '', 0, 0, created FROM hardware_revision;
