// A module of its own, so that nothing of the peers enters ours.
module github.com/openthings-platform/openthings/testpeers/mqtt

go 1.26.3

require (
	github.com/eclipse/paho.golang v0.23.0
	github.com/eclipse/paho.mqtt.golang v1.5.1
	github.com/mochi-mqtt/server/v2 v2.7.9
	github.com/openthings-platform/openthings v0.0.0
)

replace github.com/openthings-platform/openthings => ../..
