-- What a product's devices must fulfil before they are commissioned: versions that only grow, the newest one counts.
-- note is the document under the platform's signature; the digest of it is in the audit log.
CREATE TABLE baseline (
	tenant text NOT NULL,
	product text NOT NULL,
	version bigint NOT NULL,
	note text NOT NULL,
	actor text NOT NULL,
	created bigint NOT NULL,
	PRIMARY KEY (tenant, product, version)
);
