// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"encoding/pem"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/hardware/hardwaretest"
	"github.com/openthings-platform/openthings/testpeers"
)

// TestHardware executes docs/hardware.md: the platform's TPM and the unit's are software TPMs, the unit's of a maker
// with an authority of its own, and the token is one of SoftHSM2.
func TestHardware(t *testing.T) {
	p := openPage(t, "hardware.md")
	maker := hardwaretest.NewMaker(t)
	unit := maker.NewTPM()
	p.replace(t, "--ca-keys tpm:/dev/tpmrm0", "--ca-keys tpm:"+hardwaretest.NewTPM(t).Where)
	p.replace(t, "-keys tpm:/dev/tpmrm0", "-keys tpm:"+unit.Where)
	p.replace(t, "/usr/lib/softhsm/libsofthsm2.so", hardwaretest.SoftHSM(t))
	p.env = append(p.env, "SOFTHSM2_CONF="+hardwaretest.SoftHSMConfig(t))

	// The page builds the program with PKCS #11 in the repository; here it is built before, and lies where the page puts it.
	p.replace(t, "(cd .. && CGO_ENABLED=1 go build -tags pkcs11 -o hardware/openthings-pkcs11 ./cmd/openthings)", "cp ../openthings-pkcs11 .")
	// With the race detector, as the tests: most of it is compiled then.
	flags, err := testpeers.RaceFlags(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", append(append([]string{"build"}, flags...), "-tags", "pkcs11", "-o", filepath.Join(p.dir, "openthings-pkcs11"), ".")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Mkdir(filepath.Join(p.dir, "hardware"), 0o700); err != nil {
		t.Fatal(err)
	}
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: maker.Chain[0].Raw})
	if err := os.WriteFile(filepath.Join(p.dir, "hardware", "maker.pem"), root, 0o600); err != nil {
		t.Fatal(err)
	}
	p.replace(t, "mkdir hardware && cd hardware", "cd hardware")
	out := p.run(t, "openthings", "openthings-agent")
	pin, err := os.ReadFile(filepath.Join(p.dir, "hardware", "pin"))
	if err != nil {
		t.Fatal(err)
	}
	if out += readAll(t, filepath.Join(p.dir, "hardware", "platform2")); strings.Contains(out, strings.TrimSpace(string(pin))) {
		t.Error("the PIN of the token was printed, logged or kept")
	}
	for _, want := range []string{"tpm", "pkcs11"} {
		if !strings.Contains(out, want) {
			t.Errorf("the reader does not see %q", want)
		}
	}
}

// readAll is the content of every file in a folder.
func readAll(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		all.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
