// SPDX-License-Identifier: AGPL-3.0-only

package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/openthings-platform/openthings/store/storetest"
)

// builtBinary is the platform as it is built for users, without the race detector.
var builtBinary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "openthings-bin-")
	if err != nil {
		panic(err)
	}
	builtBinary = filepath.Join(dir, "openthings")
	build := exec.Command("go", "build", "-trimpath", "-o", builtBinary, "../cmd/openthings")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// database is what --database gets: nothing for SQLite.
func eachEngine(t *testing.T, fn func(t *testing.T, database string)) {
	t.Run("sqlite", func(t *testing.T) { fn(t, "") })
	t.Run("postgres", func(t *testing.T) { fn(t, storetest.PostgresURL(t)) })
}

// The circle closes on both engines, and the report says so as one JSON object.
func TestCircle(t *testing.T) {
	eachEngine(t, func(t *testing.T, database string) {
		var out bytes.Buffer
		ok, err := Run(t.Context(), Config{Devices: 8, Once: true, JSON: true, Binary: builtBinary, Database: database, Out: &out, Progress: testWriter{t}})
		if err != nil || !ok {
			t.Fatalf("ok %v, %v\n%s", ok, err, out.String())
		}
		var rep Report
		if err := json.Unmarshal(out.Bytes(), &rep); err != nil {
			t.Fatal(err)
		}
		stages := map[string]int{}
		for _, s := range rep.Steps {
			if !s.OK || s.Detail == "" {
				t.Errorf("%+v", s)
			}
			stages[s.Stage]++
		}
		for _, want := range []string{"provision", "commission", "work", "update", "monitor", "respond", "decommission", "deprovision"} {
			if stages[want] == 0 {
				t.Errorf("no step of stage %s", want)
			}
		}
		if !rep.OK || rep.Devices != 8 {
			t.Errorf("ok %v, devices %d", rep.OK, rep.Devices)
		}
	})
}

// A stage that is broken from outside is reported as broken, at its step, and nothing after it as done.
func TestCircleSaysNo(t *testing.T) {
	for _, c := range []struct {
		name, stage, step string
		harm              func(t *testing.T, w *world)
	}{
		{"the platform dies", "work", "telemetry of every device is read back", func(t *testing.T, w *world) { w.platform.kill() }},
		{"a unit's key is swapped", "commission", "each door refuses the other's certificate", func(t *testing.T, w *world) {
			// The "IDevID" shown to MQTT is now one that works there: the refusal that the step waits for does not come.
			b, err := os.ReadFile(filepath.Join(w.devices[0].dir, "ldevid.pem"))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(w.devices[0].dir, "idevid.pem"), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"the platform dies in the middle of the life", "update", "a deployment reaches its devices in waves", func(t *testing.T, w *world) { w.platform.kill() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			ok, err := Run(t.Context(), Config{Devices: 4, Once: true, JSON: true, Binary: builtBinary, Out: &out, Progress: io.Discard,
				before: func(_, name string, w *world) {
					if name == c.step {
						c.harm(t, w)
					}
				}})
			if err != nil || ok {
				t.Fatalf("ok %v, %v", ok, err)
			}
			var rep Report
			if err := json.Unmarshal(out.Bytes(), &rep); err != nil {
				t.Fatal(err)
			}
			broken := false
			for _, s := range rep.Steps {
				if s.Name == c.step {
					broken = true
					if s.OK || s.Stage != c.stage {
						t.Errorf("%+v", s)
					}
				} else if s.OK == broken {
					t.Errorf("%s: ok %v, broken before %v", s.Name, s.OK, broken)
				}
			}
			if !broken || rep.OK {
				t.Errorf("the step was not run, or the report is ok: %v", rep.OK)
			}
		})
	}
}

// testWriter shows progress in the test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(string(bytes.TrimRight(b, "\n")))
	return len(b), nil
}
