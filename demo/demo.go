// SPDX-License-Identifier: AGPL-3.0-only

package demo

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

//go:embed all:assets
var assets embed.FS

//go:embed feed/*.json
var feed embed.FS

// Config says how to run the demo.
type Config struct {
	Devices  int       // how many agents; at least 4
	Once     bool      // end after one turn
	JSON     bool      // write the report to Out as one JSON object
	Binary   string    // path of the openthings binary that runs the platform and signs releases
	Database string    // postgres://…; empty: SQLite
	Out      io.Writer // the report
	Progress io.Writer // what is going on, for people

	// before is called ahead of each step, so that a test can break the world from outside.
	before func(stage, name string, w *world)
}

// Run takes the devices through the circle once; it returns whether every step was verified.
func Run(ctx context.Context, cfg Config) (ok bool, err error) {
	if cfg.Devices < 4 || cfg.Devices > 5000 {
		return false, errors.New("the demo needs between 4 and 5000 devices")
	}
	dir, err := os.MkdirTemp("", "openthings-demo-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	w := &world{cfg: cfg, dir: dir}
	defer w.close()
	p := newProgress(cfg.Progress)
	fmt.Fprintf(cfg.Progress, "One life of %d devices. Every ok below was verified from outside.\n", cfg.Devices)
	before := func(stage, name string) {
		if cfg.before != nil {
			cfg.before(stage, name, w)
		}
	}
	rep := Report{Devices: cfg.Devices, Steps: play(ctx, w.steps(ctx), p, before), OK: true}
	for _, s := range rep.Steps {
		rep.OK = rep.OK && s.OK
	}
	if cfg.JSON {
		if err := rep.WriteJSON(cfg.Out); err != nil {
			return false, err
		}
	}
	if rep.OK {
		fmt.Fprintf(cfg.Progress, "\nThe circle is closed: %d of %d steps verified.\n", len(rep.Steps), len(rep.Steps))
	}
	if cfg.Once || w.platform == nil || ctx.Err() != nil {
		return rep.OK, nil
	}
	link, err := w.invite(ctx)
	if err != nil {
		return rep.OK, err
	}
	fmt.Fprintf(cfg.Progress, "\nThe platform and the remaining devices keep running. Look around:\n\n  console   %s\n  enter by  %s\n  CA        %s\n\nThe browser will ask about the certificate: it is signed by the CA above, SHA-256 %s.\nCtrl-C ends the demo and removes everything.\n",
		w.platform.URL, link, w.platform.CA, w.platform.Fingerprint)
	<-ctx.Done()
	return rep.OK, nil
}

// image returns one of the embedded firmware images.
func image(version string) ([]byte, error) {
	b, err := assets.ReadFile("assets/lamp-" + version)
	if err != nil {
		return nil, fmt.Errorf("this binary was built without the demo's firmware: build it with make (%w)", err)
	}
	return b, nil
}

// unpack writes the firmware images to the folder and returns their paths by version.
func unpack(dir string, versions ...string) (map[string]string, error) {
	out := map[string]string{}
	for _, v := range versions {
		b, err := image(v)
		if err != nil {
			return nil, err
		}
		out[v] = filepath.Join(dir, "lamp-"+v)
		if err := os.WriteFile(out[v], b, 0o700); err != nil {
			return nil, err
		}
	}
	return out, nil
}
