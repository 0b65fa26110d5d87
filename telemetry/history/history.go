// SPDX-License-Identifier: AGPL-3.0-only

// Package history checks the promise "every PUBACK is a receipt" from outside: it is a log of what devices sent, what
// was acknowledged to them and what was found afterwards, and a verdict on it. Only tests use it; it knows nothing of
// how messages are kept, so that it cannot share a mistake with what it judges.
//
// A device numbers its messages from 1. Sending a number again (because its receipt was lost) is no second message.
package history

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// What an entry of a history tells.
const (
	Sent  = "sent"
	Acked = "acked"
	Found = "found"
)

// Entry is one line of a history.
type Entry struct {
	What   string    `json:"what"`
	Device string    `json:"device"`
	N      uint64    `json:"n"`
	At     time.Time `json:"at,omitzero"` // of sending or of the receipt, by the client's clock
}

// History is a log of entries. The zero value is empty; its methods are safe for concurrent use.
type History struct {
	mu      sync.Mutex
	entries []Entry
}

// Sent notes that a device is about to send its message n. Call it before the first byte leaves.
func (h *History) Sent(device string, n uint64) { h.add(Entry{Sent, device, n, time.Now()}) }

// Acked notes that the client holds the receipt of message n.
func (h *History) Acked(device string, n uint64) { h.add(Entry{Acked, device, n, time.Now()}) }

// Found notes one message that is there, in the order in which it is kept; twice if it is there twice.
func (h *History) Found(device string, n uint64) { h.add(Entry{What: Found, Device: device, N: n}) }

func (h *History) add(e Entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.entries = append(h.entries, e)
}

// Until is the history up to a moment: what was sent and acknowledged later, and what was found, is left out. It is how
// the present looks to clients when the power is cut at that moment.
func (h *History) Until(at time.Time) *History {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := &History{}
	for _, e := range h.entries {
		if e.What == Sent || e.What == Acked && !e.At.After(at) {
			out.entries = append(out.entries, e)
		}
	}
	return out
}

// Count is the number of distinct messages of which the history tells the given thing.
func (h *History) Count(what string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := map[message]bool{}
	for _, e := range h.entries {
		if e.What == what {
			seen[message{e.Device, e.N}] = true
		}
	}
	return len(seen)
}

// WriteTo writes the history as JSON, one entry a line.
func (h *History) WriteTo(w io.Writer) (int64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &counter{w: w}
	b := bufio.NewWriter(c)
	enc := json.NewEncoder(b)
	for _, e := range h.entries {
		if err := enc.Encode(e); err != nil {
			return c.n, err
		}
	}
	err := b.Flush()
	return c.n, err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// Read reads a history that WriteTo wrote.
func Read(r io.Reader) (*History, error) {
	h := &History{}
	for dec := json.NewDecoder(r); ; {
		var e Entry
		switch err := dec.Decode(&e); {
		case errors.Is(err, io.EOF):
			return h, nil
		case err != nil:
			return nil, fmt.Errorf("history: line %d: %w", len(h.entries)+1, err)
		}
		if e.What != Sent && e.What != Acked && e.What != Found {
			return nil, fmt.Errorf("history: line %d tells of %q", len(h.entries)+1, e.What)
		}
		h.entries = append(h.entries, e)
	}
}

type message struct {
	device string
	n      uint64
}

func (m message) String() string { return fmt.Sprintf("%s/%d", m.device, m.n) }

// Verdict is what is wrong with a history: messages as "device/number", sorted; and how much it rests on.
type Verdict struct {
	Sent, Acked, Found int // distinct messages

	Lost    []string // acknowledged and not found: the broken promise
	Phantom []string // found and never sent
	Doubled []string // found more than once
	Order   []string // found in an order in which their device cannot have sent them, repeats included
	Forged  []string // acknowledged and never sent: the test itself is wrong
}

// Err is nil for a history without fault, else a sentence with the first few of each kind.
func (v Verdict) Err() error {
	var errs []error
	for _, f := range []struct {
		what     string
		messages []string
	}{
		{"acknowledged and not found", v.Lost}, {"found and never sent", v.Phantom}, {"found more than once", v.Doubled},
		{"found out of their device's order", v.Order}, {"acknowledged and never sent", v.Forged},
	} {
		if n := len(f.messages); n > 0 {
			errs = append(errs, fmt.Errorf("%d %s, such as %v", n, f.what, f.messages[:min(n, 5)]))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("of %d sent, %d acknowledged, %d found: %w", v.Sent, v.Acked, v.Found, errors.Join(errs...))
}

// Check judges the history. What was sent and found without a receipt is in order: a client that got none sends again.
func (h *History) Check() Verdict {
	h.mu.Lock()
	defer h.mu.Unlock()
	places := map[message][]int{} // of its sendings, among all entries
	acked, found := map[message]bool{}, map[message]int{}
	last := map[string]int{} // by device: the sending of which the last message found came
	var order []message
	for i, e := range h.entries {
		m := message{e.Device, e.N}
		switch e.What {
		case Sent:
			places[m] = append(places[m], i)
		case Acked:
			acked[m] = true
		case Found:
			if found[m]++; found[m] > 1 || len(places[m]) == 0 {
				continue
			}
			// The earliest sending that fits leaves most room for what follows.
			fits := slices.IndexFunc(places[m], func(p int) bool { return p >= last[e.Device] })
			if fits < 0 {
				order = append(order, m)
				continue
			}
			last[e.Device] = places[m][fits]
		}
	}
	v := Verdict{Sent: len(places), Acked: len(acked), Found: len(found), Order: names(order)}
	var lost, phantom, doubled, forged []message
	for m := range acked {
		if found[m] == 0 {
			lost = append(lost, m)
		}
		if len(places[m]) == 0 {
			forged = append(forged, m)
		}
	}
	for m, n := range found {
		if len(places[m]) == 0 {
			phantom = append(phantom, m)
		}
		if n > 1 {
			doubled = append(doubled, m)
		}
	}
	v.Lost, v.Phantom, v.Doubled, v.Forged = names(lost), names(phantom), names(doubled), names(forged)
	return v
}

func names(ms []message) []string {
	slices.SortFunc(ms, func(a, b message) int { return cmp.Or(cmp.Compare(a.device, b.device), cmp.Compare(a.n, b.n)) })
	var out []string
	for _, m := range ms {
		out = append(out, m.String())
	}
	return out
}
