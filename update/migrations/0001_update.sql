-- The manufacturer's roots, as signed; the highest version counts, none is deleted.
CREATE TABLE trust_root (
  tenant text NOT NULL,
  version bigint NOT NULL,
  doc blob NOT NULL,
  expires bigint NOT NULL,
  at bigint NOT NULL,
  actor text NOT NULL,
  PRIMARY KEY (tenant, version)
);

-- Signed lists of releases, as signed.
CREATE TABLE trust_targets (
  tenant text NOT NULL,
  version bigint NOT NULL,
  doc blob NOT NULL,
  expires bigint NOT NULL,
  at bigint NOT NULL,
  PRIMARY KEY (tenant, version)
);

-- The facts of a release are copied from its signed target, never typed in. targets is the version of the newest list
-- that names it; hw is a JSON array of hardware revision names, signers of key ids.
CREATE TABLE release (
  id text PRIMARY KEY,
  tenant text NOT NULL,
  product text NOT NULL,
  version text NOT NULL,
  security_version bigint NOT NULL,
  data_floor bigint NOT NULL,
  min_from bigint NOT NULL,
  class text NOT NULL,
  path text NOT NULL,
  hw text NOT NULL,
  image text NOT NULL,
  length bigint NOT NULL,
  sbom text NOT NULL,
  targets bigint NOT NULL,
  signers text NOT NULL,
  state text NOT NULL,
  actor text NOT NULL,
  created bigint NOT NULL,
  published bigint NOT NULL,
  withdrawn bigint NOT NULL
);
CREATE UNIQUE INDEX release_path ON release (tenant, path);
CREATE UNIQUE INDEX release_image ON release (tenant, image);
CREATE INDEX release_product ON release (tenant, product, created);

-- One row per check that has spoken; a check that has not is pending.
CREATE TABLE release_check (
  release_id text NOT NULL,
  tenant text NOT NULL,
  name text NOT NULL,
  verdict text NOT NULL,
  evidence text NOT NULL,
  actor text NOT NULL,
  at bigint NOT NULL,
  PRIMARY KEY (release_id, name)
);

CREATE TABLE deployment (
  id text PRIMARY KEY,
  tenant text NOT NULL,
  release_id text NOT NULL,
  product text NOT NULL,
  solution text NOT NULL,
  state text NOT NULL,
  reason text NOT NULL,
  wave bigint NOT NULL,
  actor text NOT NULL,
  created bigint NOT NULL,
  ended bigint NOT NULL
);
CREATE INDEX deployment_running ON deployment (tenant, state);

-- Waves widen a deployment: percent of the devices asked for, admitted by hash, so that no row per device is needed.
CREATE TABLE wave (
  deployment_id text NOT NULL,
  n bigint NOT NULL,
  tenant text NOT NULL,
  percent bigint NOT NULL,
  state text NOT NULL,
  opened bigint NOT NULL,
  closed bigint NOT NULL,
  PRIMARY KEY (deployment_id, n)
);

-- A device that was offered the release. ended is 0 until its outcome is known.
CREATE TABLE device_update (
  id text PRIMARY KEY,
  tenant text NOT NULL,
  deployment_id text NOT NULL,
  release_id text NOT NULL,
  device text NOT NULL,
  wave bigint NOT NULL,
  state text NOT NULL,
  rule text NOT NULL,
  reason text NOT NULL,
  offered bigint NOT NULL,
  ended bigint NOT NULL
);
CREATE UNIQUE INDEX device_update_once ON device_update (deployment_id, device);
CREATE INDEX device_update_device ON device_update (tenant, device, offered);

-- What a device last said of the software that runs on it.
CREATE TABLE firmware (
  tenant text NOT NULL,
  device text NOT NULL,
  release_id text NOT NULL,
  version text NOT NULL,
  security_version bigint NOT NULL,
  image text NOT NULL,
  slot text NOT NULL,
  floor bigint NOT NULL,
  boot bigint NOT NULL,
  agent text NOT NULL,
  at bigint NOT NULL,
  PRIMARY KEY (tenant, device)
);
