// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"github.com/spf13/pflag"

	"github.com/openthings-platform/openthings/app"
)

// doorFlags are the bounds of what clients can make the device doors hold and do.
func doorFlags(f *pflag.FlagSet, cfg *app.Config) {
	f.IntVar(&cfg.Doors.Handshakes, "door-handshakes", 0, "handshakes of devices that compute at the same time; 0: all processors but one")
	f.IntVar(&cfg.Doors.Pending, "door-pending", 1024, "connections of one device door that have not said who they are; further ones are turned away")
	f.IntVar(&cfg.Doors.PerSource, "door-per-source", 256, "those among them of one address, or of one IPv6 network of 64 bits")
	f.IntVar(&cfg.Doors.Connections, "door-connections", 32768, "connections of devices at this node, about 40 kB of memory each, 60 kB over CoAP")
	f.Int64Var(&cfg.Doors.Memory, "door-memory", 256<<20, "bytes of large packets, bodies and unread output of all devices together")
}
