// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/store"
)

const (
	listBack  = 24 * time.Hour // a clock that is so far behind the newest list is not believed at once: what it signs may have ended for all others
	listDoubt = time.Hour      // but after this it is: the clock that signed the newest was ahead, and nobody takes its lists
)

// errDoubt is a clock that is not believed; its sentence stands in the alarm.
var errDoubt = errors.New("the clock is not believed")

// doubt is what this node thinks of its clock. From inside a clock that is days behind cannot be told from one that is right
// after it was days ahead. The first is mostly over within minutes, as after the start of a machine whose clock has no battery;
// lists that are good should last until then.
type doubt struct {
	mu    sync.Mutex // guards what follows
	since time.Time  // by the clock that is in doubt
	text  string     // why no list is signed; empty: they are
}

// doubtful looks at the clock before lists are signed, and says why they are not.
func (s *Service) doubtful(ctx context.Context) error {
	var updated int64
	if err := s.cfg.DB.QueryRow(ctx, `SELECT coalesce(max(updated), 0) FROM crl`).Scan(&updated); err != nil {
		return err
	}
	newest, now := store.Time(updated), s.cfg.Clock.Now()
	d := &s.doubt
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.text = ""; newest.Sub(now) <= listBack {
		d.since = time.Time{}
		return nil
	}
	if d.since.IsZero() || now.Before(d.since) {
		d.since = now
	}
	until := d.since.Add(listDoubt)
	if !now.Before(until) {
		return nil
	}
	d.text = fmt.Sprintf("The clock of a node is more than a day behind the newest revocation list, which was signed at %s: it is wrong now, or it was then. None is signed until it says %s; set it right before.",
		newest.UTC().Format(time.RFC3339), until.UTC().Format(time.RFC3339))
	return fmt.Errorf("%w: %s", errDoubt, d.text)
}

// why is the sentence about the clock, as of the last look.
func (d *doubt) why() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text
}
