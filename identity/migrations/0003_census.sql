-- Counting the fleet by product, solution and state reads this index alone.
CREATE INDEX device_census ON device (tenant, product, solution, state);
