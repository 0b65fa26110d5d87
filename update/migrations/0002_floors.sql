-- SPDX-License-Identifier: AGPL-3.0-only

-- The lowest security version that is advised for a hardware revision, since everything below can be attacked. The
-- manufacturer's signature alone makes devices refuse what is older; until then the platform deploys nothing below.
CREATE TABLE advised_floor (
  tenant text NOT NULL,
  product text NOT NULL,
  hw text NOT NULL,               -- name of the hardware revision
  security_version bigint NOT NULL,
  past bigint NOT NULL,           -- when the last release that is not safe was published: what came later is not below
  because text NOT NULL,
  at bigint NOT NULL,
  PRIMARY KEY (tenant, product, hw)
);

-- Why a release below the floor was deployed all the same.
ALTER TABLE deployment ADD COLUMN override text NOT NULL DEFAULT '';
