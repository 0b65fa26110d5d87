// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
)

// TestInheritanceTable is the whole table of when a decision holds for a release: every combination of the component being
// the same, the evidence being the same, a decision for this release only, a date that has passed, a vulnerability that has
// become exploited and a record that says something else, for each status. What does not hold is never applied in silence:
// standing names the decision and why, and that is what is proposed again.
func TestInheritanceTable(t *testing.T) {
	const made, now = 1_000, 5_000
	yes := []bool{true, false}
	rows := 0
	for _, status := range []Status{UnderInvestigation, DecidedAffected, NotAffected, Fixed} {
		for n := range 1 << 6 {
			bit := func(i int) bool { return yes[n>>i&1] }
			sameComponent, sameEvidence, exact, expired, exploited, changed := bit(0), bit(1), bit(2), bit(3), bit(4), bit(5)
			if status == Fixed && !exact {
				continue // is said of one release only
			}
			rows++
			d := Decision{ID: "dec_1", Product: "prd", Component: "cmp_1", Status: status, At: store.Time(made), seq: 1,
				basis: basis{Known: true, Said: []string{"affected 2"}, Evidence: []string{"sha256:a"}}}
			if exact {
				d.Release = "rel"
			}
			if expired {
				d.Until, d.Why = store.Time(now-1), Expired
			}
			saying := []string{"affected 2"}
			if changed {
				saying = []string{"affected 3"}
			}
			if why := d.shaken(exploited, saying); why != "" && !expired { // what reopen writes
				d.Until, d.Why = store.Time(now-2), why
			}
			component, evidence := "cmp_1", "sha256:a"
			if !sameComponent {
				component = "cmp_2"
			}
			if !sameEvidence {
				evidence = "sha256:b"
			}
			l := decided{[]Decision{d}, map[string][]sbom.EvidenceState{"rel": {{From: 0, Hash: evidence}}}}

			var want Lapse
			found := true
			switch reopens := status != DecidedAffected; {
			case !sameComponent:
				found = false
			case expired:
				want = Expired
			case exploited && reopens && status != Fixed:
				want = NewlyExploited
			case changed && reopens:
				want = RangeChanged
			case !sameEvidence:
				want = EvidenceChanged
			}
			name := fmt.Sprintf("%s component=%v evidence=%v exact=%v expired=%v exploited=%v changed=%v", status, sameComponent, sameEvidence, exact, expired, exploited, changed)
			got, why := l.standing("prd", component, "rel", now)
			if (got != nil) != found || why != want {
				t.Errorf("%s: found %v because %q, want %v because %q", name, got != nil, why, found, want)
			}
			if holds := l.at("prd", component, "rel", now) != nil; holds != (found && want == "") {
				t.Errorf("%s: holds %v", name, holds)
			}
			if sameComponent && sameEvidence && !expired && l.at("prd", component, "rel", now-3) == nil { // before the facts changed
				t.Errorf("%s: did not hold in the past", name)
			}
			if l.at("prd", component, "rel", made-1) != nil || l.at("other", component, "rel", now) != nil {
				t.Errorf("%s: holds before it was made, or in another product", name)
			}
			if holds := l.at("prd", component, "rel_2", now) != nil; exact && holds {
				t.Errorf("%s: of one release, and holds for another", name)
			}
		}
	}
	if rows != 3*64+32 {
		t.Errorf("%d rows", rows)
	}
}

// TestNoOlderDecisionStepsIn: what has lapsed for a release is asked for again, though the line has a decision.
func TestNoOlderDecisionStepsIn(t *testing.T) {
	line := Decision{ID: "dec_1", Product: "prd", Component: "cmp", Status: NotAffected, At: store.Time(1)}
	exact := Decision{ID: "dec_2", Product: "prd", Component: "cmp", Release: "rel", Status: DecidedAffected, At: store.Time(2), Until: store.Time(10), Why: Expired}
	newer := Decision{ID: "dec_3", Product: "prd", Component: "cmp", Status: NotAffected, At: store.Time(3), Until: store.Time(20), Why: RangeChanged}
	l := decided{list: []Decision{line, exact, newer}}
	for _, c := range []struct {
		release string
		at      int64
		want    string
	}{{"rel", 1, "dec_1"}, {"rel", 2, "dec_2"}, {"rel", 9, "dec_2"}, {"rel", 10, ""}, {"rel", 30, ""}, {"rel_2", 2, "dec_1"}, {"rel_2", 19, "dec_3"}, {"rel_2", 20, ""}} {
		got := ""
		if d := l.at("prd", "cmp", c.release, c.at); d != nil {
			got = d.ID
		}
		if got != c.want {
			t.Errorf("%s at %d: %q, want %q", c.release, c.at, got, c.want)
		}
	}
	if turns := fmt.Sprint(l.turns("prd", "cmp", "rel"), l.turns("prd", "cmp", "rel_2")); turns != "[1 2 3 10 20] [1 3 20]" {
		t.Errorf("it may change at %s", turns)
	}
}

// status is what is decided for the release's only finding, and what is proposed: "not_affected", "undecided: earlier evidence".
func (h *house) status(release, ident string) string {
	h.Helper()
	found, err := h.vuln.OpenFindings(h.Context(), "ten_a", release)
	h.must(err)
	out := "nothing"
	for _, f := range found {
		out = string(f.Status)
	}
	list, err := h.vuln.Proposals(h.Context(), "ten_a", ident, func(string) bool { return true })
	h.must(err)
	for _, p := range list {
		if strings.Contains(" "+strings.Join(p.Releases, " ")+" ", " "+release+" ") {
			out += fmt.Sprintf(", %s %s %s", p.From, p.Why, p.Status)
			if p.Conflict() {
				out += " against " + string(p.Decided.Status)
			}
		}
	}
	return strings.Join(strings.Fields(out), " ")
}

func (h *house) decide(in Deciding) Decision {
	h.Helper()
	made, err := h.vuln.Decide(h.Context(), "ten_a", "per_1", "CVE-2023-44487", in)
	h.must(err)
	return made[0]
}

var harmless = Deciding{Product: "prd_lamp", Status: NotAffected, Justification: "vulnerable_code_not_in_execute_path", Evidence: "No HTTP/2 server is started."}

// leaves are the entries of the log about a subject that begin with a word, as "actor kind".
func (h *house) leaves(subject, kind string) string {
	h.Helper()
	rows, err := h.db.Query(h.Context(), `SELECT actor, kind FROM audit_entry WHERE subject = $1 AND kind LIKE $2 ORDER BY at, id`, subject, kind+"%")
	list, err := store.Collect(rows, err, func(r *sql.Rows) (string, error) {
		var actor, kind string
		err := r.Scan(&actor, &kind)
		return actor + " " + kind, err
	})
	h.must(err)
	return strings.Join(list, ", ")
}

// exploited imports a list that knows CVE-2023-44487.
func (h *house) exploited() {
	h.Helper()
	_, err := h.feed("ten_a", kevRapidReset)
	h.must(err)
}

func TestEvidenceChangesAsksAgain(t *testing.T) {
	each(t, func(h *house) {
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0")
		_, err := h.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", ""))
		h.must(err)
		h.install("ten_a", "prd_lamp", "rel_1", "dev_1")
		h.decide(harmless)
		h.clock.Advance(time.Hour)
		h.release("ten_a", "rel_2", "prd_lamp", "1.1.0", "golang.org/x/net@v0.10.0", "golang.org/x/text@v0.9.0")
		h.want("the same component, the same evidence", h.status("rel_2", "GO-1"), "not_affected")

		_, err = h.sbom.AddEvidence(h.Context(), "ten_a", "rel_2", sbom.KernelConfig, strings.NewReader("CONFIG_NET=y\n"), "per_1")
		h.must(err)
		h.run()
		h.want("built from other sources", h.status("rel_2", "GO-1"), "undecided, earlier evidence not_affected")
		h.want("the release it was decided for", h.status("rel_1", "GO-1"), "not_affected")
		h.clock.Advance(time.Hour)
		before := h.clock.Now()
		h.clock.Advance(time.Hour)

		_, err = h.sbom.AddEvidence(h.Context(), "ten_a", "rel_1", sbom.KernelConfig, strings.NewReader("CONFIG_NET=y\n"), "per_1")
		h.must(err)
		h.run()
		h.want("the release it was decided for, now built otherwise", h.status("rel_1", "GO-1"), "undecided, earlier evidence not_affected")
		h.want("exposed again", h.affected("ten_a", "GO-1", time.Time{}), "1: rel_1=1 rel_2=0")
		h.want("as it was", h.affected("ten_a", "GO-1", before), "0: rel_2=0")

		list, err := h.vuln.Proposals(h.Context(), "ten_a", "GO-1", func(string) bool { return true })
		h.must(err)
		if len(list) != 1 || len(list[0].Releases) != 2 || list[0].Evidence != harmless.Evidence {
			t.Fatalf("proposed %+v", list)
		}
		d := h.decide(Deciding{Product: "prd_lamp", Origin: list[0].Origin})
		if d.Evidence != harmless.Evidence || d.Justification != harmless.Justification || d.Origin != list[0].Origin {
			t.Errorf("taken over %+v", d)
		}
		h.want("both, after it was taken over", h.status("rel_1", "GO-1")+" "+h.status("rel_2", "GO-1"), "not_affected not_affected")
		detail, err := h.vuln.Get(h.Context(), "ten_a", "GO-1")
		h.must(err)
		if len(detail.Decisions) != 2 {
			t.Errorf("%d decisions: the old one stays", len(detail.Decisions))
		}
	})
}

func TestNewFactsAskAgain(t *testing.T) {
	each(t, func(h *house) {
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0")
		_, err := h.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", ""))
		h.must(err)
		h.decide(harmless)
		h.clock.Advance(time.Hour)
		_, err = h.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", `,"details":"better words"`))
		h.must(err)
		h.want("only the words changed", h.status("rel_1", "GO-1"), "not_affected")
		_, err = h.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.18.0", ""))
		h.must(err)
		h.want("another range", h.status("rel_1", "GO-1"), "undecided, earlier range not_affected")

		h.clock.Advance(time.Hour)
		h.decide(harmless)
		h.want("decided again", h.status("rel_1", "GO-1"), "not_affected")
		h.clock.Advance(time.Hour)
		h.exploited()
		h.want("exploited", h.status("rel_1", "GO-1"), "undecided, earlier exploited not_affected")
		if got := h.checks["rel_1"]; !strings.HasPrefix(got, "fail: CVE-2023-44487") {
			t.Errorf("the gate was told %q", got)
		}
		h.clock.Advance(time.Hour)
		h.decide(harmless)
		h.want("decided knowing that", h.status("rel_1", "GO-1"), "not_affected")
		h.want("the log", h.leaves("prd_lamp", "vulnerability."), "per_1 vulnerability.decided, system vulnerability.reopened, "+
			"per_1 vulnerability.decided, system vulnerability.reopened, per_1 vulnerability.decided")
		if got := h.checks["rel_1"]; !strings.HasPrefix(got, "pass") {
			t.Errorf("the gate was told %q", got)
		}
	})
}

// TestMergedIntoAnExploitedOne: the name that was decided on turns out to be another name of one that is exploited.
func TestMergedIntoAnExploitedOne(t *testing.T) {
	each(t, func(h *house) {
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0")
		_, err := h.feed("ten_a", xnet("GO-1", "GHSA-1", "0.17.0", ""), xnet("GO-2", "CVE-2023-44487", "0.17.0", ""))
		h.must(err)
		h.exploited()
		h.clock.Advance(time.Hour)
		_, err = h.vuln.Decide(h.Context(), "ten_a", "per_1", "GO-1", harmless)
		h.must(err)
		h.clock.Advance(time.Hour)
		_, err = h.feed("ten_a", strings.Replace(xnet("GO-1", "GHSA-1", "0.17.0", ""), `["GHSA-1"]`, `["GHSA-1","CVE-2023-44487"]`, 1))
		h.must(err)
		h.want("one vulnerability now", h.status("rel_1", "GO-1"), "undecided, earlier exploited not_affected")
	})
}

func TestADateThatPassesAsksAgain(t *testing.T) {
	each(t, func(h *house) {
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0")
		_, err := h.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", ""))
		h.must(err)
		h.exploited()
		for _, bad := range []time.Time{h.clock.Now(), h.clock.Now().Add(-time.Second)} {
			in := harmless
			in.Expires = bad
			if _, err := h.vuln.Decide(h.Context(), "ten_a", "per_1", "GO-1", in); !problem.Is(err, problem.KindInvalid) {
				t.Errorf("expires at %s: %v", bad, err)
			}
		}
		in := harmless
		in.Expires = h.clock.Now().Add(30 * 24 * time.Hour)
		h.decide(in)
		h.clock.Set(in.Expires.Add(-time.Millisecond))
		h.run()
		h.want("the last instant", h.status("rel_1", "GO-1"), "not_affected")
		h.want("the gate", h.checks["rel_1"][:4], "pass")
		h.clock.Set(in.Expires)
		h.want("the date", h.status("rel_1", "GO-1"), "undecided, earlier expired not_affected")
		h.run()
		h.want("the gate, told by the job", h.checks["rel_1"][:4], "fail")
		h.want("the log", h.leaves("prd_lamp", "vulnerability."), "per_1 vulnerability.decided, system vulnerability.reopened")
		h.want("as of before", h.affected("ten_a", "GO-1", in.Expires.Add(-time.Millisecond)), "0:")
	})
}

func TestAnotherVersionIsProposed(t *testing.T) {
	each(t, func(h *house) {
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0")
		_, err := h.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", ""))
		h.must(err)
		h.decide(harmless)
		h.clock.Advance(time.Hour)
		h.release("ten_a", "rel_2", "prd_lamp", "1.1.0", "golang.org/x/net@v0.11.0")
		h.want("another version", h.status("rel_2", "GO-1"), "undecided, earlier component not_affected")
		h.release("ten_a", "rel_3", "prd_meter", "1.0.0", "golang.org/x/net@v0.10.0")
		h.want("another product", h.status("rel_3", "GO-1"), "undecided")

		h.decide(Deciding{Product: "prd_lamp", Release: "rel_2", Status: Fixed, Evidence: "Patch 7."})
		h.release("ten_a", "rel_4", "prd_lamp", "1.2.0", "golang.org/x/net@v0.11.0")
		h.want("decided for another release only", h.status("rel_4", "GO-1"), "undecided, earlier release fixed")
	})
}

func TestClosedByAFixedVersion(t *testing.T) {
	each(t, func(h *house) {
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0", "golang.org/x/text@v0.9.0")
		_, err := h.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", ""))
		h.must(err)
		h.clock.Advance(time.Hour)
		h.release("ten_a", "rel_2", "prd_lamp", "1.1.0", "golang.org/x/net@v0.17.0", "golang.org/x/text@v0.9.0")
		h.release("ten_a", "rel_3", "prd_lamp", "1.2.0", "golang.org/x/net@v0.18.0", "golang.org/x/text@v0.9.0")
		h.release("ten_a", "rel_4", "prd_lamp", "1.3.0", "golang.org/x/text@v0.9.0")
		rows, err := h.db.Query(h.Context(), `SELECT release_id, ident, fixed FROM vuln_closed ORDER BY release_id`)
		got, err := store.Collect(rows, err, func(r *sql.Rows) (string, error) {
			var release, ident, fixed string
			err := r.Scan(&release, &ident, &fixed)
			return release + " " + ident + " " + fixed, err
		})
		h.must(err)
		h.want("the log", h.leaves("rel_2", "vulnerability."), "system vulnerability.closed")
		h.want("closed", strings.Join(got, ", "), "rel_2 CVE-2023-44487 0.17.0")
	})
}

// TestTwoPeopleDecideAtOnce: both decisions stay, and whoever says what was seen is told of the other.
func TestTwoPeopleDecideAtOnce(t *testing.T) {
	each(t, func(h *house) {
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0")
		_, err := h.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", ""))
		h.must(err)
		const people = 8
		var work sync.WaitGroup
		for n := range people {
			work.Go(func() {
				in := harmless
				in.Evidence = fmt.Sprint("review ", n)
				if _, err := h.vuln.Decide(h.Context(), "ten_a", fmt.Sprint("per_", n), "GO-1", in); err != nil {
					t.Error(err)
				}
			})
		}
		work.Wait()
		d, err := h.vuln.Get(h.Context(), "ten_a", "GO-1")
		h.must(err)
		if len(d.Decisions) != people {
			t.Errorf("%d of %d decisions are there", len(d.Decisions), people)
		}

		h.clock.Advance(time.Hour)
		var told, made sync.Map
		newest := d.Decisions[people-1].ID
		for n := range people {
			work.Go(func() {
				in := harmless
				in.Seen = &newest
				list, err := h.vuln.Decide(h.Context(), "ten_a", fmt.Sprint("per_", n), "GO-1", in)
				if problem.Is(err, problem.KindConflict) {
					told.Store(n, err)
				} else if err != nil {
					t.Error(err)
				} else {
					made.Store(n, list)
				}
			})
		}
		work.Wait()
		count := func(m *sync.Map) (n int) {
			m.Range(func(any, any) bool { n++; return true })
			return n
		}
		if count(&made) != 1 || count(&told) != people-1 {
			t.Errorf("%d decided past what they had seen, %d were told", count(&made), count(&told))
		}
	})
}
