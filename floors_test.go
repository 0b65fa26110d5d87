// SPDX-License-Identifier: AGPL-3.0-only

// Package openthings holds the tests of the house as a whole: who may import whom, and what every file carries.
package openthings

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/format"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/openthings-platform/openthings"

// floors from the ground up. A room may import rooms of lower floors; on the floor of life, rooms to its left.
var floors = []struct {
	name  string
	rooms []string
	left  bool // rooms may import those before them on the same floor
}{
	{"wire, clock, problem", []string{"clock", "problem", "wire/mqtt", "wire/coap", "wire", "hardware/tpm", "hardware/pkcs11", "hardware/hardwaretest"}, true},
	{"ground", []string{"store", "store/blob", "testpeers", "store/storetest", "realdata", "docs/runbooks", "law", "seal", "webhook"}, true},
	{"doors", []string{"gateway", "api", "console", "console/browsertest"}, true},
	{"who may, what happened", []string{"audit", "tenant"}, true},
	{"life", []string{
		"notify", "product/eox", "product", "identity/status", "identity", "identity/keystore", "identity/embedded", "identity/ceremony", "identity/openbao", "identity/issuertest", "enroll/attest", "enroll", "enroll/station", "fleet", "telemetry/history", "telemetry", "command", "alarm", "sbom", "update/trust", "update",
		"vuln/cvss", "vuln/record", "vuln/feed", "vuln/csaf", "vuln/vex", "vuln", "respond/pgp", "respond", "respond/inform", "respond/oncall", "respond/disclosure", "respond/advisory", "conform", "conform/self", "retire", "retire/handover", "evidence/verify", "evidence",
	}, true},
	{"app, demo", []string{"agent/keys", "agent", "app", "demo", "sim", "bench/trace", "bench", "controls"}, true},
	{"cmd", []string{"cmd/openthings", "cmd/openthings-agent", "cmd/openthings-verify"}, false},
}

// only lists what rooms that a manufacturer may link are allowed to import of the house.
var only = map[string][]string{
	"agent":                 {"wire", "wire/mqtt", "clock", "update/trust", "agent/keys"},
	"agent/keys":            {"wire", "hardware/tpm", "hardware/pkcs11"},
	"update/trust":          {"wire", "clock"},
	"evidence/verify":       {"wire", "clock"},
	"wire":                  {},
	"wire/mqtt":             {"clock"},
	"wire/coap":             {},
	"clock":                 {},
	"hardware/tpm":          {"wire"},
	"hardware/pkcs11":       {},
	"hardware/hardwaretest": {},
	"cmd/openthings-agent":  {"agent", "agent/keys", "wire", "clock", "update/trust"},
	"cmd/openthings-verify": {"evidence/verify"},
}

// apache lists the rooms under Apache-2.0; all others are AGPL-3.0-only.
var apache = []string{"agent", "hardware", "wire", "clock", "update/trust", "evidence/verify", "cmd/openthings-agent", "cmd/openthings-verify"}

type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func place(room string) (floor, pos int) {
	for i, f := range floors {
		if j := slices.Index(f.rooms, room); j >= 0 {
			return i, j
		}
	}
	return -1, -1
}

// refusal says in one sentence why from may not import to, or nothing.
func refusal(from, to string) string {
	ff, fp := place(from)
	tf, tp := place(to)
	switch {
	case ff < 0:
		return from + " stands on no floor: add it to floors_test.go"
	case tf < 0:
		return from + " imports " + to + ", which stands on no floor"
	case only[from] != nil && !slices.Contains(only[from], to):
		return from + " imports " + to + ", but may link " + strings.Join(only[from], ", ") + " only"
	case tf > ff:
		return from + " imports " + to + ", which stands above it"
	case tf == ff && (!floors[ff].left || tp > fp):
		return from + " imports " + to + ", which comes after it on the same floor"
	}
	return ""
}

func TestFloors(t *testing.T) {
	local := func(path string) (string, bool) {
		r, ok := strings.CutPrefix(path, module+"/")
		return r, ok
	}
	for _, p := range packages(t) {
		room, ok := local(p.ImportPath)
		if !ok || room == "tempdeps" {
			continue
		}
		if f, _ := place(room); f < 0 {
			t.Errorf("%s stands on no floor: add it to floors_test.go", room)
			continue
		}
		for _, imp := range p.Imports {
			if to, ok := local(imp); ok {
				if why := refusal(room, to); why != "" {
					t.Error(why)
				}
			}
		}
	}
}

// The checker is checked: each kind of wrong import is refused.
func TestFloorsRefuses(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{"telemetry", "vuln", "comes after it"},
		{"store", "api", "stands above it"},
		{"gateway", "identity", "stands above it"},
		{"attic", "store", "stands on no floor"},
		{"agent", "store", "may link"},
		{"evidence/verify", "audit", "may link"},
		{"vuln", "telemetry", ""},
		{"tenant", "audit", ""},
	} {
		if got := refusal(c.from, c.to); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s -> %s: %q, want %q", c.from, c.to, got, c.want)
		}
	}
}

// Every Go file says its licence and is written as gofmt writes it, and no production file grows beyond 600 lines without saying why.
func TestFiles(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules" || d.Name() == "tempdeps") {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		want := "AGPL-3.0-only"
		for _, a := range apache {
			if path == a || strings.HasPrefix(path, a+"/") {
				want = "Apache-2.0"
			}
		}
		if first, _, _ := strings.Cut(string(b), "\n"); first != "// SPDX-License-Identifier: "+want {
			t.Errorf("%s does not begin with SPDX-License-Identifier: %s", path, want)
		}
		if pretty, err := format.Source(b); err != nil || !bytes.Equal(pretty, b) {
			t.Errorf("%s is not as gofmt writes it (%v)", path, err)
		}
		if n := bytes.Count(b, []byte("\n")); n > 600 && !strings.HasSuffix(path, "_test.go") && !bytes.Contains(b, []byte("// Long because ")) {
			t.Errorf("%s has %d lines; split it, or say why with a comment that begins \"Long because\"", path, n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
