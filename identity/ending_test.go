// SPDX-License-Identifier: AGPL-3.0-only

package identity_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/store"
)

// I22: an authority within one life of what it signs: what would outlive it is refused, or cut short where the profile
// allows that, and somebody is told, long before and then again.
func TestI22_IssuingCAWithinOneLeafLifeOfItsEnd(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		day := 24 * time.Hour
		alarms := make(chan string, 16)
		w.db.On("authority.ending", "test", func(_ context.Context, e store.Event) error {
			var d struct {
				Level     string
				Successor bool
			}
			if err := e.Decode(&d); err != nil {
				return err
			}
			alarms <- e.Subject + " " + d.Level
			return nil
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.db.RunJobs(ctx) }()
		defer func() { stop(); <-done }()

		d, _, _ := w.commissioned("S1")
		a, err := w.Authority(t.Context(), "operational-1")
		if err != nil {
			t.Fatal(err)
		}
		tiles := func() string {
			o, err := w.Overview(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			return strings.Join(o.Warnings, "\n")
		}
		if strings.Contains(tiles(), "operational-1 ends") {
			t.Error("an alarm ten years before the end")
		}
		// wait collects alarms until each of want has come; which of the three authorities comes first is no matter.
		wait := func(level string) {
			t.Helper()
			want := map[string]bool{"operational-1 " + level: true, "server-1 " + level: true, "bootstrap-1 " + level: true}
			for len(want) > 0 {
				got := <-alarms
				if !want[got] {
					t.Fatalf("alarm %q, want %v", got, want)
				}
				delete(want, got)
			}
		}
		w.clock.Set(a.NotAfter.Add(-179 * day))
		wait("soon")
		if !strings.Contains(tiles(), "operational-1 ends on") || !strings.Contains(tiles(), "no successor") {
			t.Errorf("half a year before the end: %q", tiles())
		}
		last := w.issue(d.ID, identity.LDevID, newCSR(t, nil))
		w.admits(last)

		// Within one leaf life.
		w.clock.Set(a.NotAfter.Add(-30 * day))
		wait("leaf")
		_, _, err = w.Issue(t.Context(), identity.IssueRequest{Tenant: "ten_a", Subject: d.ID, Kind: identity.LDevID, CSR: newCSR(t, nil), Actor: d.ID})
		refused(t, err, "ca.ending")
		if !strings.Contains(tiles(), "would outlive it") {
			t.Errorf("%q", tiles())
		}
		// The door's own certificate is cut short rather than shut.
		server, err := w.ServerCertificate([]string{"things.example"})
		if err != nil || !server.Leaf.NotAfter.Equal(a.NotAfter.Truncate(time.Second)) {
			t.Errorf("the server's certificate ends %v, its authority %v (%v)", server.Leaf, a.NotAfter, err)
		}
		// The factory's authority is far from its end: IDevIDs go on.
		w.born("S2")

		// With a successor all is well again.
		w.promote(w.next(identity.Operational, identity.AlgP256, w.held()).ID)
		fresh := w.issue(d.ID, identity.LDevID, newCSR(t, nil))
		if x, err := fresh.Parse(); err != nil || fresh.Authority != "operational-2" || x.NotAfter.Sub(w.clock.Now()) != 60*day {
			t.Errorf("%s signs until %v (%v)", fresh.Authority, fresh.NotAfter, err)
		}
		if strings.Contains(tiles(), "operational-1 ends") {
			t.Errorf("a retiring authority still alarms: %q", tiles())
		}
	})
}

// A repeat of a request that was answered before the end came near still gets its answer.
func TestEndingAnswersRepeats(t *testing.T) {
	w := alone(t)
	d, _, _ := w.commissioned("S1")
	a, err := w.Authority(t.Context(), "operational-1")
	if err != nil {
		t.Fatal(err)
	}
	w.clock.Set(a.NotAfter.Add(-61 * 24 * time.Hour))
	csr := newCSR(t, nil)
	first := w.issue(d.ID, identity.LDevID, csr)
	w.clock.Advance(10 * 24 * time.Hour)
	again, isNew, err := w.Issue(t.Context(), identity.IssueRequest{Tenant: "ten_a", Subject: d.ID, Kind: identity.LDevID, CSR: csr, Actor: d.ID})
	if err != nil || isNew || again.Fingerprint != first.Fingerprint {
		t.Errorf("new %v, %v", isNew, err)
	}
}
