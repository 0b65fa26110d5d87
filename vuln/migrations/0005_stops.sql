-- SPDX-License-Identifier: AGPL-3.0-only

-- What happens to the making of a product's units when one of its releases turns out to be exploited. No row: nothing.
CREATE TABLE vuln_stop_policy (
  tenant text NOT NULL,
  product text NOT NULL,
  policy text NOT NULL,   -- off, ask, automatic
  actor text NOT NULL,
  at bigint NOT NULL,
  PRIMARY KEY (tenant, product)
);

-- The releases whose making was stopped once because of a vulnerability, by the name under which it is known as exploited.
-- What a person has lifted is not stopped again for the same reason.
CREATE TABLE vuln_stopped (
  tenant text NOT NULL,
  release_id text NOT NULL,
  ident text NOT NULL,
  product text NOT NULL,
  hold text NOT NULL,     -- of enroll
  at bigint NOT NULL,
  PRIMARY KEY (tenant, release_id, ident)
);
