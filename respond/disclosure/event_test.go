// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/openthings-platform/openthings/respond/pgp"
)

func TestWorkingDays(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, want string
		zone       *time.Location
	}{
		{"2026-11-20T15:00:00Z", "2026-11-24T15:00:00Z", time.UTC}, // Friday to Tuesday
		{"2026-11-21T12:00:00Z", "2026-11-25T00:00:00Z", time.UTC}, // what comes on Saturday counts from Monday
		{"2026-11-23T09:00:00Z", "2026-11-25T09:00:00Z", time.UTC},
		{"2026-11-22T23:30:00Z", "2026-11-24T23:30:00Z", berlin},   // Monday already in Berlin
		{"2026-03-27T10:00:00Z", "2026-03-31T09:00:00Z", berlin},   // the clock goes forward in between; the wall says 11 both days
		{"2026-12-24T10:00:00Z", "2026-12-28T10:00:00Z", time.UTC}, // holidays loosen nothing
	} {
		if got := workingDays(at(t, c.from), 2, c.zone); !got.Equal(at(t, c.want)) {
			t.Errorf("two working days after %s in %s: %s, want %s", c.from, c.zone, got.Format(time.RFC3339), c.want)
		}
	}
}

// TestReportsHoldTheirRules: over random attempts to append anything, what Check lets in keeps the promises of the room.
func TestReportsHoldTheirRules(t *testing.T) {
	kinds := []EventKind{FinderAdded, ReportAck, ReportTriaged, ReportConfirmed, RemediationBegun, FixReady, ReportPublished, ReportClosed, FinderTold, SignalOpened,
		EmbargoSet, EmbargoEnded, UpstreamOpened, UpstreamClosed, DisputeOpened, DisputeSettled, DateMoved, FinderErased, DeadlineSoon, DeadlineOverdue}
	rapid.Check(t, func(t *rapid.T) {
		now := saturday
		es := []Event{{Seq: 1, Kind: ReportReceived, Recorded: now, By: ByFinder, Actor: "finder", Data: Data{At: now, Channel: "form", Exploited: rapid.SampledFrom([]string{"yes", "no", "unknown"}).Draw(t, "exploited"), Promise: &DefaultPromise}}}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(20*day)).Draw(t, "later")))
			s := Fold(es)
			e := Event{Seq: s.Events + 1, Kind: rapid.SampledFrom(kinds).Draw(t, "kind"), Recorded: now, By: rapid.SampledFrom([]Author{ByPerson, ByFinder, ByPlatform}).Draw(t, "by"),
				Actor: "per_ann", Note: rapid.SampledFrom([]string{"", "said"}).Draw(t, "note"), Data: Data{
					At: rapid.SampledFrom([]time.Time{{}, now, now.Add(time.Hour)}).Draw(t, "at"), Verdict: rapid.SampledFrom([]Verdict{"", Valid, Duplicate, OutOfScope}).Draw(t, "verdict"),
					Of: rapid.SampledFrom([]string{"", "rpt_2"}).Draw(t, "of"), Product: rapid.SampledFrom([]string{"", "prd_1"}).Draw(t, "product"), URL: "https://x.example/a",
					Due: now.Add(rapid.SampledFrom([]time.Duration{-day, day, 400 * day}).Draw(t, "due")), People: []string{"per_ann"}, Component: "pkg:x", Task: rapid.Int64Range(1, 20).Draw(t, "task"), Signal: "sig_1"}}
			if esc := Escalations(s); len(esc) > 0 && (e.Kind == DeadlineSoon || e.Kind == DeadlineOverdue) {
				x := rapid.SampledFrom(esc).Draw(t, "escalation")
				e.Data.Timer, e.Data.Due = x.Timer, time.UnixMilli(x.At)
			}
			if Check(s, e, now) != nil {
				continue
			}
			es = append(es, e)
			next := Fold(es)
			switch {
			case e.Kind == ReportReceived || e.Data.At.After(now):
				t.Fatalf("%+v", e)
			case e.By != ByPerson && !slices.Contains(authors[e.Kind], e.By):
				t.Fatalf("a %s wrote %s", e.By, e.Kind)
			case e.Kind == ReportPublished && s.Embargoed(now):
				t.Fatal("published under an embargo")
			case e.Kind == UpstreamClosed && e.Note == "":
				t.Fatal("a task without evidence is closed")
			case next.Status == Closed && (next.Triaged.IsZero() || next.Disputed || next.Verdict == Valid && next.Published.IsZero() || slices.Contains(next.Sides(now), UpstreamPending)) && s.Status != Closed:
				t.Fatalf("closed too early: %+v", next)
			case next.Received != s.Received || !s.Acknowledged.IsZero() && next.Acknowledged != s.Acknowledged || !s.Triaged.IsZero() && next.Triaged != s.Triaged:
				t.Fatal("a later event moved what a timer was met by")
			case s.Exploited == "yes" && next.Exploited != "yes":
				t.Fatal("an exploited report became one that is not")
			}
			if e.Kind == DeadlineSoon || e.Kind == DeadlineOverdue {
				if Check(next, e, now) == nil {
					t.Fatal("an escalation is let in twice")
				}
			}
		}
	})
}

func TestFigures(t *testing.T) {
	var all []State
	for i := range 10 {
		all = append(all, Fold([]Event{
			{Seq: 1, Kind: ReportReceived, Recorded: saturday, Data: Data{At: saturday, Promise: &DefaultPromise, Exploited: "no"}},
			{Seq: 2, Kind: ReportAck, Recorded: saturday.Add(time.Duration(i+1) * 12 * time.Hour)},
		}))
	}
	m := Measured(2026, all)
	if m.Reports != 10 || m.Open != 10 || m.Acknowledge.Count != 10 || m.Acknowledge.Median != 60 || m.Acknowledge.P90 != 108 || m.Acknowledge.InTime != 7 || m.Triage.Count != 0 {
		t.Errorf("%+v", m)
	}
	if one := Measured(2026, all[:1]).Acknowledge; one.Median != 12 || one.P90 != 12 {
		t.Errorf("%+v", one)
	}
}

// TestPolicyIsWholeInEachLanguage: every element of a policy exists in every language, with its numbers filled in.
func TestPolicyIsWholeInEachLanguage(t *testing.T) {
	want := []string{"scope", "channels", "languages", "send", "anonymous", "harbour", "times", "disclosure", "exploited", "credit", "bounty", "parties", "cve", "upstream", "advisories", "after", "metrics"}
	for _, lang := range append(slices.Clone(PolicyLanguages), "xx") {
		sections, err := DefaultPolicy().Sections(lang, "Acme Ltd")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range sections {
			got = append(got, s.ID)
			if s.Title == "" || s.Text == "" || strings.Contains(s.Text, "<no value>") || strings.Contains(s.Text, "{{") {
				t.Errorf("%s %s: %q", lang, s.ID, s.Text)
			}
			if strings.Contains(strings.ToLower(s.Text), "presum") {
				t.Errorf("%s %s claims a presumption", lang, s.ID)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v", lang, got)
		}
	}
}

// FuzzOpen: bytes of strangers that claim to be encrypted are opened or refused, never more.
func FuzzOpen(f *testing.F) {
	for _, s := range []string{"", "plain", ageBegin, ageBegin + "\n", ageFirst, ageFirst + "-> X25519 a\n", pgpBegin, pgpBegin + "\n\nAAAA\n-----END PGP MESSAGE-----", "\ufeff \n" + pgpBegin, "\x85\x01\x0c\x03", "\xc1\x0c\x03", "\x84\x0c\x06AAAA", "\xc1\xff\x00\x00\x01\x0c\x03",
		ageBegin + "\nYWdlLWVuY3J5cHRpb24ub3JnL3YxCg==\n-----END AGE ENCRYPTED FILE-----\n"} {
		f.Add([]byte(s))
	}
	h := one(f)
	if _, err := h.Recipient(f.Context(), maker); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		kind := sniff(b)
		out, err := h.decrypt(t.Context(), maker, b, decryptedText)
		if kind == "" && err == nil {
			t.Fatalf("%q was opened as nothing", b)
		}
		if err == nil && len(out) > decryptedText || err != nil && len(out) > 0 {
			t.Fatalf("%d bytes with %v", len(out), err)
		}
		if kind != "" && !bytes.HasPrefix(bytes.TrimLeft(b, blank), []byte("-----BEGIN")) && !bytes.HasPrefix(bytes.TrimLeft(b, blank), []byte("age-")) && !pgp.Binary(bytes.TrimLeft(b, blank)) {
			t.Fatalf("%q is taken for %s", b, kind)
		}
	})
}
