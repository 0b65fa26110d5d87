// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/openthings-platform/openthings/app"
)

// intakeFlags are the bounds of what devices may send.
func intakeFlags(f *pflag.FlagSet, cfg *app.Config) {
	f.IntVar(&cfg.Device.Messages, "device-messages", 5000, "messages that one device may send each second")
	f.IntVar(&cfg.Device.Bytes, "device-bytes", 8<<20, "bytes of payload that one device may send each second")
	f.IntVar(&cfg.Tenant.Messages, "tenant-messages", 50_000, "messages that all devices of a tenant may send each second")
	f.IntVar(&cfg.Tenant.Bytes, "tenant-bytes", 64<<20, "bytes of payload that all devices of a tenant may send each second")
	f.DurationVar(&cfg.Device.Burst, "device-burst", 20*time.Second, "how long a device's silence counts: so many seconds' worth may come at once")
	f.Int64Var(&cfg.Reserve, "disk-reserve", 512, "MB of the disk kept free: below it what devices say is refused, while revocations, the log and people's work go on; 0: none")
}
