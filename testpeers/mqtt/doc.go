// SPDX-License-Identifier: AGPL-3.0-only

// Package peers holds wire/mqtt against three other decoders of MQTT: Eclipse Paho's for 5.0 and for 3.1.1, and
// mochi-mqtt's for both. It is a module of its own, so that nothing of them enters ours.
package peers
