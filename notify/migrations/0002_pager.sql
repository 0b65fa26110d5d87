-- SPDX-License-Identifier: AGPL-3.0-only
-- Pagers, syslog receivers and a header of webhooks.
ALTER TABLE notify_endpoint ADD COLUMN header text NOT NULL DEFAULT '';
ALTER TABLE notify_endpoint ADD COLUMN credential blob; -- sealed: a pager's routing key, or the value of the header
ALTER TABLE notify_endpoint ADD COLUMN authority text NOT NULL DEFAULT ''; -- PEM
-- Notices about the same thing from its start to its end are a thread.
ALTER TABLE notify_notice ADD COLUMN severity text NOT NULL DEFAULT 'warning';
ALTER TABLE notify_notice ADD COLUMN thread text NOT NULL DEFAULT '';
ALTER TABLE notify_notice ADD COLUMN phase text NOT NULL DEFAULT ''; -- begun: empty, taken, over
CREATE INDEX notify_notice_thread ON notify_notice (tenant, thread) WHERE thread <> '';
