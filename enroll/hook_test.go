// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/wire"
)

// erp is a manufacturer's own system: it checks the signature as Standard Webhooks have it, and that no id comes twice.
type erp struct {
	mu     sync.Mutex // guards the fields below
	secret []byte
	seen   map[string]bool
	faults []string
	asked  []enroll.Question
	answer func(enroll.Question) (int, string)
}

func (e *erp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	id, at := r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp")
	m := hmac.New(sha256.New, e.secret)
	m.Write([]byte(id + "." + at + "." + string(body)))
	if want := "v1," + base64.StdEncoding.EncodeToString(m.Sum(nil)); err != nil || r.Header.Get("webhook-signature") != want || at == "" {
		e.faults = append(e.faults, "the signature is wrong")
	}
	if e.seen[id] {
		e.faults = append(e.faults, "the id comes twice")
	}
	e.seen[id] = true
	var q enroll.Question
	if err := json.Unmarshal(body, &q); err != nil || q.ID != id {
		e.faults = append(e.faults, fmt.Sprintf("the body is %s", body))
	}
	e.asked = append(e.asked, q)
	code, text := e.answer(q)
	if code == http.StatusFound {
		w.Header().Set("Location", "/elsewhere")
	}
	w.WriteHeader(code)
	io.WriteString(w, text) //nolint:errcheck // the peer may have gone
}

func yes(q enroll.Question) (int, string) { return 200, `{"id":"` + q.ID + `","allow":true}` }

// hooked sets a hook of the tenant to a real server.
func (h *house) hooked(open bool) *erp { return h.hookedFor("", open) }

// hookedFor sets the hook of a product.
func (h *house) hookedFor(product string, open bool) *erp {
	h.t.Helper()
	e := &erp{seen: map[string]bool{}, answer: yes}
	srv := httptest.NewServer(e)
	h.t.Cleanup(srv.Close)
	code, s := h.call("POST", "/v1/hooks", map[string]any{"product": product, "url": srv.URL, "patience_ms": enroll.MaxPatience.Milliseconds(), "open": open})
	if code != 201 {
		h.t.Fatalf("hook: %d %v", code, s)
	}
	raw, ok := strings.CutPrefix(s["secret"].(string), "whsec_")
	secret, err := base64.StdEncoding.DecodeString(raw)
	if !ok || err != nil || len(secret) != 32 {
		h.t.Fatalf("secret: %v", s)
	}
	e.mu.Lock()
	e.secret = secret
	e.mu.Unlock()
	return e
}

func TestHook(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		e := h.hooked(false)
		_, st, _ := h.demanding("B1", 20, nil)
		cred, unit := h.unit(st, "A")
		if code, m := h.claim(unit.Claim); code != 201 {
			t.Fatal(m)
		}
		if code, body := h.enrol(cred, "simpleenroll", csrFor(t, newKey(t), nil)); code != 200 {
			t.Fatalf("enrol: %d %s", code, body)
		}
		if len(e.asked) != 2 || e.asked[0].Kind != enroll.AskProvision || e.asked[0].Serial != "A" || e.asked[1].Kind != enroll.AskEnrol || e.asked[1].Device != unit.Device {
			t.Errorf("asked: %+v", e.asked)
		}
		e.answer = func(q enroll.Question) (int, string) {
			return 200, `{"id":"` + q.ID + `","allow":false,"reason":"not in our ERP"}`
		}
		if code, _, body := h.line(st, wire.LineRequest{Serial: "B", CSR: csrPEM(t, newKey(t))}); code != 403 || rule(body) != enroll.RuleHookDenied || !strings.Contains(body, "not in our ERP") {
			t.Errorf("denied: %d %s", code, body)
		}
		if n := h.count(`SELECT count(*) FROM device WHERE serial = 'B'`); n != 0 {
			t.Error("a unit that was denied was registered")
		}
		// Whatever is not a clear yes lets nobody in.
		recorded := `{"id":"` + e.asked[0].ID + `","allow":true}`
		for name, answer := range map[string]func(enroll.Question) (int, string){
			"an error":           func(enroll.Question) (int, string) { return 500, `{"allow":true}` },
			"no content":         func(enroll.Question) (int, string) { return 204, "" },
			"no JSON":            func(enroll.Question) (int, string) { return 200, "yes" },
			"a recorded yes":     func(enroll.Question) (int, string) { return 200, recorded },
			"a redirect":         func(enroll.Question) (int, string) { return 302, recorded },
			"an endless answer":  func(q enroll.Question) (int, string) { return 200, strings.Repeat(" ", 20<<10) + recorded },
			"a yes without whom": func(enroll.Question) (int, string) { return 200, `{"allow":true}` },
		} {
			e.answer = answer
			if code, _, body := h.line(st, wire.LineRequest{Serial: "C", CSR: csrPEM(t, newKey(t))}); code != 403 || rule(body) != enroll.RuleHookDown {
				t.Errorf("%s: %d %s", name, code, body)
			}
		}
		if len(e.faults) > 0 {
			t.Errorf("the hook saw: %v", e.faults)
		}
		_, list := h.call("GET", "/v1/hooks", nil)
		hook := list["items"].([]any)[0].(map[string]any)
		if hook["denied"] != 1.0 || hook["failed"] != 7.0 || hook["fault"] == "" {
			t.Errorf("hook: %v", hook)
		}
		if b, _ := json.Marshal(list); strings.Contains(string(b), "secret") || strings.Contains(string(b), "whsec") {
			t.Errorf("the list shows the secret: %s", b)
		}
		if code, _, _ := h.sendJSON("POST", "/v1/hooks/drop", map[string]any{}); code != 204 {
			t.Errorf("drop: %d", code)
		}
		h.unit(st, "C") // nobody is asked any more
	})
}

// A hook that is told to be open lets devices in when it gives no answer, and still may deny.
func TestHookOpen(t *testing.T) {
	h := lite(t)
	e := h.hooked(true)
	_, st, _ := h.demanding("B1", 20, nil)
	e.answer = func(enroll.Question) (int, string) { return 503, "" }
	h.unit(st, "A")
	e.answer = func(q enroll.Question) (int, string) { return 200, `{"id":"` + q.ID + `","allow":false}` }
	if code, _, body := h.line(st, wire.LineRequest{Serial: "B", CSR: csrPEM(t, newKey(t))}); code != 403 || rule(body) != enroll.RuleHookDenied {
		t.Errorf("denied: %d %s", code, body)
	}
}

// Whoever may set the hook of one product cannot get round that of the tenant: both are asked, the tenant's first, and each
// must say yes.
func TestHookOfProductOpensNothing(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		house := h.hooked(false)
		_, st, _ := h.demanding("B1", 20, nil)
		mine := h.hookedFor(h.product(), true)
		no := func(q enroll.Question) (int, string) { return 200, `{"id":"` + q.ID + `","allow":false}` }
		silent := func(enroll.Question) (int, string) { return 503, "" }
		for i, row := range []struct {
			house, mine func(enroll.Question) (int, string)
			rule        string // empty: it gets in
			asked       int    // of the product's own
		}{
			{yes, yes, "", 1},
			{no, yes, enroll.RuleHookDenied, 0},
			{silent, yes, enroll.RuleHookDown, 0},
			{yes, no, enroll.RuleHookDenied, 1},
			{yes, silent, "", 1}, // the product's own is open
			{silent, silent, enroll.RuleHookDown, 0},
		} {
			house.answer, mine.answer, house.asked, mine.asked = row.house, row.mine, nil, nil
			code, _, body := h.line(st, wire.LineRequest{Serial: fmt.Sprint("L-", i), CSR: csrPEM(t, newKey(t))})
			if in := code == 200; in != (row.rule == "") || !in && rule(body) != row.rule {
				t.Errorf("%d: %d %s", i, code, body)
			}
			if len(house.asked) != 1 || len(mine.asked) != row.asked || row.asked > 0 && mine.asked[0].ID == house.asked[0].ID {
				t.Errorf("%d: asked %+v and %+v", i, house.asked, mine.asked)
			}
		}
		if len(house.faults)+len(mine.faults) > 0 {
			t.Errorf("the hooks saw: %v %v", house.faults, mine.faults)
		}
		// The hook of a product stands alone where the tenant has none.
		if code, _, _ := h.sendJSON("POST", "/v1/hooks/drop", map[string]any{}); code != 204 {
			t.Errorf("drop: %d", code)
		}
		mine.answer = no
		if code, _, body := h.line(st, wire.LineRequest{Serial: "M-1", CSR: csrPEM(t, newKey(t))}); code != 403 || rule(body) != enroll.RuleHookDenied {
			t.Errorf("the product's own alone: %d %s", code, body)
		}
	})
}

func TestHookAddress(t *testing.T) {
	h := lite(t)
	for url, want := range map[string]int{
		"http://erp.example/allow": 400, "ftp://erp.example": 400, "https://": 400, "https://user:pw@erp.example/": 400, "://": 400,
		"https://erp.example/allow": 201, "http://127.0.0.1:9/": 201, // this house allows the inside
	} {
		if code, out := h.call("POST", "/v1/hooks", map[string]any{"url": url}); code != want {
			t.Errorf("%s: %d %v", url, code, out)
		}
	}
	if code, out := h.call("POST", "/v1/hooks", map[string]any{"url": "https://erp.example", "patience_ms": 10}); code != 400 {
		t.Errorf("no patience: %d %v", code, out)
	}
}

// Each way in asks once, also when an answer was lost or a journal is brought again.
func TestHookIsAskedOnce(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		e := h.hooked(false)
		asked := func(what, kind, serial string) {
			t.Helper()
			e.mu.Lock()
			defer e.mu.Unlock()
			if len(e.asked) != 1 || e.asked[0].Kind != kind || e.asked[0].Serial != serial || len(e.asked[0].Key) != 64 {
				t.Errorf("%s: asked %+v", what, e.asked)
			}
			e.asked = nil
		}
		m := newMaker(h, "Maker")
		h.trust(m, nil)
		d := m.born("H-1")
		for range 2 {
			if code, body := h.do(&d, "GET", "/.well-known/est/cacerts", "", ""); code != 200 {
				t.Fatalf("%d %s", code, body)
			}
		}
		asked("a trusted CA", enroll.AskRegister, "H-1")

		_, text := h.token(5, nil)
		c := credential{key: newKey(t)}
		for range 2 {
			if r, body := h.exchangeToken("Bearer "+text, h.named(c, "H-2")); r.StatusCode != 200 {
				t.Fatalf("%d %s", r.StatusCode, body)
			}
		}
		asked("a token", enroll.AskRegister, "H-2")

		dir, id := h.offline(h.newBatch("B1", 10), 5, wire.Serials{})
		h.makes(dir, "H-3", newKey(t))
		journal := h.journal(dir)
		for range 2 {
			if st, err := h.enroll.Sync(t.Context(), ten, id, journal); err != nil || st.Seq != 1 || len(st.Refused) > 0 {
				t.Fatalf("%+v %v", st, err)
			}
		}
		asked("an offline station", enroll.AskProvision, "H-3")
		e.mu.Lock()
		e.answer = func(q enroll.Question) (int, string) { return 200, `{"id":"` + q.ID + `","allow":false}` }
		e.mu.Unlock()
		h.makes(dir, "H-4", newKey(t))
		if rep, err := h.sync(dir); err != nil || len(rep.Refused) != 1 || rep.Refused[0].Rule != enroll.RuleHookDenied {
			t.Errorf("denied: %+v %v", rep, err)
		}
		asked("an offline station that is denied", enroll.AskProvision, "H-4")
	})
}
