// SPDX-License-Identifier: AGPL-3.0-only

package identity_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// restorable is a world whose database can be put back: restore takes the backup, what it returns makes the world go on with
// it. change may edit the lines of the journal before.
func restorable(t *testing.T) (w *world, restore func() (back func(change func(lines []string) []string))) {
	hand, dir := clock.NewHand(t0), t.TempDir()
	opt := func(c *store.Config) { c.Clock = hand }
	w = newWorld(t, storetest.Open(t, "sqlite://"+filepath.Join(dir, "a.db"), schema, opt), hand)
	return w, func() func(func([]string) []string) {
		backup(t, filepath.Join(dir, "a.db"), filepath.Join(dir, "b.db"))
		return func(change func([]string) []string) {
			t.Helper()
			if change != nil {
				path := filepath.Join(w.dir, "journal", "distrust.jsonl")
				text := strings.Join(change(strings.SplitAfter(w.journalText(), "\n")), "")
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			w.db = storetest.Open(t, "sqlite://"+filepath.Join(dir, "b.db"), schema, opt)
			w.Service = w.open(w.db)
			if err := w.Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}
