// SPDX-License-Identifier: AGPL-3.0-only

package openthings

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/testpeers"
)

// The flags with which `make test` calls the race detector leave some packages out (decision 0060): a race in code of ours
// around them is still seen, and code without one is not accused.
func TestRaceDetector(t *testing.T) {
	flags, err := testpeers.RaceFlags(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "race")
	build := exec.Command("go", append(append([]string{"build", "-o", program}, flags...), "./testdata/race")...)
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command(program).CombinedOutput(); err != nil {
		t.Errorf("a program without a race: %v\n%s", err, out)
	}
	if out, err := exec.Command(program, "unlocked").CombinedOutput(); err == nil || !strings.Contains(string(out), "WARNING: DATA RACE") {
		t.Errorf("a program with a race: %v\n%s", err, out)
	}
}
