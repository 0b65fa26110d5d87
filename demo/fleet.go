// SPDX-License-Identifier: AGPL-3.0-only

package demo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"

	"github.com/openthings-platform/openthings/api"
)

// Fleet is a running platform with commissioned devices that are switched off: whoever measures takes their place.
type Fleet struct {
	Certs   []tls.Certificate // operational certificates, one per device
	Roots   *x509.CertPool
	Devices string // URL of the HTTPS door
	MQTT    string // address of the MQTT door
	PID     int    // of the platform
	Data    string // its folder
	API     *api.Client
	IDs     []string // of the devices, in the order of Certs

	w *world
}

// NewFleet starts the binary in a folder of its own and takes n devices (at least 4) through provisioning and
// commissioning.
func NewFleet(ctx context.Context, binary string, n int) (*Fleet, error) {
	dir, err := os.MkdirTemp("", "openthings-fleet-")
	if err != nil {
		return nil, err
	}
	f := &Fleet{w: &world{cfg: Config{Devices: n, Binary: binary}, dir: dir}}
	if f.Certs, err = f.w.commissioned(ctx); err != nil {
		f.Close()
		return nil, err
	}
	f.Roots, f.Devices, f.MQTT, f.PID = f.w.roots, f.w.platform.Devices, f.w.platform.MQTT, f.w.platform.cmd.Process.Pid
	f.Data, f.API = f.w.platform.dir, f.w.api
	for _, d := range f.w.devices {
		f.IDs = append(f.IDs, d.id)
	}
	return f, nil
}

// Close stops the platform and removes its folder.
func (f *Fleet) Close() {
	f.w.close()
	os.RemoveAll(f.w.dir)
}

// commissioned runs the steps up to commissioning, switches the devices off and returns their certificates.
func (w *world) commissioned(ctx context.Context) ([]tls.Certificate, error) {
	p := newProgress(io.Discard)
	for _, s := range w.steps(ctx) {
		if s.stage != "provision" && s.stage != "commission" {
			break
		}
		if _, err := s.run(ctx, p); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	certs := make([]tls.Certificate, len(w.devices))
	for i, d := range w.devices {
		d.switchOff()
		var err error
		if certs[i], err = d.credential("ldevid"); err != nil {
			return nil, err
		}
	}
	return certs, nil
}
