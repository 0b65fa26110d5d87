-- SPDX-License-Identifier: AGPL-3.0-only
-- A drill may call whoever is on call.
ALTER TABLE respond_drill ADD COLUMN calls bigint NOT NULL DEFAULT 0;
-- What the reporting platform lets somebody do there: an assigned representative is the first or a further one, and verified or not.
ALTER TABLE respond_filer ADD COLUMN role text NOT NULL DEFAULT 'primary';
ALTER TABLE respond_filer ADD COLUMN verified bigint NOT NULL DEFAULT 0;
CREATE INDEX respond_event_filed ON respond_event (tenant, actor) WHERE kind = 'submission.attempted';
