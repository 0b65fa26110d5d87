-- Identities without a unit, counted by serial number when a batch is closed with a list: as many may be missing.
ALTER TABLE batch ADD COLUMN surplus bigint NOT NULL DEFAULT 0;
