-- SPDX-License-Identifier: AGPL-3.0-only
-- Every table carries the tenant: what one imports or decides never reaches another.

-- Counts the changes of a tenant's records, so that a match computed on older ones is not written.
CREATE TABLE vuln_state (tenant text PRIMARY KEY, gen bigint NOT NULL);

CREATE TABLE vuln_feed (
  tenant text NOT NULL,
  name text NOT NULL,
  digest text NOT NULL,
  records bigint NOT NULL,
  catalogue text NOT NULL, -- catalogVersion of a KEV list
  at bigint NOT NULL,
  PRIMARY KEY (tenant, name)
);

-- Old bodies stay: what was known in the past can be read again.
CREATE TABLE vuln_record (
  tenant text NOT NULL,
  id text NOT NULL,
  content_hash text NOT NULL,
  source text NOT NULL,
  withdrawn bigint NOT NULL,
  reviewed text NOT NULL,
  seen bigint NOT NULL,
  is_current bigint NOT NULL,
  body text NOT NULL,
  PRIMARY KEY (tenant, id, content_hash)
);
CREATE INDEX vuln_record_current ON vuln_record (tenant, id) WHERE is_current = 1;

-- One vulnerability, whatever the number of records and names.
CREATE TABLE vuln_group (
  tenant text NOT NULL,
  id text NOT NULL,
  name text NOT NULL,
  summary text NOT NULL,
  exploited bigint NOT NULL, -- when we learned of it; 0: not known to be
  PRIMARY KEY (tenant, id)
);
CREATE TABLE vuln_member (
  tenant text NOT NULL,
  ident text NOT NULL,
  group_id text NOT NULL,
  PRIMARY KEY (tenant, ident)
);
CREATE INDEX vuln_member_group ON vuln_member (tenant, group_id, ident);
CREATE TABLE vuln_exploited (
  tenant text NOT NULL,
  cve text NOT NULL,
  added text NOT NULL, -- date in the catalogue
  seen bigint NOT NULL,
  PRIMARY KEY (tenant, cve)
);

-- The index: package -> records, with what each says about it.
CREATE TABLE vuln_package (
  tenant text NOT NULL,
  ecosystem text NOT NULL,
  name_key text NOT NULL,
  record_id text NOT NULL,
  withdrawn bigint NOT NULL,
  entries text NOT NULL,
  PRIMARY KEY (tenant, ecosystem, name_key, record_id)
);
CREATE INDEX vuln_package_record ON vuln_package (tenant, record_id, ecosystem, name_key);
-- Packages whose records changed and whose findings were not yet brought up to date.
CREATE TABLE vuln_touched (
  tenant text NOT NULL,
  ecosystem text NOT NULL,
  name_key text NOT NULL,
  PRIMARY KEY (tenant, ecosystem, name_key)
);

CREATE TABLE vuln_release (
  tenant text NOT NULL,
  release_id text NOT NULL,
  product text NOT NULL,
  version text NOT NULL,
  PRIMARY KEY (tenant, release_id)
);

-- An open finding has closed_at = 9223372036854775807.
CREATE TABLE finding (
  id text PRIMARY KEY,
  tenant text NOT NULL,
  release_id text NOT NULL,
  group_id text NOT NULL,
  component_id text NOT NULL,
  record_id text NOT NULL,
  state text NOT NULL,
  reason text NOT NULL,
  fixed text NOT NULL,
  rule text NOT NULL,
  confidence text NOT NULL,
  first_seen bigint NOT NULL,
  closed_at bigint NOT NULL,
  why_closed text NOT NULL
);
CREATE UNIQUE INDEX finding_open ON finding (tenant, release_id, group_id, component_id) WHERE closed_at = 9223372036854775807;
CREATE INDEX finding_group ON finding (tenant, group_id, release_id);
CREATE INDEX finding_component ON finding (tenant, component_id) WHERE closed_at = 9223372036854775807;

-- Append only; seq orders the decisions of one product about one vulnerability.
CREATE TABLE decision (
  id text PRIMARY KEY,
  tenant text NOT NULL,
  product text NOT NULL,
  group_id text NOT NULL,
  component_id text NOT NULL,
  release_id text NOT NULL, -- empty: the whole release line
  seq bigint NOT NULL,
  status text NOT NULL,
  justification text NOT NULL,
  evidence text NOT NULL,
  decided_by text NOT NULL,
  at bigint NOT NULL
);
CREATE UNIQUE INDEX decision_order ON decision (tenant, group_id, product, seq);

-- A signal is given once per product and vulnerability.
CREATE TABLE vuln_signal (
  tenant text NOT NULL,
  product text NOT NULL,
  group_id text NOT NULL,
  at bigint NOT NULL,
  PRIMARY KEY (tenant, product, group_id)
);
