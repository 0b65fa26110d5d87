-- SPDX-License-Identifier: AGPL-3.0-only
CREATE TABLE command_line ( -- a command line that waits for a person to let it in
	hash    text NOT NULL PRIMARY KEY, -- SHA-256 of what the program holds
	code    text NOT NULL, -- what the person types
	origin  text NOT NULL, -- what the program says that it is
	person  text NOT NULL, -- who let it in; '' while it waits
	expires bigint NOT NULL
);
CREATE UNIQUE INDEX command_line_code ON command_line (code);
CREATE INDEX command_line_expires ON command_line (expires);
