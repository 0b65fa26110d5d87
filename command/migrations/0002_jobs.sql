-- SPDX-License-Identifier: AGPL-3.0-only
ALTER TABLE command ADD COLUMN key text NOT NULL DEFAULT ''; -- of who asks: the same key is the same command
ALTER TABLE command ADD COLUMN job text NOT NULL DEFAULT '';
ALTER TABLE command ADD COLUMN next bigint NOT NULL DEFAULT 0; -- a queued command is not handed over before
ALTER TABLE command ADD COLUMN due bigint NOT NULL DEFAULT 0;  -- when its state has lasted too long
ALTER TABLE command ADD COLUMN ack_timeout bigint NOT NULL DEFAULT 30000;
ALTER TABLE command ADD COLUMN result_timeout bigint NOT NULL DEFAULT 0; -- 0: until not_after
ALTER TABLE command ADD COLUMN retries bigint NOT NULL DEFAULT 5;
ALTER TABLE command ADD COLUMN backoff bigint NOT NULL DEFAULT 10000;
ALTER TABLE command ADD COLUMN idempotent bigint NOT NULL DEFAULT 0;
-- What expired by a job each is found by its row from now on.
UPDATE command SET due = not_after;
DELETE FROM job WHERE kind = 'command.expire';
CREATE INDEX command_due ON command (due) WHERE state IN ('queued', 'sent', 'received', 'accepted');
CREATE INDEX command_next ON command (next) WHERE state = 'queued';
CREATE UNIQUE INDEX command_key ON command (tenant, device, key) WHERE key <> '';
CREATE INDEX command_of_job ON command (job, state) WHERE job <> '';

-- What a product's devices can be asked to do.
CREATE TABLE command_declared (
	tenant text NOT NULL,
	product text NOT NULL,
	name text NOT NULL,
	title text NOT NULL,
	about text NOT NULL,
	args text NOT NULL, -- a JSON list of arguments
	idempotent bigint NOT NULL,
	ack_timeout bigint NOT NULL,
	result_timeout bigint NOT NULL,
	retries bigint NOT NULL,
	backoff bigint NOT NULL,
	roles text NOT NULL, -- a JSON list; empty: every role that may send commands
	actor text NOT NULL,
	updated bigint NOT NULL,
	PRIMARY KEY (tenant, product, name)
);

CREATE TABLE command_job (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	kind text NOT NULL, -- command or twin
	title text NOT NULL,
	filter text NOT NULL,
	product text NOT NULL,
	solution text NOT NULL,
	follows bigint NOT NULL, -- 1: devices that match later join
	name text NOT NULL,
	args text NOT NULL, -- of the command, or the patch of the twin
	rate bigint NOT NULL, -- devices per minute; 0: no bound
	parallel bigint NOT NULL, -- devices at work at the same time; 0: no bound
	abort_count bigint NOT NULL,
	abort_percent bigint NOT NULL,
	abort_after bigint NOT NULL,
	timeout bigint NOT NULL, -- ms for one device from the receipt on
	retries bigint NOT NULL,
	not_before bigint NOT NULL,
	not_after bigint NOT NULL,
	state text NOT NULL,
	reason text NOT NULL,
	actor text NOT NULL,
	created bigint NOT NULL,
	started bigint NOT NULL,
	ended bigint NOT NULL,
	place text NOT NULL,      -- the device up to which the filter was walked
	selected bigint NOT NULL, -- when the last walk came to its end; 0: it has not
	credit bigint NOT NULL,   -- of the rate: devices times 60,000
	credited bigint NOT NULL  -- when the credit was worked out
);
CREATE INDEX command_job_tenant ON command_job (tenant, id);

-- One device's part in a job.
CREATE TABLE command_job_device (
	job text NOT NULL,
	device text NOT NULL,
	tenant text NOT NULL,
	state text NOT NULL,
	command text NOT NULL,
	version bigint NOT NULL, -- of what is desired, for a job on twins
	at bigint NOT NULL,      -- of the state
	reason text NOT NULL,
	PRIMARY KEY (job, device)
);
CREATE INDEX command_job_device_state ON command_job_device (job, state, device);
-- Who comes back and has a job waiting; and what a device has just applied.
CREATE INDEX command_job_device_away ON command_job_device (device) WHERE state = 'away';
CREATE INDEX command_job_device_twin ON command_job_device (device) WHERE state = 'started' AND version > 0;
-- The chart: ends by time.
CREATE INDEX command_job_device_end ON command_job_device (job, at) WHERE state IN ('done', 'failed', 'expired');
