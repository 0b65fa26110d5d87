// SPDX-License-Identifier: AGPL-3.0-only

package realdata

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFind(t *testing.T) {
	dir := t.TempDir()
	if _, err := find(dir); err == nil {
		t.Fatal("an empty folder was taken for real data")
	}
	if err := os.Mkdir(filepath.Join(dir, "vuln"), 0o755); err != nil {
		t.Fatal(err)
	}
	got, err := find(dir)
	if err != nil || got != dir {
		t.Fatalf("find = %q, %v; want the named folder", got, err)
	}
}
