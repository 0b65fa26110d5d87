-- SPDX-License-Identifier: AGPL-3.0-only

-- While a hold stands, units that it matches get no new identity. An empty batch or origin narrows nothing.
CREATE TABLE hold (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	product text NOT NULL,
	batch text NOT NULL,
	origin text NOT NULL,     -- line station, trusted CA or token
	cause text NOT NULL,      -- what it is about, such as the name of a vulnerability; empty: only the reason
	reason text NOT NULL,
	actor text NOT NULL,
	since bigint NOT NULL,
	lifted bigint NOT NULL,   -- 0: it stands
	lifted_by text NOT NULL,
	lifted_why text NOT NULL
);
CREATE INDEX hold_product ON hold (tenant, product, lifted);

-- Digests of the images that a hold is about; one without any is about every unit.
CREATE TABLE hold_firmware (
	hold text NOT NULL,
	digest text NOT NULL,
	tenant text NOT NULL,
	PRIMARY KEY (hold, digest)
);
