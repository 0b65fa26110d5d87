// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// refuseFor lets the mail server refuse recipients whose address holds a text.
func (h *house) refuseFor(who, answer string) {
	h.office.Refuse = func(verb, rest string) string {
		if verb == "RCPT" && strings.Contains(rest, who) {
			return answer
		}
		return ""
	}
}

// TestRefusedAndTriedAgain: what the server refuses for good is on record as failed with its words, what it refuses for now
// is tried again under the same id, and what failed can be tried again once it is repaired.
func TestRefusedAndTriedAgain(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		h.person("Anna", "customer", "en")
		h.person("Bruno", "customer", "en")
		h.office.Refuse = func(verb, rest string) string {
			switch {
			case verb == "RCPT" && strings.Contains(rest, "anna@"):
				return "550 5.1.1 <anna@buyer.example> is nobody"
			case verb == "RCPT":
				return "451 4.7.1 come back later"
			}
			return ""
		}
		finished := h.record(TopicFinished)
		c := h.told(h.words())
		h.pass()
		p := h.proof(c.ID)
		if p.States[string(Failed)] != 1 || p.States[string(Waiting)] != 1 {
			t.Fatalf("states %v", p.States)
		}
		for _, d := range p.Deliveries {
			switch {
			case d.State == Failed && !strings.Contains(d.Answer, "<(address)> is nobody"):
				t.Errorf("failed with %q", d.Answer)
			case d.State == Waiting && (!strings.Contains(d.Answer, "451") || !d.Next.After(saturday)):
				t.Errorf("waiting with %+v", d)
			}
		}
		h.refuseFor("anna@", "550 nobody")
		h.hand.Advance(time.Minute)
		h.pass()
		h.jobs()
		mails := h.mails()
		if len(mails) != 1 || len(*finished) != 1 || !strings.Contains(string((*finished)[0].Data), `"failed":1`) {
			t.Fatalf("%d mails, told %v", len(mails), *finished)
		}
		_, err := h.Retry(signedIn("per_aud", maker, "auditor"), c.ID)
		h.refused(err, problem.KindForbidden, "access.case.declare")
		h.refuseFor("nobody", "")
		n, err := h.Retry(ann, c.ID)
		if err != nil || n != 1 {
			t.Fatal(n, err)
		}
		h.pass()
		if m := h.mails(); len(m) != 1 || !strings.Contains(m[0].To, "anna@") || h.proof(c.ID).States[string(Handed)] != 2 {
			t.Errorf("mails %v, states %v", m, h.proof(c.ID).States)
		}
	})
}

// TestServerDown: while the mail server takes nothing, mails wait without using up their attempts, and webhooks go on.
func TestServerDown(t *testing.T) {
	h := alone(t)
	for _, name := range []string{"Anna", "Bruno", "Carl"} {
		h.person(name, "customer", "en")
	}
	r, _ := h.hook()
	h.office.Close()
	c := h.told(h.words())
	h.pass()
	attempts := int64(0)
	for _, d := range h.proof(c.ID).Deliveries {
		if d.Channel == Mail {
			attempts += d.Attempts
		}
	}
	if attempts != 1 || len(r.bodies) != 1 {
		t.Errorf("%d attempts, %d webhooks", attempts, len(r.bodies))
	}
}

// TestGoneReceiver: a webhook that wants nothing any more fails at once; one that is busy is asked again under the same id.
func TestGoneReceiver(t *testing.T) {
	h := alone(t)
	r, _ := h.hook()
	r.answer = http.StatusServiceUnavailable
	c := h.told(h.words())
	h.pass()
	h.hand.Advance(time.Minute)
	r.answer = http.StatusGone
	h.pass()
	d := h.proof(c.ID).Deliveries[0]
	if d.State != Failed || d.Answer != "410 Gone" || d.Attempts != 2 || len(r.seen) != 1 || r.seen[d.ID] != 2 {
		t.Errorf("%+v, seen %v", d, r.seen)
	}
}

// TestBounced: a person or a program records that a mail came back; it is on record once, with a leaf.
func TestBounced(t *testing.T) {
	h := alone(t)
	h.person("Anna", "customer", "en")
	c := h.told(h.words())
	d := h.proof(c.ID).Deliveries[0]
	_, err := h.Bounce(robot, c.ID, d.ID, "user unknown")
	h.refused(err, problem.KindConflict, "") // it was not handed over yet
	h.pass()
	d, err = h.Bounce(robot, c.ID, d.ID, "user unknown")
	h.must(err)
	if d.State != Bounced || d.Reason != "user unknown" || h.leaves("delivery.bounced") != 1 {
		t.Errorf("%+v", d)
	}
	_, err = h.Bounce(ann, c.ID, d.ID, "again")
	h.refused(err, problem.KindConflict, "")
	_, err = h.Bounce(ann, h.told(h.words()).ID, d.ID, "of another campaign")
	h.refused(err, problem.KindNotFound, "")
}

// TestReadOnlyByTheButton: whoever opens the link, such as a program that looks at mails, has said nothing; the button says it
// once. A link that nobody made leads nowhere, and who tries many is slowed down.
func TestReadOnlyByTheButton(t *testing.T) {
	h := alone(t)
	h.person("Anna", "customer", "de")
	c := h.told(h.words())
	h.pass()
	body := h.mails()[0].Body
	_, link, ok := strings.Cut(strings.ReplaceAll(body, "\r\n", "\n"), here+"/told/")
	link, _, _ = strings.Cut(link, "\n")
	if !ok {
		t.Fatal(body)
	}
	behind := func(code string) (Delivery, error) {
		r := httptest.NewRequest("GET", "/told/x", nil)
		r.SetPathValue("code", code)
		return h.behind(r)
	}
	d, err := behind(link)
	if err != nil || h.proof(c.ID).States[string(Read)] != 0 {
		t.Fatalf("%+v, %v", d, err)
	}
	h.must(h.read(t.Context(), d.tenant, d.ID))
	first := h.hand.Now()
	h.hand.Advance(time.Hour)
	h.must(h.read(t.Context(), d.tenant, d.ID))
	if got := h.proof(c.ID).Deliveries[0]; got.State != Read || !got.Read.Equal(first) {
		t.Errorf("%+v", got)
	}
	limited := 0
	for range 2 * missesBurst {
		_, err := behind(d.ID + ".AAAAAAAAAAAAAAAAAAAAAA")
		if problem.Is(err, problem.KindLimited) {
			limited++
		} else if !problem.Is(err, problem.KindNotFound) {
			t.Fatal(err)
		}
	}
	if limited != missesBurst {
		t.Errorf("%d of %d guesses were slowed down", limited, 2*missesBurst)
	}
	if _, err := behind(link); err != nil {
		t.Error("who has the link is kept out:", err)
	}
}

// TestTurns: a campaign with many recipients does not keep a smaller one waiting until it is done.
func TestTurns(t *testing.T) {
	h := alone(t)
	for i := range 3 * batch {
		h.person("P"+strings.Repeat("x", i+1), "customer", "en")
	}
	large := h.told(h.words())
	h.hand.Advance(time.Second)
	small := h.told(h.words())
	served := map[string]int{}
	for range 2 {
		ds, err := h.claim(t.Context())
		h.must(err)
		for _, d := range ds {
			served[d.campaign]++
		}
		h.hand.Advance(time.Second)
	}
	if served[large.ID] != batch || served[small.ID] != batch {
		t.Errorf("served %v", served)
	}
}

func TestWithoutAddress(t *testing.T) {
	for said, want := range map[string]string{"550 <Anna@x.example> unknown": "550 <(address)> unknown", "anna@x.example anna@X.example": "(address) (address)", "250 ok": "250 ok"} {
		if got := without(said, "anna@x.example"); got != want {
			t.Errorf("%q became %q", said, got)
		}
	}
}
