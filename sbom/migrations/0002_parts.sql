-- SPDX-License-Identifier: AGPL-3.0-only
-- Which reading of the original the rows below come from: an older one is read again at the next start.
ALTER TABLE sbom ADD COLUMN reader bigint NOT NULL DEFAULT 0;

-- One spelling of a component, shared by all releases; the id is made from the other columns.
CREATE TABLE part (
  id text PRIMARY KEY,
  component_id text NOT NULL,
  name text NOT NULL,
  version text NOT NULL,
  purl text NOT NULL,
  cpe text NOT NULL,
  kind text NOT NULL,
  licence text NOT NULL,
  supplier text NOT NULL,
  spaces text NOT NULL
)
-- +sqlite WITHOUT ROWID
;

-- The names under which a component is looked up in records of vulnerabilities; the component's id is made from them.
CREATE TABLE component_identity (
  component_id text NOT NULL,
  space text NOT NULL,
  name text NOT NULL,
  version text NOT NULL,
  vendor text NOT NULL,
  PRIMARY KEY (component_id, space, name, version, vendor)
)
-- +sqlite WITHOUT ROWID
;
CREATE INDEX component_identity_name ON component_identity (space, name);

-- What a release lists, half-open in milliseconds: a replaced document closes rows and deletes none.
CREATE TABLE release_part (
  release_id text NOT NULL,
  part_id text NOT NULL,
  from_ts bigint NOT NULL,
  to_ts bigint NOT NULL,
  component_id text NOT NULL,
  tenant text NOT NULL,
  PRIMARY KEY (release_id, part_id, from_ts)
)
-- +sqlite WITHOUT ROWID
;
CREATE INDEX release_part_uses ON release_part (component_id, tenant, release_id, from_ts, to_ts);

INSERT INTO component_identity (component_id, space, name, version, vendor)
SELECT id, ecosystem, name_key, version, '' FROM component WHERE ecosystem <> '' AND version <> '';
-- No digest can be computed in SQL: these rows carry an id of their own until the originals are read again.
INSERT INTO part (id, component_id, name, version, purl, cpe, kind, licence, supplier, spaces)
SELECT 'prt_' || release_id || '_' || component_id, component_id, name, version, purl, cpe, kind, '', '', ecosystem FROM release_component;
INSERT INTO release_part (release_id, part_id, from_ts, to_ts, component_id, tenant)
SELECT r.release_id, 'prt_' || r.release_id || '_' || r.component_id,
  coalesce((SELECT max(s.at) FROM sbom s WHERE s.tenant = r.tenant AND s.release_id = r.release_id), 0),
  9223372036854775807, r.component_id, r.tenant FROM release_component r;
DROP TABLE release_component;
DROP TABLE component;

-- What shows which sources a release was really built from; the newest of each kind counts, none is deleted.
CREATE TABLE release_evidence (
  id text PRIMARY KEY,
  tenant text NOT NULL,
  release_id text NOT NULL,
  kind text NOT NULL,
  digest text NOT NULL,
  sha512 text NOT NULL,
  size bigint NOT NULL,
  content_hash text NOT NULL,
  entries bigint NOT NULL,
  actor text NOT NULL,
  at bigint NOT NULL
);
CREATE INDEX release_evidence_newest ON release_evidence (tenant, release_id, kind, at);
