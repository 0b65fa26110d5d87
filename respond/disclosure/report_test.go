// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"testing"

	"github.com/openthings-platform/openthings/problem"
)

// TestAReportToItsEnd walks a report from a stranger's form to its close.
func TestAReportToItsEnd(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		in := Intake{Product: h.product, Finder: Finder{Name: "Eve", Contact: "eve@example.net", Credit: "Eve of Example"}}
		in.Subject = "Overflow in the parser"
		got := h.sent(in)
		r := h.seen(ann, got.ID)
		if r.Status != Received || r.Subject != in.Subject || r.Next == nil || r.Next.Name != TimerAcknowledge || !r.Next.Due.Equal(at(t, "2026-11-25T00:00:00Z")) {
			t.Errorf("%+v", r)
		}
		if err := func() error { _, err := h.Append(ann, got.ID, ReportTriaged, "x", Data{Verdict: Valid}); return err }(); !problem.Is(err, problem.KindConflict) {
			t.Errorf("triage before the acknowledgement: %v", err)
		}
		h.did(bob, got.ID, ReportAck, "Thank you, we look at it.", Data{})
		h.did(bob, got.ID, ReportTriaged, "We could repeat it.", Data{Verdict: Valid})
		h.did(bob, got.ID, ReportConfirmed, "All versions.", Data{Vulnerability: "CVE-2026-1"})
		h.did(bob, got.ID, UpstreamOpened, "", Data{Component: "pkg:generic/parser@1.2"})
		h.did(bob, got.ID, RemediationBegun, "", Data{})
		h.did(bob, got.ID, FixReady, "Version 1.3", Data{At: h.hand.Now()})
		if _, err := h.Append(ann, got.ID, ReportPublished, "It is public.", Data{Advisory: "adv_draft"}); !problem.Is(err, problem.KindConflict) {
			t.Errorf("a draft was taken for public: %v", err)
		}
		h.did(ann, got.ID, ReportPublished, "It is public, you are named.", Data{Advisory: "adv_1"})
		if _, err := h.Append(ann, got.ID, ReportClosed, "Done.", Data{}); problem.Of(err).Rule != "disclosure.upstream" {
			t.Errorf("closed while the maker of the component knows nothing: %v", err)
		}
		if _, err := h.Append(ann, got.ID, UpstreamClosed, "", Data{Task: 5, At: h.hand.Now()}); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("a task was closed without evidence: %v", err)
		}
		h.did(ann, got.ID, UpstreamClosed, "Their issue 17, answered.", Data{Task: 5, At: h.hand.Now()})
		h.did(ann, got.ID, ReportClosed, "Done.", Data{})
		if r := h.seen(ann, got.ID); r.Status != Closed || r.Next != nil || r.URL == "" {
			t.Errorf("%+v", r)
		}
		if _, err := h.Report(other, got.ID); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant: %v", err)
		}
		open, err := h.Reports(ann, true, "", 10)
		h.must(err)
		all, err := h.Reports(ann, false, "", 10)
		h.must(err)
		if len(open) != 0 || len(all) != 1 {
			t.Errorf("%d open, %d in all", len(open), len(all))
		}
	})
}
