// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/notify"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// killContacts are told by the process that is killed.
const killContacts = 6

// TestKillChild is the process that is killed: it delivers what is due, and dies as it is told: after the mail was handed
// over and before that is on record, or after that.
func TestKillChild(t *testing.T) {
	url := os.Getenv("INFORM_CHILD_DATABASE")
	if url == "" {
		return // not a test of its own
	}
	at, err := time.Parse(time.RFC3339, os.Getenv("INFORM_CHILD_NOW"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := notify.NewMailer("smtp://"+os.Getenv("INFORM_CHILD_MAIL"), "", "ot@maker.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	die := func(where string) {
		if os.Getenv("INFORM_CHILD_DIES") == where {
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			select {} // until it arrives
		}
	}
	h := openWith(t, url, os.Getenv("INFORM_CHILD_DIR"), clock.NewHand(at), m)
	h.jobs() // what was announced
	die("announced")
	for {
		ds, err := h.claim(t.Context())
		h.must(err)
		if len(ds) == 0 {
			break
		}
		die("claimed")
		for _, d := range ds {
			answer, err := h.attempt(t.Context(), &d)
			h.must(err)
			die("handed")
			d.settle(h.now(), answer, nil)
			h.must(h.db.Write(t.Context(), func(tx *store.Tx) error { return putAttempt(tx, d) }))
			die("settled")
		}
	}
	h.must(h.finishAll(t.Context()))
	fmt.Println("finished")
}

// TestKillNineBetweenMailAndRow kills the process between any two effects of making and delivering a notice. At the end there
// is one campaign and one delivery for each contact; a mail that came twice has the same Message-ID.
func TestKillNineBetweenMailAndRow(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		dir, now := t.TempDir(), saturday
		hand := clock.NewHand(now)
		h := openHouse(t, url, dir, hand)
		h.office.NoTLS = true // a server of this machine
		for i := range killContacts {
			h.person(fmt.Sprint("P", i), "customer", "en")
		}
		h.must(h.db.Write(t.Context(), func(tx *store.Tx) error {
			return h.db.Emit(tx, product.EventNotice, maker, "coh_1", product.Notice{Tenant: maker, Product: h.product, Revision: h.revision, Cohort: "coh_1", Kind: product.NoticeScheduled, Months: 3, Step: 3, End: "2027-02"})
		}))
		kills, finished := 0, false
		for _, dies := range []string{"announced", "claimed", "handed", "settled", "handed", "settled", "", ""} {
			now = now.Add(2 * claimFor) // what a killed process had taken is free again then
			finished = killedChild(t, url, dir, h.office.Addr, now, dies)
			if dies != "" {
				kills++
				if finished {
					t.Fatalf("the process did not die at %q", dies)
				}
			}
		}
		if !finished || kills != 6 {
			t.Fatalf("finished %v after %d kills", finished, kills)
		}
		hand.Set(now)
		cs, err := h.Campaigns(ann, "", "", 10)
		h.must(err)
		if len(cs) != 1 || h.leaves(TopicSent) != 1 {
			t.Fatalf("%d campaigns, %d leaves", len(cs), h.leaves(TopicSent))
		}
		p := h.proof(cs[0].ID)
		if p.Recipients != killContacts || p.States[string(Handed)] != killContacts || p.Campaign.Finished.IsZero() {
			t.Errorf("states %v of %d", p.States, p.Recipients)
		}
		ids := map[string]string{}
		mails := h.mails()
		for _, m := range mails {
			id := m.Message.Header.Get("Message-ID")
			if to, known := ids[id]; known && to != m.To {
				t.Errorf("%s went to %s and %s", id, to, m.To)
			}
			ids[id] = m.To
		}
		if len(ids) != killContacts || len(mails) != killContacts+2 {
			t.Errorf("%d mails of %d ids; two died between the mail and its row", len(mails), len(ids))
		}
	})
}

func killedChild(t *testing.T, url, dir, office string, now time.Time, dies string) (finished bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKillChild$")
	cmd.Env = append(os.Environ(), "INFORM_CHILD_DATABASE="+url, "INFORM_CHILD_DIR="+dir, "INFORM_CHILD_MAIL="+office, "INFORM_CHILD_NOW="+now.Format(time.RFC3339), "INFORM_CHILD_DIES="+dies,
		"TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if finished = finished || lines.Text() == "finished"; !finished {
			t.Log(lines.Text())
		}
	}
	if err := cmd.Wait(); err != nil && dies == "" {
		t.Fatalf("the process failed by itself: %v", err)
	}
	return finished
}
