-- SPDX-License-Identifier: AGPL-3.0-only
-- What people decided about conformity, as documents that are only ever added: the newest version of a key counts.
-- seq orders all that was recorded of a product; product '' is what holds for the whole tenant.
CREATE TABLE conform_record (
  tenant text NOT NULL,
  product text NOT NULL,
  seq bigint NOT NULL,
  kind text NOT NULL,
  key text NOT NULL,
  version bigint NOT NULL,
  body text NOT NULL,
  actor text NOT NULL,
  at bigint NOT NULL,
  PRIMARY KEY (tenant, product, seq)
);
CREATE UNIQUE INDEX conform_record_version ON conform_record (tenant, product, kind, key, version);
CREATE INDEX conform_record_kind ON conform_record (tenant, kind, product, key, version);

-- Which components the bill of a release names, under one name for all versions of it.
CREATE TABLE conform_part (
  tenant text NOT NULL,
  product text NOT NULL,
  release_id text NOT NULL,
  thing text NOT NULL,
  name text NOT NULL,
  version text NOT NULL,
  supplier text NOT NULL,
  licence text NOT NULL,
  seen text NOT NULL,
  PRIMARY KEY (tenant, product, release_id, thing)
);
CREATE INDEX conform_part_thing ON conform_part (tenant, thing, product);
