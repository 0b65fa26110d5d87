-- Lists narrowed by one property stay in the order of ids without sorting; state, product, solution and batch are what
-- people narrow by, the serial number is what they type.
CREATE INDEX device_state ON device (tenant, state, id);
CREATE INDEX device_product ON device (tenant, product, id);
CREATE INDEX device_solution ON device (tenant, solution, id);
CREATE INDEX device_serial ON device (tenant, lower(serial), id);
DROP INDEX device_batch;
CREATE INDEX device_batch ON device (tenant, batch, id);
