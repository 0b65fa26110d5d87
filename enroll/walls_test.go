// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/wire"
)

// Whoever holds the box of a suspended unit does not resume it with the code on it.
func TestAClaimCodeEndsNoSuspension(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := context.Background()
		st, _ := h.station("B1", 10, 10)
		_, unit := h.unit(st, "S-1")
		h.must(h.identity.Suspend(ctx, ten, unit.Device, owner.ID, "stolen from the lorry"))
		if code, out := h.claim(unit.Claim); code != 409 || h.device("S-1").State != identity.Suspended {
			t.Errorf("claimed: %d %v, it is %s", code, out, h.device("S-1").State)
		}
		h.must(h.identity.Resume(ctx, ten, unit.Device, owner.ID, "found"))
		if code, out := h.claim(unit.Claim); code != 201 {
			t.Errorf("after it was resumed: %d %v", code, out)
		}
	})
}

// A verdict about a clone resumes what was suspended for it, and not what is suspended for another reason or under
// another suspicion.
func TestAVerdictEndsItsOwnSuspension(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := context.Background()
		st, _ := h.station("B1", 10, 10)
		one, unit := h.unit(st, "V-1")
		falseAlarm := func(what string) {
			t.Helper()
			for _, c := range h.clones() {
				if c.What == what {
					_, err := h.enroll.Decide(ctx, ten, c.ID, enroll.CloneFalse, "two labels", owner.ID)
					h.must(err)
				}
			}
		}
		h.must(h.identity.Suspend(ctx, ten, unit.Device, owner.ID, "stolen"))
		h.line(st, wire.LineRequest{Serial: "V-1", CSR: csrPEM(t, newKey(t))})
		h.line(st, wire.LineRequest{Serial: "V-2", CSR: csrPEM(t, one.key)})
		falseAlarm(enroll.CloneKey)
		if d := h.device("V-1"); d.State != identity.Suspended || d.Reason != "stolen" {
			t.Errorf("the stolen unit is %s (%s)", d.State, d.Reason)
		}
		h.must(h.identity.Resume(ctx, ten, unit.Device, owner.ID, "found"))
		h.line(st, wire.LineRequest{Serial: "V-1", CSR: csrPEM(t, newKey(t))})
		h.line(st, wire.LineRequest{Serial: "V-2", CSR: csrPEM(t, one.key)})
		falseAlarm(enroll.CloneKey)
		if d := h.device("V-1"); d.State != identity.Suspended {
			t.Errorf("with another suspicion open it is %s", d.State)
		}
		falseAlarm(enroll.CloneSerial)
		if d := h.device("V-1"); d.State != identity.Provisioned {
			t.Errorf("after the last verdict it is %s", d.State)
		}
	})
}

// Whoever finds a token that has ended cannot have devices suspended by naming their serial numbers.
func TestAnEndedTokenAccusesNobody(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		st, _ := h.station("B1", 10, 10)
		h.unit(st, "A-1")
		_, used := h.token(1, nil)
		if r, body := h.exchangeToken("Bearer "+used, h.named(credential{key: newKey(t)}, "A-2")); r.StatusCode != 200 {
			t.Fatalf("%d %s", r.StatusCode, body)
		}
		_, ended := h.token(5, nil)
		if r, body := h.exchangeToken("Bearer "+ended, h.named(credential{key: newKey(t)}, "A-3")); r.StatusCode != 200 {
			t.Fatalf("%d %s", r.StatusCode, body)
		}
		accuse := func(text, serial string) {
			t.Helper()
			if r, body := h.exchangeToken("Bearer "+text, h.named(credential{key: newKey(t)}, serial)); r.StatusCode != 403 || !strings.Contains(body, enroll.RuleTokenClosed) {
				t.Errorf("%s: %d %s", serial, r.StatusCode, body)
			}
		}
		accuse(used, "A-1")
		h.clock.Advance(2 * time.Hour)
		accuse(ended, "A-1")
		accuse(ended, "A-3")
		if cs := h.clones(); len(cs) != 0 || h.device("A-1").State != identity.Provisioned {
			t.Errorf("suspicions: %+v", cs)
		}
	})
}

// neighbour is another tenant's hardware revision, and how its trusted CAs differ from the first tenant's.
func (h *house) neighbour() func(*enroll.TrustedCA) {
	h.t.Helper()
	ctx := context.Background()
	p, err := h.products.Create(ctx, product.Product{Tenant: "ten_b", Name: "Lamp", Model: "lamp"}, "per_b")
	h.must(err)
	rev, err := h.products.CreateRevision(ctx, product.Revision{Tenant: "ten_b", Product: p.ID, Name: "A", Placed: h.clock.Now(), SupportEnd: h.clock.Now().AddDate(6, 0, 0)}, "per_b")
	h.must(err)
	return func(c *enroll.TrustedCA) {
		c.Tenant, c.Policy.Solution, c.Policy.Mapping.Revision = "ten_b", "", rev.ID
	}
}

// A neighbour who signs a certificate over the key of another's CA, or has many CAs of the same name, keeps none of that
// tenant's devices out.
func TestANeighboursCAsKeepNobodyOut(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		theirs := h.neighbour()
		m, rogue := newMaker(h, "Maker"), newMaker(h, "Rogue")
		cross := rogue.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "Maker"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, &m.key.PublicKey)
		h.trust(rogue, theirs, cross) // all this before the victim comes; rogue is first, so that it is among those looked at
		for range 33 {
			h.trust(newMaker(h, "Maker"), theirs)
		}
		h.trust(m, nil)
		device := m.born("N-1")
		if code, body := h.do(&device, "GET", "/.well-known/est/cacerts", "", ""); code != 200 || h.device("N-1").Tenant != ten {
			t.Errorf("%d %s", code, body)
		}
	})
}

// The hook of one tenant that does not answer holds some of the places in work, and never all.
func TestASlowHookLeavesPlaces(t *testing.T) {
	h := lite(t)
	m := newMaker(h, "Maker")
	h.trust(m, nil)
	var devices []credential
	const places = 16 // a quarter of those in work
	for i := range places + 1 {
		d := m.born(fmt.Sprint("H-", i))
		if code, body := h.do(&d, "GET", "/.well-known/est/cacerts", "", ""); code != 200 {
			t.Fatalf("%d %s", code, body)
		}
		devices = append(devices, d)
	}
	came, answer := make(chan struct{}), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q enroll.Question
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		came <- struct{}{}
		<-answer
		_, text := yes(q)
		w.Write([]byte(text)) //nolint:errcheck // the peer may have gone
	}))
	defer srv.Close()
	if code, out := h.call("POST", "/v1/hooks", map[string]any{"url": srv.URL, "patience_ms": 10_000}); code != 201 {
		t.Fatal(out)
	}
	var wg sync.WaitGroup
	for _, d := range devices[:places] {
		wg.Go(func() {
			if code, body := h.est(&d, "simpleenroll", csrFor(t, newKey(t), nil)); code != 200 {
				t.Errorf("%d %s", code, body)
			}
		})
		<-came
	}
	done := make(chan int, 1)
	go func() {
		code, _ := h.est(&devices[places], "simpleenroll", csrFor(t, newKey(t), nil))
		done <- code
	}()
	select {
	case code := <-done:
		if code != 202 {
			t.Errorf("one more device: %d", code)
		}
	case <-came:
		t.Error("one more device waits for the hook too")
	}
	close(answer)
	wg.Wait()
}

// Newcomers hold no place in work while they wait for a hook, but a connection each: so many of a tenant wait, and the others
// are told when to come back. They keep none from the hook that is known already.
func TestASlowHookBoundsNewcomers(t *testing.T) {
	h := lite(t)
	m := newMaker(h, "Maker")
	h.trust(m, nil)
	_, token := h.token(5, nil)
	known := m.born("K-1")
	if code, body := h.do(&known, "GET", "/.well-known/est/cacerts", "", ""); code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	came, answer := make(chan string), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q enroll.Question
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		select {
		case came <- q.Kind:
			<-answer
		case <-answer:
		}
		_, text := yes(q)
		w.Write([]byte(text)) //nolint:errcheck // the peer may have gone
	}))
	defer srv.Close()
	finish := sync.OnceFunc(func() { close(answer) })
	defer finish()
	if code, out := h.call("POST", "/v1/hooks", map[string]any{"url": srv.URL, "patience_ms": 10_000}); code != 201 {
		t.Fatal(out)
	}
	var wg sync.WaitGroup
	for i := range 16 {
		d := m.born(fmt.Sprint("N-", i))
		wg.Go(func() {
			if code, body := h.do(&d, "GET", "/.well-known/est/cacerts", "", ""); code != 200 {
				t.Errorf("%d %s", code, body)
			}
		})
		<-came
	}
	late := m.born("N-late")
	told := make(chan *http.Response, 2)
	go func() {
		r, _ := h.exchange(&late, "GET", "/.well-known/est/cacerts", "")
		told <- r
		r, _ = h.exchangeToken("Bearer "+token, h.named(credential{key: newKey(t)}, "T-1"))
		told <- r
	}()
	for _, want := range []int{429, 202} { // as the door says it, and as EST does (RFC 7030 4.2.3)
		select {
		case r := <-told:
			if wait, err := strconv.Atoi(r.Header.Get("Retry-After")); r.StatusCode != want || err != nil || wait < 5 || wait > 10 {
				t.Errorf("one more: %d, to come back in %q seconds", r.StatusCode, r.Header.Get("Retry-After"))
			}
		case <-came:
			t.Fatal("one more newcomer waits for the hook too")
		}
	}
	h.absent("N-late")
	wg.Go(func() {
		if code, body := h.est(&known, "simpleenroll", csrFor(t, newKey(t), nil)); code != 200 {
			t.Errorf("a device that is known: %d %s", code, body)
		}
	})
	if kind := <-came; kind != enroll.AskEnrol {
		t.Errorf("asked about %s", kind)
	}
	finish()
	wg.Wait()
	if code, body := h.do(&late, "GET", "/.well-known/est/cacerts", "", ""); code != 200 {
		t.Errorf("later: %d %s", code, body)
	}
}

// However many keys a device asks for, few are remembered.
func TestAskedKeysAreBounded(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		m := newMaker(h, "Maker")
		h.trust(m, nil)
		d := m.born("K-1")
		for range 70 {
			h.clock.Advance(time.Second)
			h.est(&d, "simpleenroll", csrFor(t, newKey(t), nil))
		}
		if n := h.count(`SELECT count(*) FROM asked`); n != 64 {
			t.Errorf("%d keys are remembered", n)
		}
	})
}

// What a station brings beyond any journal that its permit explains takes no room.
func TestAnEndlessJournalIsNotKept(t *testing.T) {
	h := lite(t)
	dir, id := h.offline(h.newBatch("B1", 10), 1, wire.Serials{})
	key := newKey(t)
	for range 106 { // the label is lost again and again
		h.makes(dir, "J-1", key)
	}
	if _, err := h.enroll.Sync(t.Context(), ten, id, h.journal(dir)); ruleOf(err) != enroll.RulePermit {
		t.Error(err)
	}
	if n := h.count(`SELECT count(*) FROM station_journal`); n != 104 {
		t.Errorf("%d entries are kept", n)
	}
}

// interrupted is an issuer that lets something happen while it signs.
type interrupted struct {
	*embedded.Issuer
	during func()
}

// eachInterrupted runs fn on both engines, in a house with such an issuer.
func eachInterrupted(t *testing.T, fn func(t *testing.T, h *house, i *interrupted)) {
	hand := clock.NewHand(time.Now())
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		i := &interrupted{}
		fn(t, newHouseWith(t, db, hand, func(base embedded.Config) (_ identity.Issuer, err error) {
			i.Issuer, err = embedded.Open(base)
			return i, err
		}), i)
	}, func(c *store.Config) { c.Clock = hand })
}

func (i *interrupted) Sign(ctx context.Context, r identity.SignRequest) ([]byte, error) {
	if f := i.during; f != nil {
		i.during = nil
		f()
	}
	return i.Issuer.Sign(ctx, r)
}

// A unit that a station began before it was killed gets no certificate afterwards, even on a node that has not heard of it.
func TestAKilledStationFinishesNothing(t *testing.T) {
	eachInterrupted(t, func(t *testing.T, h *house, i *interrupted) {
		st, id := h.station("B1", 10, 10)
		h.deaf = true
		i.during = func() {
			h.must(h.enroll.KillStation(context.Background(), ten, id, "stolen", enroll.SuspendUnits, owner.ID))
		}
		if code, _, body := h.line(st, wire.LineRequest{Serial: "Z-1", CSR: csrPEM(t, newKey(t))}); code != 403 || !strings.Contains(body, enroll.RuleClosed) {
			t.Errorf("%d %s", code, body)
		}
		if d := h.device("Z-1"); d.State != identity.Manufactured {
			t.Errorf("the unit is %s", d.State)
		}
	})
}

// A unit that a policy let in is nobody's to claim: the code on its box has no use left, and ends no suspension either.
func TestAUnitThatAPolicyLetInIsNotClaimed(t *testing.T) {
	eachInterrupted(t, func(t *testing.T, h *house, i *interrupted) {
		st, _ := h.station("B1", 10, 10)
		born, unit := h.unit(st, "P-1")
		if code, body := h.enrol(born, "simpleenroll", csrFor(t, newKey(t), nil)); code != 202 || len(h.items("/v1/lobby")) != 1 {
			t.Fatalf("it does not wait in the lobby: %d %s", code, body)
		}
		h.policy("auto", map[string]any{"approval": "automatic", "solution": h.solution})
		i.during = func() {
			h.must(h.identity.Suspend(context.Background(), ten, unit.Device, owner.ID, "stolen from the lorry"))
		}
		if code, body := h.enrol(born, "auto/simpleenroll", csrFor(t, newKey(t), nil)); code == 200 {
			t.Fatalf("%d %s", code, body)
		}
		if gs := h.items("/v1/lobby"); len(gs) != 0 {
			t.Errorf("it still waits for a person: %v", gs)
		}
		if code, out := h.claim(unit.Claim); code != 409 || h.device("P-1").State != identity.Suspended {
			t.Errorf("claimed: %d %v, it is %s", code, out, h.device("P-1").State)
		}
		spent := h.count(`SELECT used FROM claim WHERE device = $1`, unit.Device)
		spend := func(at int64) {
			h.write(func(tx *store.Tx) error {
				_, err := tx.Exec(`UPDATE claim SET used = $1 WHERE device = $2`, at, unit.Device)
				return err
			})
		}
		spend(0) // as of units that earlier versions let in
		if code, out := h.claim(unit.Claim); code != 409 || h.device("P-1").State != identity.Suspended {
			t.Errorf("claimed with a code that was never used up: %d %v, it is %s", code, out, h.device("P-1").State)
		}
		spend(spent)
		h.must(h.identity.Resume(context.Background(), ten, unit.Device, owner.ID, "found"))
		h.write(func(tx *store.Tx) error { // its owner gives it back
			return h.identity.SetState(tx, ten, unit.Device, identity.Provisioned, owner.ID, "released")
		})
		if code, out := h.claim(unit.Claim); code != 409 {
			t.Errorf("the last owner claims it again: %d %v", code, out)
		}
	})
}

// Nobody is asked to decide about a unit that was taken out of service for ever.
func TestNobodyWaitsForEver(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		st, _ := h.station("B1", 10, 10)
		born, unit := h.unit(st, "W-1")
		if code, body := h.enrol(born, "simpleenroll", csrFor(t, newKey(t), nil)); code != 202 || len(h.items("/v1/lobby")) != 1 {
			t.Fatalf("%d %s", code, body)
		}
		h.write(func(tx *store.Tx) error {
			return h.identity.SetState(tx, ten, unit.Device, identity.Decommissioned, owner.ID, "crushed")
		})
		if gs := h.items("/v1/lobby"); len(gs) != 0 {
			t.Errorf("it waits: %v", gs)
		}
	})
}

// A unit that was begun before its batch was closed gets no certificate afterwards: the list of what was made is compared
// with the identities once.
func TestAClosedBatchFinishesNothing(t *testing.T) {
	eachInterrupted(t, func(t *testing.T, h *house, i *interrupted) {
		st, _ := h.station("B1", 10, 10)
		h.unit(st, "C-1")
		batch := h.items("/v1/batches")[0]["id"].(string)
		i.during = func() {
			_, err := h.enroll.CloseBatchWith(context.Background(), ten, batch, strings.NewReader("serial\nC-1\nC-missing\n"), owner.ID)
			h.must(err)
		}
		if code, _, body := h.line(st, wire.LineRequest{Serial: "C-2", CSR: csrPEM(t, newKey(t))}); code != 403 || !strings.Contains(body, enroll.RuleClosed) {
			t.Errorf("%d %s", code, body)
		}
		if d := h.device("C-2"); d.State != identity.Manufactured || h.count(`SELECT count(*) FROM made`) != 1 {
			t.Errorf("the unit is %s", d.State)
		}
	})
}

// A station that is killed while the issuer signs its next certificate does not get it.
func TestAKilledStationGetsNoCertificate(t *testing.T) {
	eachInterrupted(t, func(t *testing.T, h *house, i *interrupted) {
		st, id := h.station("B1", 10, 10)
		h.clock.Advance(9 * time.Hour)
		csr, err := identity.ParseCSRPEM(csrPEM(t, newKey(t)))
		h.must(err)
		cert, err := x509.ParseCertificate(st.cert.Certificate[0])
		h.must(err)
		i.during = func() {
			h.must(h.enroll.KillStation(context.Background(), ten, id, "stolen", enroll.KeepUnits, owner.ID))
		}
		// Not through the door: that it cuts the connection would end the request too, but another node hears of the end later.
		if _, err := h.enroll.RenewStation(t.Context(), ten, id, cert, csr); !problem.Is(err, problem.KindForbidden) {
			t.Errorf("%v", err)
		}
		if n := h.count(`SELECT count(*) FROM certificate WHERE subject = '` + id + `' AND phase <> 'revoked'`); n != 0 {
			t.Errorf("%d certificates of the killed station are in service", n)
		}
	})
}

// A device that changes its mind all the time, or asks for challenge after challenge, fills no log with it, and keeps
// nobody else from telling how it stands.
func TestTellingIsBounded(t *testing.T) {
	h := lite(t)
	m := newMaker(h, "Maker")
	h.trust(m, nil)
	fickle, honest := m.born("T-1"), m.born("T-2")
	tells := func(as credential, n int) int {
		code, _ := h.do(&as, "POST", "/d/1/baseline", "application/json", fmt.Sprintf(`{"secure_boot":%q}`, []string{"on", "off"}[n%2]))
		return code
	}
	tell, told := tells(fickle, 0), 0
	for ; tell == 200 && told < 200; told++ {
		tell = tells(fickle, told+1)
	}
	if tell != 429 || told < 20 || told > 100 {
		t.Errorf("after %d reports it is answered %d", told, tell)
	}
	if n := h.count(`SELECT count(*) FROM audit_entry WHERE kind = 'device.baseline'`); n != int64(told) {
		t.Errorf("%d leaves, %d reports", n, told)
	}
	if r, _ := h.exchange(&fickle, "POST", "/d/1/baseline", "{}"); r.Header.Get("Retry-After") != "60" {
		t.Errorf("it is to come back in %q seconds", r.Header.Get("Retry-After"))
	}
	if code, body := h.do(&fickle, "POST", "/d/1/attest/challenge", "application/json", `{}`); code != 429 {
		t.Errorf("a challenge: %d %s", code, body)
	}
	if code := tells(honest, 0); code != 200 {
		t.Errorf("another device: %d", code)
	}
	h.clock.Advance(time.Minute)
	if code := tells(fickle, 0); code != 200 {
		t.Errorf("a minute later: %d", code)
	}
}

// Whoever stole a line station, or found a token, names serial numbers of others and has their units locked out: a few, and
// not the whole fleet before somebody notices. The next ones are refused all the same, and the log says so once.
func TestAStolenStationLocksOutAFew(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		honest, _ := h.station("B1", 40, 40)
		stolen, id := h.station("B2", 40, 40)
		const units = 25
		for i := range units {
			h.unit(honest, fmt.Sprint("U-", i))
		}
		for range 2 { // that it tries again costs it nothing, and brings it nothing
			for i := range units {
				if code, _, body := h.line(stolen, wire.LineRequest{Serial: fmt.Sprint("U-", i), CSR: csrPEM(t, newKey(t))}); code != 409 {
					t.Fatalf("%d %s", code, body)
				}
			}
		}
		suspended := func() int64 { return h.count(`SELECT count(*) FROM device WHERE state = 'suspended'`) }
		if n := suspended(); n != 20 || len(h.clones()) != 20 {
			t.Errorf("%d units are suspended under %d suspicions", n, len(h.clones()))
		}
		if n := h.count(`SELECT count(*) FROM audit_entry WHERE kind = 'clone.flood' AND subject = $1`, id); n != 1 {
			t.Errorf("%d leaves tell of it", n)
		}
		_, text := h.token(5, nil) // another one has not used its share up
		if r, _ := h.exchangeToken("Bearer "+text, h.named(credential{key: newKey(t)}, "U-24")); r.StatusCode != 409 || suspended() != 21 {
			t.Errorf("%d, %d units are suspended", r.StatusCode, suspended())
		}
		if _, k, _ := h.line(honest, wire.LineRequest{Serial: "U-40", CSR: csrPEM(t, newKey(t))}); k.Device == "" {
			t.Error("the honest station is kept from its work")
		}
	})
}
