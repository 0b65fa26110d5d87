// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/wire"
)

// Ends of Run that are not failures.
var (
	// ErrReboot asks whoever runs the agent to start it again, as a bootloader would.
	ErrReboot = errors.New("agent: reboot")
	// ErrWiped says that the device has erased itself and will not come back.
	ErrWiped = errors.New("agent: wiped")
)

// Config is what Run needs. Dir, HTTPS, MQTT, Product and Revision are mandatory.
type Config struct {
	Dir   string // the state directory that Provision made
	HTTPS string // host:port of the HTTPS device door (8444)
	MQTT  string // host:port of the MQTT device door (8883)

	// Product and Revision say what this firmware is built for: the product's id and the hardware revision's name, as
	// they stand in signed releases.
	Product  string
	Revision string

	Roots    *x509.CertPool            // whom to trust as a server; nil: the chain that came with the IDevID
	Clock    clock.Clock               // nil: clock.System
	Log      *slog.Logger              // nil: nothing is logged
	Sensors  func() map[string]float64 // what to measure; nil: uptime in seconds
	Interval time.Duration             // between measurements; 0: 10 s
	Retry    time.Duration             // first back-off after a failure, doubling up to 64 times; 0: 1 s

	// Health looks at a freshly booted image before it is committed; an error rolls back. nil: reaching the server is enough.
	Health func(ctx context.Context, image string) error
	// HealthFor is how long a new image may take to become healthy; 0: 5 minutes.
	HealthFor time.Duration
}

// Provision makes a new device in dir: its P-256 key and the certificate request (PEM) for its IDevID.
func Provision(dir, serial string) (csrPEM []byte, err error) { return nil, errors.ErrUnsupported }

// Flash puts the factory image into slot a and returns its digest, as a line does before Provision's request is signed.
func Flash(dir string, image []byte, version string, securityVersion int64) (digest string, err error) {
	return "", errors.ErrUnsupported
}

// Install stores what the line station answered: IDevID, chain and the manufacturer's update root.
func Install(dir string, r wire.LineResponse) error { return errors.ErrUnsupported }

// Run is one power cycle: it returns ErrReboot when the device must start again, ErrWiped after a wipe, or ctx's error.
func Run(ctx context.Context, c Config) error { return errors.ErrUnsupported }

// Supervise runs the agent again after each ErrReboot, until ctx ends or the device is wiped (nil).
func Supervise(ctx context.Context, c Config) error { return errors.ErrUnsupported }
