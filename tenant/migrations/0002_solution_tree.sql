-- SPDX-License-Identifier: AGPL-3.0-only
-- Solutions stand in each other. A name is one among those that stand in the same place, so that nobody learns from a
-- refusal what stands elsewhere.
CREATE TABLE solution_tree (
	id     text NOT NULL PRIMARY KEY,
	tenant text NOT NULL,
	parent text NOT NULL DEFAULT '', -- what it stands in; '' is the tenant itself
	name   text NOT NULL,
	owner  text NOT NULL, -- the customer it serves, in words
	at     bigint NOT NULL,
	UNIQUE (tenant, parent, name)
);
INSERT INTO solution_tree (id, tenant, parent, name, owner, at) SELECT id, tenant, '', name, owner, at FROM solution;
DROP TABLE solution;
ALTER TABLE solution_tree RENAME TO solution;
ALTER TABLE tenant ADD COLUMN tree bigint NOT NULL DEFAULT 0; -- grows with every change of the tenant's solutions
CREATE INDEX access_grant_tenant ON access_grant (tenant);
