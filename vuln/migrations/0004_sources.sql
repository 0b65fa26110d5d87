-- SPDX-License-Identifier: AGPL-3.0-only

-- Where feeds come from, and how it went last. spec is a feed.Source as JSON; times are ms, spans are ms too.
CREATE TABLE vuln_source (
  tenant text NOT NULL,
  name text NOT NULL,
  spec text NOT NULL,
  every bigint NOT NULL,       -- 0: only when a person asks or brings it
  stale_after bigint NOT NULL,
  created bigint NOT NULL,
  next_at bigint NOT NULL,     -- 0: never by itself
  last_try bigint NOT NULL,
  last_good bigint NOT NULL,
  failures bigint NOT NULL,    -- in a row
  error text NOT NULL,
  hint text NOT NULL,
  digest text NOT NULL,
  records bigint NOT NULL,
  made bigint NOT NULL,        -- when what was taken last was made, where its maker says so
  sequence bigint NOT NULL,    -- of the last bundle or manifest: an older one is refused
  stale_since bigint NOT NULL, -- 0: people were not told, or were told that it is good again
  beat bigint NOT NULL,        -- when the look that is under way was last heard of
  progress text NOT NULL,
  PRIMARY KEY (tenant, name)
);
INSERT INTO vuln_source (tenant, name, spec, every, stale_after, created, next_at, last_try, last_good, failures, error, hint, digest, records, made, sequence, stale_since, beat, progress)
  SELECT tenant, name, '{"kind":"upload"}', 0, 604800000, at, 0, at, at, 0, '', '', digest, records, 0, 0, 0, 0, '' FROM vuln_feed;

-- What saves reading at the next look; apart, since it may be large.
CREATE TABLE vuln_cursor (
  tenant text NOT NULL,
  name text NOT NULL,
  cursor text NOT NULL,
  PRIMARY KEY (tenant, name)
);

-- The last looks at each source, for the picture.
CREATE TABLE vuln_sync (
  tenant text NOT NULL,
  name text NOT NULL,
  at bigint NOT NULL,
  took bigint NOT NULL,     -- ms
  outcome text NOT NULL,    -- changed, same, failed
  fresh bigint NOT NULL,    -- records not known before
  changed bigint NOT NULL,  -- records with other content
  error text NOT NULL,
  PRIMARY KEY (tenant, name, at)
);

-- Records that a whole source named once and names no longer. The records stay, and so do their findings.
CREATE TABLE vuln_unnamed (
  tenant text NOT NULL,
  name text NOT NULL,
  record_id text NOT NULL,
  since bigint NOT NULL,
  PRIMARY KEY (tenant, name, record_id)
);

-- One day of EPSS: scores of 4,096 consecutive numbers of a year in each row, 10 bytes a score (see epss.go).
CREATE TABLE vuln_epss (
  tenant text NOT NULL,
  bucket bigint NOT NULL,
  body blob NOT NULL,
  PRIMARY KEY (tenant, bucket)
);
CREATE TABLE vuln_epss_day (
  tenant text PRIMARY KEY,
  model text NOT NULL,
  day bigint NOT NULL,
  scores bigint NOT NULL
);
