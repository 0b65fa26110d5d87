// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/ProtonMail/go-crypto/openpgp"
	pgparmor "github.com/ProtonMail/go-crypto/openpgp/armor"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
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
		if name, err := h.Name(t.Context(), maker, got.ID); err != nil || name != "report of 2026-11-21 12:00" {
			t.Errorf("it is called %q, %v", name, err)
		}
		if _, err := h.Name(t.Context(), "ten_other", got.ID); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant learns when it came: %v", err)
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

// toAge encrypts to the key that the maker publishes, as a finder would.
func (h *house) toAge(plain string) string {
	h.t.Helper()
	recipient, err := h.Recipient(h.t.Context(), maker)
	h.must(err)
	to, err := age.ParseX25519Recipient(recipient)
	h.must(err)
	var b bytes.Buffer
	a := armor.NewWriter(&b)
	w, err := age.Encrypt(a, to)
	h.must(err)
	_, err = w.Write([]byte(plain))
	h.must(errors.Join(err, w.Close(), a.Close()))
	return b.String()
}

// toPGP encrypts to the published OpenPGP key.
func (h *house) toPGP(plain string) string {
	h.t.Helper()
	k, err := h.pgp.Signer(h.t.Context(), maker, "system", "Acme Ltd")
	h.must(err)
	ring, err := openpgp.ReadArmoredKeyRing(strings.NewReader(k.Public))
	h.must(err)
	var b bytes.Buffer
	a, err := pgparmor.Encode(&b, "PGP MESSAGE", nil)
	h.must(err)
	w, err := openpgp.Encrypt(a, ring, nil, nil, nil)
	h.must(err)
	_, err = w.Write([]byte(plain))
	h.must(errors.Join(err, w.Close(), a.Close()))
	return b.String()
}

// leaves counts what the log holds of a kind about a subject.
func (h *house) leaves(kind, subject string) (n int) {
	h.t.Helper()
	h.must(h.db.QueryRow(h.t.Context(), `SELECT count(*) FROM audit_entry WHERE kind = $1 AND subject = $2`, kind, subject).Scan(&n))
	return n
}

// TestEncryptedReportsRoundTrip: what a finder encrypts to the published keys is ciphertext until a person opens it; that
// it was read is on record.
func TestEncryptedReportsRoundTrip(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		for kind, encrypt := range map[string]func(string) string{"age": h.toAge, "pgp": h.toPGP} {
			got := h.sent(Intake{Sending: Sending{Words: Words{Text: encrypt("overflow in " + kind)}, Files: []Upload{{Name: "poc.asc", Body: []byte(encrypt("the file"))}}}})
			r := h.seen(ann, got.ID)
			if r.Cipher != kind {
				t.Errorf("%s is taken for %q", kind, r.Cipher)
			}
			read, err := h.Open(ann, got.ID)
			h.must(err)
			if len(read.Sent) != 1 || read.Sent[0].Decrypted != "overflow in "+kind || read.Sent[0].Problem != "" {
				t.Errorf("%s: %+v", kind, read)
			}
			file, err := h.Attachment(ann, got.ID, r.Attachments[0].ID, true)
			h.must(err)
			raw, err := h.Attachment(ann, got.ID, r.Attachments[0].ID, false)
			h.must(err)
			if string(file) != "the file" || sniff(raw) != kind {
				t.Errorf("%s: file %q", kind, file)
			}
			if n := h.leaves("report.read", got.ID); n != 3 {
				t.Errorf("%d of 3 reads are on record", n)
			}
			if _, err := h.Open(robot, got.ID); problem.Of(err).Rule != "disclosure.person-only" {
				t.Errorf("a program reads: %v", err)
			}
			if n := h.leaves("report.read", got.ID); n != 3 {
				t.Error("a refused read is on record as a read")
			}
		}
		broken := h.sent(Intake{Sending: Sending{Words: Words{Text: strings.Replace(h.toAge("x"), "\n", "\nQUJD\n", 1)}}})
		read, err := h.Open(ann, broken.ID)
		if err != nil || read.Sent[0].Problem == "" || read.Sent[0].Words.Text == "" {
			t.Errorf("a damaged message is not shown as it came: %+v, %v", read, err)
		}
	})
}

// TestNothingOfAFinderLiesInTheClear: neither words nor names nor files are in the database or the blobs.
func TestNothingOfAFinderLiesInTheClear(t *testing.T) {
	h := one(t)
	canary := "canary-7f3a9"
	h.sent(Intake{Sending: Sending{Subject: canary, Words: Words{Text: canary, Product: canary, Where: canary, When: canary, Evidence: canary}, Exploited: "yes", Files: []Upload{{Name: canary, Type: canary, Body: []byte(canary)}}},
		Finder: Finder{Name: canary, Contact: canary, Credit: canary}, Product: h.product})
	for _, table := range []string{"disclosure_report", "disclosure_event", "disclosure_finder", "disclosure_attachment", "audit_entry", "respond_signal", "job"} {
		rows, err := h.db.Query(t.Context(), `SELECT * FROM `+table)
		h.must(err)
		columns, err := rows.Columns()
		h.must(err)
		for rows.Next() {
			cells := make([]any, len(columns))
			for i := range cells {
				cells[i] = new([]byte)
			}
			h.must(rows.Scan(cells...))
			for i, c := range cells {
				if bytes.Contains(*c.(*[]byte), []byte(canary)) {
					t.Errorf("%s.%s holds what the finder wrote", table, columns[i])
				}
			}
		}
		h.must(errors.Join(rows.Err(), rows.Close()))
	}
	h.must(filepath.WalkDir(filepath.Join(h.dir, "blobs"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(canary)) {
			t.Errorf("%s holds an attachment in the clear", path)
		}
		return err
	}))
}

// TestSeenExploitedAsksForAnAssessmentAtOnce: a signal, never a clock; no embargo holds it back.
func TestSeenExploitedAsksForAnAssessmentAtOnce(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		got := h.sent(Intake{Sending: Sending{Exploited: "yes"}, Product: h.product})
		r := h.seen(ann, got.ID)
		sigs, err := h.cfg.Respond.Signals(ann, "", 10)
		h.must(err)
		if len(sigs) != 1 || sigs[0].Ref != got.ID || sigs[0].Exploited != "yes" || !sigs[0].Waiting(h.hand.Now()) || r.Signal != sigs[0].ID || !slices.Contains(r.Sides, Exploited) {
			t.Fatalf("%+v\n%+v", r, sigs)
		}
		cases, err := h.cfg.Respond.Cases(ann, false, "", 10)
		h.must(err)
		if len(cases) != 0 {
			t.Error("a report started a legal clock")
		}
		// Nobody knows the product: the assessment begins all the same, and the desk's answer reaches it.
		unsure := h.seen(ann, h.sent(Intake{Sending: Sending{Exploited: "yes"}}).ID)
		sig, err := h.cfg.Respond.Signal(ann, unsure.Signal)
		h.must(err)
		if sig.Product != "" || !sig.Burning(h.hand.Now()) {
			t.Errorf("%+v", sig)
		}
		h.did(bob, unsure.ID, FinderAdded, "It is the sensor.", Data{Product: h.product})
		sig, err = h.cfg.Respond.Signal(ann, unsure.Signal)
		h.must(err)
		if r := h.seen(ann, unsure.ID); r.Signal != sig.ID || sig.Product != h.product || h.leaves("signal.attributed", sig.ID) != 1 {
			t.Errorf("%+v\n%+v", r, sig)
		}
		// Under an embargo, and said only later, behind the status link.
		later := h.sent(Intake{Product: h.product})
		h.did(ann, later.ID, EmbargoSet, "Acme, CERT", Data{Due: h.hand.Now().Add(10 * day)})
		_, secret, _ := strings.Cut(later.Status, "/status/")
		_, err = h.addition(t.Context(), maker, secret, Sending{Words: Words{Text: "now seen"}, Exploited: "yes"})
		h.must(err)
		if r := h.seen(ann, later.ID); r.Signal == "" {
			t.Error("an embargo held the signal back")
		}
	})
}

// TestAnEmbargoHasItsOwnList: who is not on it, whatever their role, sees that a report exists and no word of it.
func TestAnEmbargoHasItsOwnList(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		got := h.sent(Intake{Sending: Sending{Subject: "secret subject"}, Product: h.product})
		h.did(ann, got.ID, EmbargoSet, "Acme, CERT", Data{Due: h.hand.Now().Add(10 * day), People: []string{"per_bob"}})
		for _, who := range []struct {
			name string
			ctx  context.Context
			may  bool
		}{{"ann", ann, true}, {"bob", bob, true}, {"owner", owner, false}} {
			r := h.seen(who.ctx, got.ID)
			_, readErr := h.Open(who.ctx, got.ID)
			if r.Withheld == who.may || (readErr == nil) != who.may {
				t.Errorf("%s: withheld %v, open %v", who.name, r.Withheld, readErr)
			}
			if !who.may && (r.Subject != "" || r.Product != "" || len(r.Events) > 0 || r.Embargo.People != nil || r.ID == "" || len(r.Timers) == 0) {
				t.Errorf("%s sees %+v", who.name, r)
			}
		}
		if _, err := h.Append(owner, got.ID, EmbargoSet, "me", Data{Due: h.hand.Now().Add(10 * day)}); problem.Of(err).Rule != "disclosure.embargo" {
			t.Errorf("an owner put themselves on the list: %v", err)
		}
		if _, err := h.Append(owner, got.ID, EmbargoEnded, "me", Data{}); problem.Of(err).Rule != "disclosure.embargo" {
			t.Errorf("an owner ended it: %v", err)
		}
		if n := h.leaves("embargo.set", got.ID); n != 1 {
			t.Errorf("%d leaves of the embargo", n)
		}
		h.hand.Set(h.hand.Now().Add(10 * day))
		if r := h.seen(owner, got.ID); r.Withheld {
			t.Error("an embargo outlives its end")
		}
	})
}

// TestErasingTheFinderLeavesTheReport: the identity is gone for ever, what was reported stays, and the log still proves it.
func TestErasingTheFinderLeavesTheReport(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		got := h.sent(Intake{Finder: Finder{Name: "Eve", Credit: "Eve"}, Product: h.product})
		digest := func() (d string) {
			var f file
			h.must(h.db.View(t.Context(), func(tx *store.Tx) (err error) { f, err = fileBy(tx, maker, "id", got.ID); return err }))
			var sealed []byte
			h.must(h.db.View(t.Context(), func(tx *store.Tx) (err error) { sealed, err = finderOf(tx, maker, got.ID); return err }))
			r := f.Rows[0]
			_, err := r.stamp(got.ID, sealed)
			h.must(err)
			if r.digest != f.Rows[0].digest {
				t.Errorf("the record is not what its digest says")
			}
			return r.digest
		}
		before := digest()
		h.did(ann, got.ID, FinderErased, "asked for by mail", Data{})
		if after := digest(); after != before {
			t.Error("erasing changed the record")
		}
		read, err := h.Open(ann, got.ID)
		h.must(err)
		if read.Finder != nil || read.Sent[0].Words.Text == "" || h.seen(ann, got.ID).Erased.IsZero() {
			t.Errorf("%+v", read)
		}
		if _, err := h.cfg.Keys.Subject(t.Context(), h.db, maker, finderKey(got.ID)); !errors.Is(err, seal.ErrDestroyed) {
			t.Errorf("the key still exists: %v", err)
		}
		if list, err := h.thanks(t.Context(), maker); err != nil || len(list) != 0 {
			t.Errorf("%v, %v", list, err)
		}
	})
}

// TestStrangersWriteOneLeafAnHour: however much they send, and it names everything.
func TestStrangersWriteOneLeafAnHour(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		for range 5 {
			h.sent(Intake{})
		}
		if n := h.leaves("reports.received", maker); n != 0 {
			t.Errorf("%d leaves before the hour is over", n)
		}
		h.hand.Set(h.hand.Now().Add(time.Hour))
		go h.db.RunJobs(ctx) //nolint:errcheck // ends with the test
		for waiting := 1; waiting > 0; {
			h.must(h.db.QueryRow(t.Context(), `SELECT count(*) FROM job WHERE kind = $1`, jobLog).Scan(&waiting))
		}
		var open int
		h.must(h.db.QueryRow(t.Context(), `SELECT count(*) FROM disclosure_event WHERE logged = 0`).Scan(&open))
		if n := h.leaves("reports.received", maker); n != 1 || open != 0 {
			t.Errorf("%d leaves, %d events in none", n, open)
		}
	})
}

// TestEscalationsAreWrittenOnce: each promise rings before its end and at it, once, however often the job runs.
func TestEscalationsAreWrittenOnce(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		rung := make(chan Escalation, 100)
		h.db.On(TopicDeadline, "test", func(_ context.Context, e store.Event) error {
			var x Escalation
			err := e.Decode(&x)
			rung <- x
			return err
		})
		got := h.sent(Intake{Product: h.product})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go h.db.RunJobs(ctx) //nolint:errcheck // ends with the test
		want := []Escalation{
			{TimerAcknowledge, DeadlineSoon, at(t, "2026-11-24T16:00:00Z").UnixMilli()}, {TimerAcknowledge, DeadlineOverdue, at(t, "2026-11-25T00:00:00Z").UnixMilli()},
			{TimerTriage, DeadlineSoon, at(t, "2026-11-27T12:00:00Z").UnixMilli()}, {TimerTriage, DeadlineOverdue, at(t, "2026-11-28T12:00:00Z").UnixMilli()},
		}
		for _, w := range want {
			h.hand.Set(time.UnixMilli(w.At))
			if x := <-rung; x != w {
				t.Fatalf("rang %+v, want %+v", x, w)
			}
		}
		for _, w := range want { // a second run of the same job, as after a crash
			h.must(h.db.Write(t.Context(), func(tx *store.Tx) error {
				return h.db.Enqueue(tx, jobEscalate, "", h.hand.Now(), reminder{maker, got.ID, w})
			}))
		}
		h.must(h.db.Write(t.Context(), func(tx *store.Tx) error { return h.db.Emit(tx, TopicDeadline, maker, got.ID, Escalation{Timer: "end"}) }))
		if x := <-rung; x.Timer != "end" {
			t.Errorf("rang again: %+v", x)
		}
		n := 0
		for _, e := range h.seen(ann, got.ID).Events {
			if e.By == ByPlatform {
				n++
			}
		}
		if n != len(want) {
			t.Errorf("%d escalations on record, want %d", n, len(want))
		}
	})
}
