CREATE TABLE product (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	name text NOT NULL,
	model text NOT NULL,
	created bigint NOT NULL,
	UNIQUE (tenant, model)
);

CREATE TABLE hardware_revision (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	product text NOT NULL,
	name text NOT NULL,
	placed bigint NOT NULL,
	support_end bigint NOT NULL,
	reason text NOT NULL,
	created bigint NOT NULL,
	UNIQUE (product, name)
);
