-- SPDX-License-Identifier: AGPL-3.0-only

-- What a decision rested on when it was made, and how long it holds. The row is never changed but for its end.
ALTER TABLE vuln_decision ADD COLUMN action text NOT NULL DEFAULT '';
ALTER TABLE vuln_decision ADD COLUMN origin text NOT NULL DEFAULT '';   -- id of the statement or decision that was taken over
ALTER TABLE vuln_decision ADD COLUMN basis text NOT NULL DEFAULT '{}';  -- basis as JSON
ALTER TABLE vuln_decision ADD COLUMN until bigint NOT NULL DEFAULT 9223372036854775807; -- half-open
ALTER TABLE vuln_decision ADD COLUMN why text NOT NULL DEFAULT '';      -- it ends, or ended

-- Findings that ended because a release carries a version of the component with the fix.
CREATE TABLE vuln_closed (
  tenant text NOT NULL,
  release_id text NOT NULL,
  ident text NOT NULL,
  component_id text NOT NULL,  -- the one with the fix
  product text NOT NULL,
  before text NOT NULL,        -- the component of the release before it
  fixed text NOT NULL,
  at bigint NOT NULL,
  PRIMARY KEY (tenant, release_id, ident, component_id)
);
CREATE INDEX vuln_closed_ident ON vuln_closed (tenant, ident);

-- By what else a release is known; a statement of others may name it so.
ALTER TABLE vuln_release ADD COLUMN image text NOT NULL DEFAULT ''; -- digest
CREATE INDEX vuln_release_product ON vuln_release (tenant, product, release_id);

-- VEX documents of others, as they were understood.
CREATE TABLE vuln_vex (
  tenant text NOT NULL,
  id text NOT NULL,
  digest text NOT NULL,
  origin text NOT NULL,
  format text NOT NULL,
  doc_id text NOT NULL,
  doc_version text NOT NULL,
  author text NOT NULL,
  at bigint NOT NULL,          -- when it was issued
  imported_by text NOT NULL,
  imported_at bigint NOT NULL,
  statements bigint NOT NULL,
  unread text NOT NULL,        -- JSON
  is_current bigint NOT NULL,  -- 0: a newer version of the same document was imported
  PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX vuln_vex_digest ON vuln_vex (tenant, origin, digest);
CREATE INDEX vuln_vex_doc ON vuln_vex (tenant, origin, author, doc_id);
CREATE TABLE vuln_statement (
  tenant text NOT NULL,
  id text NOT NULL,
  vex_id text NOT NULL,
  body text NOT NULL,          -- vex.Statement as JSON; one with very many products is several rows
  PRIMARY KEY (tenant, id)
);
CREATE INDEX vuln_statement_vex ON vuln_statement (tenant, vex_id);
CREATE TABLE vuln_statement_ident (
  tenant text NOT NULL,
  ident text NOT NULL,
  statement_id text NOT NULL,
  PRIMARY KEY (tenant, ident, statement_id)
-- +sqlite ) WITHOUT ROWID;
-- +pg );

-- The issues of a document that we export: one each time that what it says has changed.
CREATE TABLE vuln_issue (
  tenant text NOT NULL,
  scope text NOT NULL,         -- "release/…" or "product/…"
  n bigint NOT NULL,
  digest text NOT NULL,        -- of the statements
  at bigint NOT NULL,
  PRIMARY KEY (tenant, scope, n)
);
