// SPDX-License-Identifier: AGPL-3.0-only

// Package realdata finds the folder of real SBOMs, advisories and vulnerability records that tests run on. The files
// are never committed: a test that needs them says aloud that they are absent, and in CI absence is a failure.
package realdata

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Dir returns the folder of real data: $OPENTHINGS_DATA, or ../shared/data beside the module's root. Where it is
// absent the test is skipped with a sentence; with CI=true it fails instead, so that CI never passes without having run.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := find(os.Getenv("OPENTHINGS_DATA"))
	if err == nil {
		return dir
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("real data is required in CI: %v", err)
	}
	t.Skipf("not run on real data: %v; set OPENTHINGS_DATA to the folder", err)
	return ""
}

func find(named string) (string, error) {
	dir := named
	if dir == "" {
		root, err := moduleRoot()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(root, "..", "shared", "data")
	}
	if info, err := os.Stat(filepath.Join(dir, "vuln")); err != nil || !info.IsDir() {
		return "", fmt.Errorf("there is no folder %s", filepath.Join(dir, "vuln"))
	}
	return dir, nil
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no go.mod above the test's folder")
		}
		dir = up
	}
}
