// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestTheDeskBesideItsPolicy: how each report went is computed from its own log, by the promise that it came under; an
// embargo keeps verdict and fix back, never whether a promise was kept.
func TestTheDeskBesideItsPolicy(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		start := h.hand.Now() // a Saturday
		first := h.sent(Intake{Product: h.product})
		second := h.sent(Intake{Product: h.product})
		third := h.sent(Intake{})
		h.hand.Set(start.Add(36 * time.Hour))
		h.did(ann, first.ID, ReportAck, "Thank you.", Data{})
		h.hand.Set(start.Add(8 * day))
		h.did(ann, second.ID, ReportAck, "Late, thank you.", Data{})
		h.did(ann, second.ID, ReportTriaged, "Not ours.", Data{Verdict: OutOfScope})
		h.did(ann, first.ID, ReportTriaged, "Late, too.", Data{Verdict: Valid})
		h.did(ann, first.ID, ReportConfirmed, "Yes.", Data{})
		h.did(ann, first.ID, FixReady, "1.3", Data{At: h.hand.Now()})
		h.did(ann, first.ID, EmbargoSet, "Acme, CERT", Data{Due: h.hand.Now().Add(10 * day)})

		rs, err := h.Record(ann, 10)
		h.must(err)
		if len(rs) != 3 || rs[0].Report != third.ID || rs[2].Report != first.ID {
			t.Fatalf("%+v", rs)
		}
		for _, c := range []struct {
			what  string
			got   DeskStep
			want  Outcome
			hours float64
		}{
			{"first acknowledged", rs[2].Acknowledge, Met, 36}, {"first triaged", rs[2].Triage, Late, 192}, {"first fixed", rs[2].Fix, Done, 192}, {"first public", rs[2].Publication, Waiting, 0},
			{"second acknowledged", rs[1].Acknowledge, Late, 192}, {"second fixed", rs[1].Fix, Dropped, 0}, {"second public", rs[1].Publication, Dropped, 0},
			{"third acknowledged", rs[0].Acknowledge, Overdue, 0}, {"third triaged", rs[0].Triage, Overdue, 0}, {"third fixed", rs[0].Fix, Waiting, 0},
		} {
			if c.got.Outcome != c.want || c.got.Hours != c.hours {
				t.Errorf("%s: %s after %g h, want %s after %g h", c.what, c.got.Outcome, c.got.Hours, c.want, c.hours)
			}
		}
		outside, err := h.Record(owner, 10)
		h.must(err)
		if x := outside[2]; !x.Withheld || x.Verdict != "" || x.Fix.Outcome != Waiting || x.Acknowledge.Outcome != Met {
			t.Errorf("who is not on the list: %+v", x)
		}
		if foreign, err := h.Record(other, 10); err != nil || len(foreign) != 0 {
			t.Errorf("another tenant: %v, %v", foreign, err)
		}
		desk, programs := h.doors(ann)
		h.page(desk, "/disclosure/figures", "36 h", "192 h", "overdue", "late", "promised", "out of scope")
		h.page(desk, "/disclosure/figures?year=2025", "The newest reports beside their policy")
		if got := h.ask(programs, http.MethodGet, "/v1/disclosure/record?newest=1", "", nil); got.Code != 200 || !strings.Contains(got.body, third.ID) || strings.Contains(got.body, first.ID) {
			t.Errorf("%d %s", got.Code, got.body)
		}
	})
}
