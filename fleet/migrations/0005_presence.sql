-- SPDX-License-Identifier: AGPL-3.0-only
-- Of which session the row speaks: sessions of a device are counted over all nodes, and a node that writes late about an
-- older one has no say any more.
ALTER TABLE presence ADD COLUMN generation bigint NOT NULL DEFAULT 0;
