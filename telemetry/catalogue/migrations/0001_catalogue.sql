-- SPDX-License-Identifier: AGPL-3.0-only
-- What a product's devices may send: versions that only grow, the newest one counts. The digest of the document is in
-- the audit log.
CREATE TABLE catalogue (
	tenant text NOT NULL,
	product text NOT NULL,
	version bigint NOT NULL,
	document text NOT NULL, -- JSON
	actor text NOT NULL,
	created bigint NOT NULL,
	PRIMARY KEY (tenant, product, version)
);
-- How long a tenant keeps what no catalogue says more of.
CREATE TABLE catalogue_retention (
	tenant text NOT NULL,
	days bigint NOT NULL,
	PRIMARY KEY (tenant)
);
