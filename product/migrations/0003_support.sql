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
