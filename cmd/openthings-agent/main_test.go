// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
