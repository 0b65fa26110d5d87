// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/store"
)

func anyProduct(string) bool { return true }

// TestHistory follows ten devices from the finding over an update that reaches them one a day, a decision that lasts two days,
// and a device that goes back.
func TestHistory(t *testing.T) {
	each(t, func(h *house) {
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0")
		h.release("ten_a", "rel_2", "prd_lamp", "2.0.0", "golang.org/x/net@v0.17.0")
		devices := make([]string, 10)
		for i := range devices {
			devices[i] = fmt.Sprintf("dev_%d", i)
		}
		h.install("ten_a", "prd_lamp", "rel_1", devices...)
		h.clock.Advance(24 * time.Hour)
		known := h.clock.Now()
		_, err := h.feed("ten_a", xnet("GO-1", "CVE-2026-0001", "0.17.0", ""))
		h.must(err)

		day := 24 * time.Hour
		for i := range 9 {
			h.clock.Advance(day)
			h.install("ten_a", "prd_lamp", "rel_2", devices[i])
		}
		h.clock.Advance(day)
		h.install("ten_a", "prd_lamp", "rel_1", devices[0]) // day 10: rolled back
		h.clock.Advance(day)
		_, err = h.vuln.Decide(h.Context(), "ten_a", "per_1", "CVE-2026-0001", Deciding{Product: "prd_lamp", Status: NotAffected,
			Justification: Justifications[2], Evidence: "the proxy is off", Expires: h.clock.Now().Add(2 * day)})
		h.must(err)
		h.clock.Advance(2 * day)
		h.run()
		h.clock.Advance(day) // day 14
		got, err := h.vuln.History(h.Context(), "ten_a", "CVE-2026-0001", anyProduct)
		h.must(err)

		// Days 0 to 9 cost 10+9+…+1 less the last, which stands still for a day and then is two.
		want := 10.0 + 9 + 8 + 7 + 6 + 5 + 4 + 3 + 2 + 1 /* day 9 to 10 */ + 2 /* to 11 */ + 0 + 0 /* decided */ + 2
		if !got.KnownSince.Equal(known) || !got.Since.Equal(known) || got.Now != 2 || got.Peak != 10 || got.Ever != 10 || got.DeviceDays != want {
			t.Errorf("known %s, since %s, now %d, peak %d, ever %d, %v device-days, want %v", got.KnownSince, got.Since, got.Now, got.Peak, got.Ever, got.DeviceDays, want)
		}
		half := got.Coverage[0]
		if after := half.At.Sub(known); after <= 5*day-time.Second || after > 5*day+time.Minute {
			t.Errorf("half were patched after %s, want five days", after)
		}
		if got.Coverage[1].Percent != 90 || !got.Coverage[1].At.IsZero() || !got.Coverage[2].At.IsZero() {
			t.Errorf("coverage %+v: two of ten are exposed again", got.Coverage)
		}
		none, err := h.vuln.History(h.Context(), "ten_a", "CVE-2026-0001", func(string) bool { return false })
		h.must(err)
		if none.Ever != 0 || len(none.Curve) != 0 || !none.KnownSince.IsZero() {
			t.Errorf("without a right on the product: %+v", none)
		}
	})
}

// TestHistoryAgainstOracle compares the curve with the exposure as it is told for each instant by itself.
func TestHistoryAgainstOracle(t *testing.T) {
	each(t, func(h *house) {
		rnd := rand.New(rand.NewPCG(7, 7))
		versions := []string{"v0.9.0", "v0.12.0", "v0.17.0", "v0.20.0"}
		for i, v := range versions {
			h.release("ten_a", fmt.Sprintf("rel_%d", i), "prd_lamp", fmt.Sprint(i), "golang.org/x/net@"+v, "golang.org/x/text@"+v)
		}
		text := `{"id":"GO-2","aliases":["CVE-2026-0001"],"affected":[{"package":{"ecosystem":"Go","name":"golang.org/x/text"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"%s"}]}]}]}`
		for step := range 40 {
			h.clock.Advance(time.Duration(1+rnd.IntN(72)) * time.Hour)
			switch {
			case step == 0 || rnd.IntN(8) == 0:
				_, err := h.feed("ten_a", xnet("GO-1", "CVE-2026-0001", fmt.Sprintf("0.%d.0", 10+rnd.IntN(12)), ""))
				h.must(err)
			case rnd.IntN(8) == 0:
				_, err := h.feed("ten_a", fmt.Sprintf(text, fmt.Sprintf("0.%d.0", 8+rnd.IntN(12))))
				h.must(err)
			case rnd.IntN(6) == 0:
				status := []Status{NotAffected, DecidedAffected}[rnd.IntN(2)]
				in := Deciding{Product: "prd_lamp", Status: status}
				if status == NotAffected {
					in.Justification, in.Evidence = Justifications[rnd.IntN(5)], "seen"
				}
				_, _ = h.vuln.Decide(h.Context(), "ten_a", "per_1", "CVE-2026-0001", in) // refused where nothing is open
			default:
				h.install("ten_a", "prd_lamp", fmt.Sprintf("rel_%d", rnd.IntN(len(versions))), fmt.Sprintf("dev_%d", rnd.IntN(6)))
			}
		}
		h.clock.Advance(time.Hour)
		got, err := h.vuln.History(h.Context(), "ten_a", "CVE-2026-0001", anyProduct)
		h.must(err)
		seen := map[int64]bool{}
		for _, p := range got.Curve {
			e, err := h.vuln.Affected(h.Context(), "ten_a", "CVE-2026-0001", p.At)
			h.must(err)
			if e.Devices != p.Devices {
				t.Errorf("at %s the curve says %d, the exposure as of then %d", p.At, p.Devices, e.Devices)
			}
			seen[p.Devices] = true
		}
		if len(seen) < 3 {
			t.Errorf("the curve is too plain to show anything: %v", got.Curve)
		}
	})
}

// TestOrderDoesNotMatter plays the same deltas, bills, decisions and catalogue in random orders; what is stored in the end
// must be the same to the byte, and equal to what is derived from the records alone.
func TestOrderDoesNotMatter(t *testing.T) {
	each(t, func(h *house) {
		var want string
		for round := range 6 {
			tenant := fmt.Sprintf("ten_%d", round)
			rnd := rand.New(rand.NewPCG(uint64(round), 1))
			// Each list is in an order of its own that must be kept; between the lists any order is right.
			lists := [][]func(){
				{func() { h.mustFeed(tenant, xnet("GO-1", "CVE-2026-0001", "0.12.0", "")) }, func() { h.mustFeed(tenant, xnet("GO-1", "CVE-2026-0002", "0.17.0", "")) }},
				{func() { h.mustFeed(tenant, xnet("GHSA-1", "CVE-2026-0001", "0.11.0", "")) }},
				{func() { h.mustFeed(tenant, xnet("GHSA-2", "CVE-2026-0002", "0.18.0", "")) }, func() {
					h.mustFeed(tenant, xnet("GHSA-2", "CVE-2026-0002", "0.18.0", `,"withdrawn":"2026-10-01T00:00:00Z"`))
				}},
				{func() { h.mustFeed(tenant, `{"id":"GO-3","aliases":["GHSA-1","GHSA-2"],"summary":"ties them"}`) }, func() { h.mustFeed(tenant, `{"id":"GO-3","aliases":["GHSA-9"],"summary":"ties nothing"}`) }},
				{func() {
					h.mustFeed(tenant, `{"catalogVersion":"1","count":1,"vulnerabilities":[{"cveID":"CVE-2026-0002","dateAdded":"2026-10-10"}]}`)
				}},
				{func() { h.release(tenant, tenant+"_rel_1", "prd_lamp", "1", "golang.org/x/net@v0.10.0") }, func() { h.release(tenant, tenant+"_rel_1", "prd_lamp", "1", "golang.org/x/net@v0.11.5") }},
				{func() { h.release(tenant, tenant+"_rel_2", "prd_lamp", "2", "golang.org/x/net@v0.17.5") }},
			}
			for left := len(lists); left > 0; {
				i := rnd.IntN(len(lists))
				if len(lists[i]) == 0 {
					continue
				}
				lists[i][0]()
				if lists[i] = lists[i][1:]; len(lists[i]) == 0 {
					left--
				}
			}
			got := h.dump(tenant)
			h.must(h.vuln.rebuild(h.Context(), tenant))
			if again := h.dump(tenant); again != got {
				t.Errorf("round %d: derived again it is\n%s\nand was\n%s", round, again, got)
			}
			audit, err := h.vuln.Audit(h.Context(), tenant, nil)
			h.must(err)
			if len(audit.Missing)+len(audit.Surplus) > 0 || audit.Hits == 0 {
				t.Errorf("round %d: %+v", round, audit)
			}
			if want == "" {
				want = got
			}
			if got != want {
				t.Errorf("round %d ends in\n%s\nthe first in\n%s", round, got, want)
			}
		}
	})
}

// TestWhatIsSaidAgainIsReadAgain lets a record go back to what it said before the rules changed: what older rules took from
// it then does not come back.
func TestWhatIsSaidAgainIsReadAgain(t *testing.T) {
	each(t, func(h *house) {
		first, second := xnet("GO-1", "CVE-2026-0001", "0.12.0", ""), xnet("GO-1", "CVE-2026-0001", "0.17.0", "")
		h.mustFeed("ten_a", first)
		h.mustFeed("ten_a", second)
		h.must(h.db.Write(h.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE vuln_record SET summary = 'as older rules read it', facts = '{}'`)
			return err
		}))
		h.must(h.vuln.rebuild(h.Context(), "ten_a"))
		said := func() (summary string) {
			h.must(h.db.QueryRow(h.Context(), `SELECT summary FROM vuln_record WHERE tenant = 'ten_a' AND is_current = 1`).Scan(&summary))
			return summary
		}
		h.want("derived again", said(), "a fault")
		h.mustFeed("ten_a", first)
		h.want("said again", said(), "a fault")
	})
}

func (h *house) mustFeed(tenant string, records ...string) {
	h.Helper()
	_, err := h.feed(tenant, records...)
	h.must(err)
}

// dump is everything that follows from records and bills, without times and made-up ids.
func (h *house) dump(tenant string) string {
	h.Helper()
	var out []string
	for _, f := range h.open(tenant) {
		out = append(out, fmt.Sprintln("finding", f.name, f.release[len(tenant):], f.component, f.record, f.Verdict))
	}
	h.must(h.db.View(h.Context(), func(tx *store.Tx) error {
		rows, err := tx.Query(`SELECT 'group ' || g.name || ' ' || g.summary || ' ' || CASE WHEN g.exploited > 0 THEN 'exploited' ELSE '' END || ' ' || m.ident
			FROM vuln_group g JOIN vuln_member m ON m.tenant = g.tenant AND m.group_id = g.id WHERE g.tenant = $1
			UNION ALL SELECT 'signal ' || product || ' ' || ident FROM vuln_signal WHERE tenant = $1
			UNION ALL SELECT 'touched ' || record_id FROM vuln_touched WHERE tenant = $1
			UNION ALL SELECT 'stirred ' || release_id FROM vuln_stirred WHERE tenant = $1`, tenant)
		list, err := store.Collect(rows, err, scanText)
		out = append(out, list...)
		return err
	}))
	slices.Sort(out)
	return fmt.Sprint(out)
}

func scanText(r *sql.Rows) (s string, err error) { return s + "\n", r.Scan(&s) }
