// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"context"

	"github.com/openthings-platform/openthings/demo"
)

// mqttAgainstPlatform runs mqttQoS1 against the real binary and devices that went through its real enrolment.
func mqttAgainstPlatform(ctx context.Context, binary string) (Result, error) {
	f, err := demo.NewFleet(ctx, binary, mqttClients)
	if err != nil {
		return Result{}, err
	}
	defer f.Close()
	return mqttQoS1(ctx, broker{certs: f.Certs, roots: f.Roots, addr: f.MQTT, pid: f.PID})
}
