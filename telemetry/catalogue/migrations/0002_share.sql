-- SPDX-License-Identifier: AGPL-3.0-only
-- Whom the user of devices lets read their data (Data Act, Regulation (EU) 2023/2854, article 5). The token is the right;
-- this row says what it is for.
CREATE TABLE data_share (
	id text PRIMARY KEY,
	tenant text NOT NULL,
	solution text NOT NULL,
	recipient text NOT NULL,
	purpose text NOT NULL,
	token text NOT NULL, -- id of the token, never its text
	actor text NOT NULL,
	created bigint NOT NULL,
	expires bigint NOT NULL,
	ended bigint NOT NULL -- 0: it lasts
);
CREATE INDEX data_share_solution ON data_share (tenant, solution, id);
