-- SPDX-License-Identifier: AGPL-3.0-only
-- One row for each device that ever had an MQTT session. State and will are sealed with the device's own key.
CREATE TABLE mqtt_session (
	device_id text PRIMARY KEY,
	tenant text NOT NULL,
	generation bigint NOT NULL, -- grows with each connection: who writes with an older one is refused
	node text NOT NULL,         -- the process that has, or had, the connection
	client_id text NOT NULL,
	ended bigint NOT NULL,      -- 0: connected, as far as is known; -1: connected, and nothing has to be done about its end
	expiry bigint NOT NULL,     -- ms that the session outlives its connection
	state blob NOT NULL,        -- empty: none
	will blob NOT NULL,         -- empty: none
	will_delay bigint NOT NULL  -- ms
);
CREATE INDEX mqtt_session_node ON mqtt_session (node, device_id) WHERE ended = 0;

-- What a node has to hear: a session of its own was taken over by another node.
CREATE TABLE mqtt_takeover (
	node text NOT NULL,
	device_id text NOT NULL,
	generation bigint NOT NULL, -- of the new connection
	resumed bigint NOT NULL,    -- it goes on with the session
	at bigint NOT NULL,
	PRIMARY KEY (node, device_id)
);
