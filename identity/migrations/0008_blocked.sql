-- Public keys that nobody may enrol with, by the first 30 hex digits of their SHA-256; tenant '' is the platform's own list.
CREATE TABLE blocked_key (
	tenant text NOT NULL,
	prefix text NOT NULL,
	reason text NOT NULL,
	at bigint NOT NULL,
	PRIMARY KEY (tenant, prefix)
);
