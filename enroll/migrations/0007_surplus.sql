-- SPDX-License-Identifier: AGPL-3.0-only
-- The identities that the list of what was made does not name: Today asks how many of them still open a door, and a batch
-- is not compared with its list for that every time.
CREATE TABLE surplus (
	batch text NOT NULL,
	device text NOT NULL,
	tenant text NOT NULL,
	PRIMARY KEY (batch, device)
);
INSERT INTO surplus(batch, device, tenant)
	SELECT m.batch, m.device, m.tenant FROM batch b JOIN made m ON m.batch = b.id
	WHERE b.closed > 0 AND b.produced_list <> '' AND b.surplus > 0
		AND NOT EXISTS (SELECT 1 FROM produced p WHERE p.batch = m.batch AND p.list = b.produced_list AND p.serial = m.serial);
