-- SPDX-License-Identifier: AGPL-3.0-only
-- One row per document that was attached; the newest of a release counts, none is deleted.
CREATE TABLE sbom (
  id text PRIMARY KEY,
  tenant text NOT NULL,
  release_id text NOT NULL,
  format text NOT NULL,
  spec_version text NOT NULL,
  digest text NOT NULL,
  sha512 text NOT NULL,
  size bigint NOT NULL,
  name text NOT NULL,
  version text NOT NULL,
  quality text NOT NULL,
  at bigint NOT NULL
);
CREATE INDEX sbom_release ON sbom (tenant, release_id, at);

-- A part as it is matched, shared by all releases; the id is made from the other columns.
CREATE TABLE component (
  id text PRIMARY KEY,
  ecosystem text NOT NULL,
  name_key text NOT NULL,
  version text NOT NULL
);
CREATE UNIQUE INDEX component_key ON component (ecosystem, name_key, version);

-- What the newest document of a release lists, in its own spelling.
CREATE TABLE release_component (
  release_id text NOT NULL,
  component_id text NOT NULL,
  tenant text NOT NULL,
  ecosystem text NOT NULL,
  name text NOT NULL,
  version text NOT NULL,
  purl text NOT NULL,
  cpe text NOT NULL,
  kind text NOT NULL,
  PRIMARY KEY (release_id, component_id)
);
CREATE INDEX release_component_uses ON release_component (component_id, tenant, release_id);
CREATE INDEX release_component_page ON release_component (tenant, release_id, name, component_id);
