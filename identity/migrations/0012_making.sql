-- What a filter asks of a device's making, taken out of the JSON in made, in which no index could find it: production
-- order, line and part number, A to Z as small letters. Byte order on both engines, so that a beginning is one range of
-- an index. This fills the old rows; new ones are filled by insertDevice.
-- +sqlite ALTER TABLE device ADD COLUMN made_order text NOT NULL DEFAULT '';
-- +sqlite ALTER TABLE device ADD COLUMN made_line text NOT NULL DEFAULT '';
-- +sqlite ALTER TABLE device ADD COLUMN made_part text NOT NULL DEFAULT '';
-- +pg ALTER TABLE device ADD COLUMN made_order text COLLATE "C" NOT NULL DEFAULT '';
-- +pg ALTER TABLE device ADD COLUMN made_line text COLLATE "C" NOT NULL DEFAULT '';
-- +pg ALTER TABLE device ADD COLUMN made_part text COLLATE "C" NOT NULL DEFAULT '';
-- +sqlite UPDATE device SET made_order = lower(coalesce(json_extract(made, '$.order'), '')), made_line = lower(coalesce(json_extract(made, '$.line'), '')), made_part = lower(coalesce(json_extract(made, '$.part'), '')) WHERE made <> '' AND json_valid(made);
-- +pg UPDATE device SET made_order = lower(coalesce(made::json->>'order', '') COLLATE "C"), made_line = lower(coalesce(made::json->>'line', '') COLLATE "C"), made_part = lower(coalesce(made::json->>'part', '') COLLATE "C") WHERE made LIKE '{%';
-- Devices of which the factory said nothing cost these indexes nothing.
CREATE INDEX device_order ON device (tenant, made_order, id) WHERE made_order <> '';
CREATE INDEX device_line ON device (tenant, made_line, id) WHERE made_line <> '';
CREATE INDEX device_part ON device (tenant, made_part, id) WHERE made_part <> '';
-- What a line station brought, in the order of ids without sorting.
DROP INDEX device_origin;
CREATE INDEX device_origin ON device (tenant, origin, id);
