-- SPDX-License-Identifier: AGPL-3.0-only
-- Calls of a drill are kept apart from calls.
ALTER TABLE oncall_call ADD COLUMN drill bigint NOT NULL DEFAULT 0;
CREATE INDEX oncall_call_pending ON oncall_call (tenant, subject) WHERE why IN ('', 'unanswered');
CREATE INDEX oncall_call_drill ON oncall_call (tenant, subject) WHERE drill = 1;
