-- SPDX-License-Identifier: AGPL-3.0-only
-- What is asked of a device and what it answers is sealed with the device's own key, so that erasing the device erases
-- them in every backup. Rows of earlier versions hold them in args and result until the platform has sealed them.
ALTER TABLE command ADD COLUMN asked blob;
ALTER TABLE command ADD COLUMN answered blob;
CREATE INDEX command_open ON command (id) WHERE args <> '';
-- A device's words stand with its command.
UPDATE command_job_device SET reason = '' WHERE command <> '' AND state IN ('done', 'failed');
