// SPDX-License-Identifier: AGPL-3.0-only

package history

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sound is a history without fault: two devices, a message without receipt that was found, one that was not, and one
// that was sent again.
func sound() *History {
	h := &History{}
	for n := uint64(1); n <= 5; n++ {
		h.Sent("a", n)
		h.Sent("b", n)
		if n < 4 {
			h.Acked("a", n)
		}
		h.Acked("b", n)
	}
	h.Sent("a", 4)
	for n := uint64(1); n <= 5; n++ {
		if n < 5 {
			h.Found("a", n)
		}
		h.Found("b", n)
	}
	return h
}

// The checker is checked: each planted fault is found, and named, and nothing else is.
func TestPlantedFaults(t *testing.T) {
	for name, c := range map[string]struct {
		plant func(*History)
		want  Verdict
	}{
		"none":                            {func(*History) {}, Verdict{}},
		"an acknowledged message is gone": {func(h *History) { h.drop(Found, "b", 3) }, Verdict{Lost: []string{"b/3"}}},
		"the last of a device is gone":    {func(h *History) { h.drop(Found, "b", 5) }, Verdict{Lost: []string{"b/5"}}},
		"a device is gone": {func(h *History) {
			for n := uint64(1); n <= 5; n++ {
				h.drop(Found, "b", n)
			}
		}, Verdict{Lost: []string{"b/1", "b/2", "b/3", "b/4", "b/5"}}},
		"nobody sent it":            {func(h *History) { h.Found("a", 9) }, Verdict{Phantom: []string{"a/9"}}},
		"another device sent it":    {func(h *History) { h.Found("c", 1) }, Verdict{Phantom: []string{"c/1"}}},
		"it is there twice":         {func(h *History) { h.Found("a", 2) }, Verdict{Doubled: []string{"a/2"}}},
		"without receipt and twice": {func(h *History) { h.Found("a", 4) }, Verdict{Doubled: []string{"a/4"}}},
		"a receipt for nothing":     {func(h *History) { h.Acked("a", 8) }, Verdict{Lost: []string{"a/8"}, Forged: []string{"a/8"}}},
		"found before what came first": {func(h *History) {
			h.drop(Found, "b", 2)
			h.Found("b", 2)
		}, Verdict{Order: []string{"b/2"}}},
	} {
		t.Run(name, func(t *testing.T) {
			h := sound()
			c.plant(h)
			got := h.Check()
			if (got.Err() == nil) != strings.HasPrefix(name, "none") {
				t.Errorf("the verdict is %v", got.Err())
			}
			got.Sent, got.Acked, got.Found = 0, 0, 0
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			var file bytes.Buffer
			if _, err := h.WriteTo(&file); err != nil {
				t.Fatal(err)
			}
			again, err := Read(&file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(h.Check(), again.Check()); d != "" {
				t.Errorf("the written history is judged otherwise (-want +got):\n%s", d)
			}
		})
	}
}

func (h *History) drop(what, device string, n uint64) {
	kept := h.entries[:0]
	for _, e := range h.entries {
		if e.What != what || e.Device != device || e.N != n {
			kept = append(kept, e)
		}
	}
	h.entries = kept
}

// At a moment only the receipts that clients held by then count; what was sent may be there, since sending came first.
func TestUntil(t *testing.T) {
	h := sound()
	var third time.Time
	for _, e := range h.entries {
		if e.What == Acked && e.Device == "a" && e.N == 3 {
			third = e.At
		}
	}
	cut := h.Until(third)
	if v := cut.Check(); v.Found != 0 || len(v.Lost) != cut.Count(Acked) || cut.Count(Acked) != 5 && cut.Count(Acked) != 6 || cut.Count(Sent) != 10 {
		t.Errorf("until the receipt of a/3: %+v", v) // b/3 may have the same moment
	}
}

func TestReadRefuses(t *testing.T) {
	for _, s := range []string{`{"what":"lost","device":"a","n":1}`, `{"what"`, `[]`} {
		if _, err := Read(strings.NewReader(s)); err == nil {
			t.Errorf("%s was read", s)
		}
	}
}
