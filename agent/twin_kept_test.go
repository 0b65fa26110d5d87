// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// TestDesiredIsKeptBeforeItIsAcknowledged: a downlink is acknowledged when its handler returns. What is desired is on disk
// by then; where the disk did not take it the unit knows nothing of it and asks for the whole.
func TestDesiredIsKeptBeforeItIsAcknowledged(t *testing.T) {
	dir := t.TempDir()
	start := func(cut func(string) error) *agent {
		a := &agent{Config: Config{Log: slog.New(slog.DiscardHandler)}, disk: disk{dir: dir, cut: cut}}
		if err := a.loadTwin(); err != nil {
			t.Fatal(err)
		}
		return a
	}
	start(nil).desired([]byte(`{"version":1,"full":{"light":1}}`))
	if k := start(nil).twin.kept; k.Version != 1 || string(k.Desired) != `{"light":1}` {
		t.Fatalf("after a power cut it holds version %d %s", k.Version, k.Desired)
	}
	var effects []string
	start(func(effect string) error { effects = append(effects, effect); return nil }).desired([]byte(`{"version":2,"base":1,"patch":{"light":2}}`))
	for _, last := range effects {
		a := start(func(effect string) error {
			if effect == last {
				return errors.New("the disk is full")
			}
			return nil
		})
		before := a.twin.kept
		a.desired([]byte(`{"version":3,"base":2,"patch":{"light":3}}`))
		if a.twin.kept.Version != before.Version || !a.twin.lost {
			t.Errorf("the disk failed at %q: it goes by version %d in memory, asks for the whole: %t", last, a.twin.kept.Version, a.twin.lost)
		}
		again := start(nil)
		again.desired([]byte(`{"version":2,"full":{"light":2}}`)) // the platform answers with the whole
		if k := start(nil).twin.kept; k.Version != 2 || !strings.Contains(string(k.Desired), "2") {
			t.Errorf("the disk failed at %q, then it was told the whole: version %d %s", last, k.Version, k.Desired)
		}
	}
	if len(effects) < 3 {
		t.Errorf("only %v on disk", effects)
	}
}
