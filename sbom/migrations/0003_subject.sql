-- SPDX-License-Identifier: AGPL-3.0-only
-- By what others may name what the document describes; of older documents, once they are read again.
ALTER TABLE sbom ADD COLUMN uri text NOT NULL DEFAULT '';  -- of the document: serial number or namespace
ALTER TABLE sbom ADD COLUMN purl text NOT NULL DEFAULT ''; -- of what it describes
