-- SPDX-License-Identifier: AGPL-3.0-only
-- What a record says about a component is kept once (vuln_hit), not once per release: findings are joined from it when
-- they are asked for. Names, claims, groups and hits are derived again from the records at the next start (rules = 0).

ALTER TABLE vuln_state ADD COLUMN rules bigint NOT NULL DEFAULT 0; -- by which rules everything below was derived

-- The bytes of records, shared by all tenants and keyed by what they are: only a tenant's own vuln_record leads here.
CREATE TABLE vuln_body (
  hash text PRIMARY KEY,
  packed bigint NOT NULL, -- 1: zstd
  body blob NOT NULL
);
-- +sqlite INSERT INTO vuln_body (hash, packed, body) SELECT content_hash, 0, CAST(min(body) AS BLOB) FROM vuln_record GROUP BY content_hash;
-- +pg INSERT INTO vuln_body (hash, packed, body) SELECT content_hash, 0, convert_to(min(body), 'UTF8') FROM vuln_record GROUP BY content_hash;
ALTER TABLE vuln_record DROP COLUMN body;
ALTER TABLE vuln_record ADD COLUMN summary text NOT NULL DEFAULT '';
ALTER TABLE vuln_record ADD COLUMN facts text NOT NULL DEFAULT '{}'; -- scores and judgements, as record.Facts

CREATE INDEX vuln_group_exploited ON vuln_group (tenant, id) WHERE exploited > 0;

-- Who lists it, and whether it is used to extort.
ALTER TABLE vuln_exploited ADD COLUMN source text NOT NULL DEFAULT 'CISA KEV';
ALTER TABLE vuln_exploited ADD COLUMN ransom bigint NOT NULL DEFAULT 0;

-- The names of current records; vuln_member says in which group each stands.
CREATE TABLE vuln_name (
  tenant text NOT NULL,
  record_id text NOT NULL,
  ident text NOT NULL,
  PRIMARY KEY (tenant, record_id, ident)
-- +sqlite ) WITHOUT ROWID;
-- +pg );

CREATE TABLE vuln_grouped (
  tenant text NOT NULL,
  record_id text NOT NULL,
  group_id text NOT NULL,
  PRIMARY KEY (tenant, record_id)
);
CREATE INDEX vuln_grouped_group ON vuln_grouped (tenant, group_id, record_id);

-- One half of the index: name -> what records say of it.
CREATE TABLE vuln_claim (
  tenant text NOT NULL,
  space text NOT NULL,
  name text NOT NULL,
  record_id text NOT NULL,
  body text NOT NULL,
  PRIMARY KEY (tenant, space, name, record_id)
-- +sqlite ) WITHOUT ROWID;
-- +pg );
CREATE INDEX vuln_claim_record ON vuln_claim (record_id);
DROP TABLE vuln_package;

-- The other half: name -> the components that releases of the tenant list or listed. What is in vuln_component has been
-- compared with all claims, and every change of a claim is compared with it.
CREATE TABLE vuln_component (
  tenant text NOT NULL,
  component_id text NOT NULL,
  PRIMARY KEY (tenant, component_id)
-- +sqlite ) WITHOUT ROWID;
-- +pg );
CREATE TABLE vuln_identity (
  tenant text NOT NULL,
  space text NOT NULL,
  name text NOT NULL,
  component_id text NOT NULL,
  version text NOT NULL,
  vendor text NOT NULL,
  PRIMARY KEY (tenant, space, name, component_id, version, vendor)
-- +sqlite ) WITHOUT ROWID;
-- +pg );

-- Records that changed and were not compared since; gen is that of the change.
DROP TABLE vuln_touched;
CREATE TABLE vuln_touched (
  tenant text NOT NULL,
  record_id text NOT NULL,
  gen bigint NOT NULL,
  PRIMARY KEY (tenant, record_id)
);
-- Releases about which the gate, or a person, may have to hear.
CREATE TABLE vuln_stirred (
  tenant text NOT NULL,
  release_id text NOT NULL,
  PRIMARY KEY (tenant, release_id)
);

-- Half-open in time; an open hit has until = 9223372036854775807.
CREATE TABLE vuln_hit (
  tenant text NOT NULL,
  component_id text NOT NULL,
  record_id text NOT NULL,
  since bigint NOT NULL,
  state text NOT NULL,
  until bigint NOT NULL,
  reason text NOT NULL,     -- why it is unknown
  fixed text NOT NULL,
  rule text NOT NULL,
  confidence text NOT NULL,
  conditions text NOT NULL, -- one a line
  why text NOT NULL,        -- it ended
  PRIMARY KEY (tenant, record_id, component_id, since, state)
-- +sqlite ) WITHOUT ROWID;
-- +pg );
CREATE INDEX vuln_hit_component ON vuln_hit (component_id, tenant);
INSERT INTO vuln_hit (tenant, component_id, record_id, since, state, until, reason, fixed, rule, confidence, conditions, why)
  SELECT tenant, component_id, record_id, min(first_seen), state, max(closed_at), max(reason), max(fixed), 'purl-osv', 'exact', '',
    CASE WHEN max(closed_at) = 9223372036854775807 THEN '' ELSE max(why_closed) END
  FROM finding GROUP BY tenant, component_id, record_id, state;
DROP TABLE finding;

-- A decision is kept by the name it was made about, and holds for whatever that name belongs to.
ALTER TABLE decision RENAME TO decision_by_group;
CREATE TABLE vuln_decision (
  id text PRIMARY KEY,
  tenant text NOT NULL,
  product text NOT NULL,
  ident text NOT NULL,
  component_id text NOT NULL,
  release_id text NOT NULL, -- empty: the whole release line
  seq bigint NOT NULL,      -- in the product
  status text NOT NULL,
  justification text NOT NULL,
  evidence text NOT NULL,
  decided_by text NOT NULL,
  at bigint NOT NULL
);
INSERT INTO vuln_decision (id, tenant, product, ident, component_id, release_id, seq, status, justification, evidence, decided_by, at)
  SELECT d.id, d.tenant, d.product, g.name, d.component_id, d.release_id,
    row_number() OVER (PARTITION BY d.tenant, d.product ORDER BY d.at, d.group_id, d.seq), d.status, d.justification, d.evidence, d.decided_by, d.at
  FROM decision_by_group d JOIN vuln_group g ON g.tenant = d.tenant AND g.id = d.group_id;
DROP TABLE decision_by_group;
CREATE UNIQUE INDEX vuln_decision_order ON vuln_decision (tenant, product, seq);
CREATE INDEX vuln_decision_ident ON vuln_decision (tenant, ident, product, seq);

-- A signal is given once per product and vulnerability, by any of its names.
ALTER TABLE vuln_signal RENAME TO vuln_signal_by_group;
CREATE TABLE vuln_signal (
  tenant text NOT NULL,
  product text NOT NULL,
  ident text NOT NULL,
  at bigint NOT NULL,
  PRIMARY KEY (tenant, product, ident)
);
INSERT INTO vuln_signal (tenant, product, ident, at)
  SELECT s.tenant, s.product, g.name, min(s.at) FROM vuln_signal_by_group s JOIN vuln_group g ON g.tenant = s.tenant AND g.id = s.group_id
  GROUP BY s.tenant, s.product, g.name;
DROP TABLE vuln_signal_by_group;
