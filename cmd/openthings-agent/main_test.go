// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/hardware/hardwaretest"
	"github.com/openthings-platform/openthings/wire"
)

func TestProvisionPrintsTheLinesRequest(t *testing.T) {
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, []byte("factory"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	state := filepath.Join(dir, "state")
	if err := run(t.Context(), []string{"provision", "-dir", state, "-serial", "A1", "-image", image, "-security-version", "2"}, nil, &out); err != nil {
		t.Fatal(err)
	}
	var r wire.LineRequest
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.Serial != "A1" || r.Firmware != wire.Digest([]byte("factory")) || !strings.Contains(r.CSR, "CERTIFICATE REQUEST") {
		t.Errorf("%s, %v", out.Bytes(), err)
	}
	if err := run(t.Context(), []string{"install", "-dir", state}, strings.NewReader(`{"certificate":"x"}`), &out); err == nil {
		t.Error("nonsense was installed")
	}
	if err := run(t.Context(), []string{"run", "-dir", state, "-https", "x:1", "-mqtt", "x:1", "-product", "p", "-revision", "r"}, nil, &out); err == nil {
		t.Error("a unit without its certificate ran")
	}
	for _, args := range [][]string{nil, {"fly"}} {
		if err := run(t.Context(), args, nil, &out); !errors.Is(err, errUsage) {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// The unit's key is made in its TPM when it is told so; what lies on disk works there only.
func TestProvisionInTPM(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	var out bytes.Buffer
	if err := run(t.Context(), []string{"provision", "-dir", state, "-serial", "A1", "-keys", "tpm:" + hardwaretest.NewTPM(t).Where}, nil, &out); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(state, "idevid.key"))
	if err != nil || !strings.Contains(string(b), "TSS2 PRIVATE KEY") {
		t.Errorf("%.60q %v", b, err)
	}
	for _, where := range []string{"tpm:/nowhere", "paper"} {
		if err := run(t.Context(), []string{"provision", "-dir", filepath.Join(t.TempDir(), "state"), "-serial", "A1", "-keys", where}, nil, &out); err == nil {
			t.Errorf("%s holds keys", where)
		}
	}
}

// The agent fits where devices have 10 MB for it, stripped and static, with all that a TPM needs.
func TestSize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", st.Size())
	if st.Size() > 10_000_000 {
		t.Errorf("the agent has %d bytes, at most 10 MB are wanted", st.Size())
	}
}
