// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"fmt"
	"sync"
	"time"
)

// maxRefusals bounds the subjects whose refusals are counted apart; strangers can invent any number of certificates.
const maxRefusals = 4096

// refusals keeps repeated refusals from flooding the log of the platform: the first of a subject and rule is told, then at most
// one an hour, with the number of those between.
type refusals struct {
	mu   sync.Mutex // guards told
	told map[refusal]*tally
}

type refusal struct{ subject, rule string }

type tally struct {
	at     time.Time // when it was told last
	silent int       // how many were not told since
}

// tell says whether this refusal is to be told, and what to add to it.
func (r *refusals) tell(subject, rule string, now time.Time) (more string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := refusal{subject, rule}
	t := r.told[k]
	if t == nil && len(r.told) >= maxRefusals {
		for k, t := range r.told {
			if now.Sub(t.at) > time.Hour {
				delete(r.told, k)
			}
		}
		if len(r.told) >= maxRefusals {
			k = refusal{rule: rule} // all others share one tally
			t = r.told[k]
		}
	}
	if t == nil {
		r.told[k] = &tally{at: now}
		return "", true
	}
	if now.Sub(t.at) < time.Hour {
		t.silent++
		return "", false
	}
	if t.silent > 0 {
		more = fmt.Sprintf(" (and %d more since %s)", t.silent, t.at.UTC().Format(time.RFC3339))
	}
	*t = tally{at: now}
	return more, true
}

// refused reports what policy refused an admitted peer.
func (g *Gateway) refused(p Peer, rule, detail string) {
	if g.cfg.Refused != nil && p.id() != "" {
		g.cfg.Refused(p, rule, detail)
	}
	more, ok := g.refusals.tell(p.id(), rule, g.cfg.Clock.Now())
	if !ok {
		return
	}
	g.cfg.Log.Warn("refused", "rule", rule, "device", p.Device, "station", p.Station, "detail", detail+more)
}
