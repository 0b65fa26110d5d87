// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// signer signs manifests and permits with a key of its own.
func (h *house) signer() func(string) ([]byte, error) {
	secret, public, err := note.GenerateKey(rand.Reader, "test/openthings")
	h.must(err)
	s, err := note.NewSigner(secret)
	h.must(err)
	h.logKey = public
	return func(text string) ([]byte, error) { return note.Sign(&note.Note{Text: text}, s) }
}

// demanding opens a batch with demands and a station in it.
func (h *house) demanding(name string, size int64, demands map[string]any) (batch string, st credential, station string) {
	h.t.Helper()
	in := map[string]any{"revision": h.revision, "name": name, "size": size}
	for k, v := range demands {
		in[k] = v
	}
	code, b := h.call("POST", "/v1/batches", in)
	if code != 201 {
		h.t.Fatalf("batch: %d %v", code, b)
	}
	key := newKey(h.t)
	code, s := h.call("POST", "/v1/stations", map[string]any{"batch": b["id"], "name": name, "csr": csrPEM(h.t, key)})
	if code != 201 {
		h.t.Fatalf("station: %d %v", code, s)
	}
	return b["id"].(string), h.credential(key, s["certificate"].(string)), s["id"].(string)
}

// signed asks the line in an envelope under the key given.
func (h *house) signed(st credential, key *ecdsa.PrivateKey, r wire.LineRequest) (int, wire.LineResponse, string) {
	h.t.Helper()
	env, err := wire.Sign(rand.Reader, key, r)
	h.must(err)
	b, err := json.Marshal(env)
	h.must(err)
	code, body := h.do(&st, "POST", "/d/1/line/devices", "application/json", string(b))
	var out wire.LineResponse
	if code == 200 {
		h.must(json.Unmarshal([]byte(body), &out))
	}
	return code, out, body
}

func rule(body string) string {
	var p struct{ Rule string }
	json.Unmarshal([]byte(body), &p) //nolint:errcheck // no rule then
	return p.Rule
}

// items reads a list of the API to its end, page by page.
func (h *house) items(path string) (out []map[string]any) {
	h.t.Helper()
	for token := ""; ; {
		sep := "?"
		if strings.Contains(path, "?") {
			sep = "&"
		}
		code, p := h.call("GET", path+sep+"page_size=2&page_token="+token, nil)
		if code != 200 {
			h.t.Fatalf("%s: %d %v", path, code, p)
		}
		for _, it := range p["items"].([]any) {
			out = append(out, it.(map[string]any))
		}
		if token, _ = p["next_page_token"].(string); token == "" {
			return out
		}
	}
}

// rawCall sends bytes to the API.
func (h *house) rawCall(method, path, body string) (int, map[string]any, string) {
	h.t.Helper()
	r, err := http.NewRequest(method, h.api.URL+path, strings.NewReader(body))
	h.must(err)
	resp, err := h.api.Client().Do(r)
	h.must(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	h.must(err)
	var out map[string]any
	json.Unmarshal(b, &out) //nolint:errcheck // some answers are no objects
	return resp.StatusCode, out, string(b)
}

func TestI17_StationBeyondItsQuotaClockShiftedOrStolenIsKilledAndItsDevicesListed(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		_, st, id := h.demanding("B1", 3, map[string]any{"signed": true})
		_, other, _ := h.demanding("B2", 3, nil)
		var want []string
		for i := range 3 {
			key := newKey(t)
			r := wire.LineRequest{Serial: fmt.Sprintf("L%d", i), CSR: csrPEM(t, key), Station: id, Time: h.clock.Now().UnixMilli()}
			code, out, body := h.signed(st, st.key, r)
			if code != 200 {
				t.Fatalf("line: %d %s", code, body)
			}
			want = append(want, out.Device)
		}
		_, innocent := h.unit(other, "X1")

		// Beyond its quota: refused, counted, and told once.
		for range 2 {
			r := wire.LineRequest{Serial: "L9", CSR: csrPEM(t, newKey(t)), Station: id, Time: h.clock.Now().UnixMilli()}
			if code, _, body := h.signed(st, st.key, r); code != 403 || rule(body) != enroll.RuleQuota {
				t.Errorf("beyond the quota: %d %s", code, body)
			}
		}
		// A clock that is off by more than the bound, either way: refused, counted, and told once.
		for _, off := range []time.Duration{enroll.MaxSkew + time.Minute, -enroll.MaxSkew - time.Minute} {
			r := wire.LineRequest{Serial: "L0", CSR: csrPEM(t, newKey(t)), Station: id, Time: h.clock.Now().Add(off).UnixMilli()}
			if code, _, body := h.signed(st, st.key, r); code != 403 || rule(body) != enroll.RuleClock {
				t.Errorf("clock off by %s: %d %s", off, code, body)
			}
		}
		for _, kind := range []string{"batch.surplus", "station.clock"} {
			if n := h.count(`SELECT count(*) FROM audit_entry WHERE kind = $1`, kind); n != 1 {
				t.Errorf("%d alarms %s", n, kind)
			}
		}
		_, s := h.call("GET", "/v1/stations/"+id, nil)
		if s["refused"] != 2.0 || s["skewed"] != 2.0 {
			t.Errorf("station: %v", s)
		}

		// Stolen: the kill switch revokes it, names exactly what it made, and locks that out.
		code, k := h.call("POST", "/v1/stations/"+id+"/kill", map[string]any{"reason": "stolen", "units": "suspend"})
		if code != 200 || k["made"] != 3.0 {
			t.Fatalf("kill: %d %v", code, k)
		}
		var got []string
		for _, d := range k["devices"].([]any) {
			got = append(got, d.(string))
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("killed: %v, want %v", got, want)
		}
		var listed []string
		for _, d := range h.items("/v1/stations/" + id + "/devices") {
			listed = append(listed, d["device"].(string))
			if d["state"] != "suspended" {
				t.Errorf("%v is not locked out", d)
			}
		}
		if !slices.Equal(listed, want) {
			t.Errorf("listed: %v, want %v", listed, want)
		}
		if d, err := h.identity.Get(t.Context(), ten, innocent.Device); err != nil || d.State != identity.Provisioned {
			t.Errorf("a unit of another station is %s (%v)", d.State, err)
		}
		if code, body := h.do(&st, "POST", "/d/1/line/devices", "application/json", "{}"); code == 200 || strings.Contains(body, "JSON") {
			t.Errorf("the killed station still gets in: %d %s", code, body)
		}
	})
}

// Barring what a station made is for ever.
func TestKillAndBar(t *testing.T) {
	h := lite(t)
	_, st, id := h.demanding("B1", 3, nil)
	cred, _ := h.unit(st, "L1")
	if code, k := h.call("POST", "/v1/stations/"+id+"/kill", map[string]any{"reason": "stolen", "units": "bar"}); code != 200 {
		t.Fatalf("kill: %d %v", code, k)
	}
	if code, body := h.enrol(cred, "simpleenroll", csrFor(t, newKey(t), nil)); code == 200 || code == 202 {
		t.Errorf("a barred unit is heard: %d %s", code, body)
	}
	if code, k := h.call("POST", "/v1/stations/"+id+"/kill", map[string]any{"reason": "again", "units": "melt"}); code != 400 && code != 422 {
		t.Errorf("units that melt: %d %v", code, k)
	}
}

func TestSignedRequests(t *testing.T) {
	h := lite(t)
	_, st, id := h.demanding("B1", 10, map[string]any{"signed": true})
	r := wire.LineRequest{Serial: "L1", CSR: csrPEM(t, newKey(t)), MAC: "02:00:5e:10:00:01", SKU: "LMP", Order: "4711", Line: "3", Part: "LMP-C", SBOM: "sha256:1",
		Station: id, Time: h.clock.Now().UnixMilli()}
	if code, _, body := h.line(st, r); code != 403 || rule(body) != enroll.RuleUnsigned {
		t.Errorf("unsigned: %d %s", code, body)
	}
	if code, _, body := h.signed(st, newKey(t), r); code != 403 || rule(body) != enroll.RuleSignature {
		t.Errorf("signed by a stranger: %d %s", code, body)
	}
	foreign := r
	foreign.Station = "sta_other"
	if code, _, body := h.signed(st, st.key, foreign); code != 403 || rule(body) != enroll.RuleSignature {
		t.Errorf("of another station: %d %s", code, body)
	}
	timeless := r
	timeless.Time = 0
	if code, _, body := h.signed(st, st.key, timeless); code != 403 || rule(body) != enroll.RuleSignature {
		t.Errorf("without a time: %d %s", code, body)
	}
	odd := r
	odd.MAC = "zz"
	if code, _, body := h.signed(st, st.key, odd); code != 400 {
		t.Errorf("odd MAC: %d %s", code, body)
	}
	code, out, body := h.signed(st, st.key, r)
	if code != 200 {
		t.Fatalf("signed: %d %s", code, body)
	}
	code, m := h.call("GET", "/v1/devices/"+out.Device+"/manufacture", nil)
	making, _ := m["making"].(map[string]any)
	if code != 200 || making["order"] != "4711" || making["part"] != "LMP-C" || making["mac"] != "02:00:5e:10:00:01" || making["envelope"] == "" {
		t.Fatalf("manufacture: %d %v", code, m)
	}
	// Whoever has the station's certificate checks what it said.
	var signed wire.Signed
	env, err := json.Marshal(m["envelope"])
	h.must(err)
	h.must(json.Unmarshal(env, &signed))
	der, err := base64.StdEncoding.DecodeString(m["station_certificate"].(string))
	h.must(err)
	cert, err := x509.ParseCertificate(der)
	h.must(err)
	var said wire.LineRequest
	if err := signed.Open(cert.PublicKey, &said); err != nil || said != r {
		t.Errorf("the envelope says %+v (%v)", said, err)
	}
}

// No key that comes to the line is taken, and none is in any answer, in the database or in a file.
func TestNoPrivateKeyOnTheLine(t *testing.T) {
	h := lite(t)
	_, st, _ := h.demanding("B1", 10, nil)
	key := newKey(t)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	h.must(err)
	injected := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	for name, body := range map[string]any{
		"in a member":       map[string]any{"serial": "L1", "csr": csrPEM(t, key), "key": injected},
		"in place of one":   map[string]any{"serial": "L1", "csr": injected},
		"in an envelope":    wire.Signed{Payload: []byte(`{"serial":"L1","key":"-----BEGIN PRIVATE KEY-----"}`)},
		"under the journal": wire.Journal{Entries: []wire.Signed{}},
	} {
		b, err := json.Marshal(body)
		h.must(err)
		path := "/d/1/line/devices"
		if name == "under the journal" {
			path, b = "/d/1/line/journal", []byte(`{"entries":[],"key":"-----BEGIN EC PRIVATE KEY-----"}`)
		}
		code, out := h.do(&st, "POST", path, "application/json", string(b))
		if want := enroll.RuleKey; code != 403 || rule(out) != want && rule(out) != enroll.RuleSignature {
			t.Errorf("%s: %d %s", name, code, out)
		}
		if strings.Contains(out, "PRIVATE") {
			t.Errorf("%s: the answer holds it: %s", name, out)
		}
	}
	_, answer := h.unit(st, "L2")
	b, err := json.Marshal(answer)
	h.must(err)
	if bytes.Contains(b, []byte("PRIVATE")) {
		t.Errorf("an answer of the line: %s", b)
	}
	for _, q := range []string{`SELECT payload FROM audit_entry`, `SELECT envelope FROM made`} {
		rows, err := h.db.Query(t.Context(), q)
		texts, err := store.Collect(rows, err, func(r *sql.Rows) (b []byte, err error) { return b, r.Scan(&b) })
		h.must(err)
		if len(texts) == 0 || bytes.Contains(bytes.Join(texts, nil), []byte("PRIVATE")) {
			t.Errorf("%s: a key among %d", q, len(texts))
		}
	}
}

func TestStationRenewsWithinItsWindow(t *testing.T) {
	h := lite(t)
	code, b := h.call("POST", "/v1/batches", map[string]any{"revision": h.revision, "name": "B1", "size": 9})
	if code != 201 {
		t.Fatal(b)
	}
	key := newKey(t)
	code, s := h.call("POST", "/v1/stations", map[string]any{"batch": b["id"], "name": "line", "hours": 72, "csr": csrPEM(t, key)})
	if code != 201 {
		t.Fatal(s)
	}
	st := h.credential(key, s["certificate"].(string))
	x, err := x509.ParseCertificate(st.cert.Certificate[0])
	h.must(err)
	if life := x.NotAfter.Sub(h.clock.Now()); life > enroll.MaxStation {
		t.Errorf("the certificate of a station lives %s", life)
	}
	renew := func() (int, credential, string) {
		next := newKey(t)
		in, err := json.Marshal(wire.StationRenewal{CSR: csrPEM(t, next)})
		h.must(err)
		code, body := h.do(&st, "POST", "/d/1/line/renew", "application/json", string(in))
		var out wire.StationCertificate
		if code == 200 {
			h.must(json.Unmarshal([]byte(body), &out))
			return code, h.credential(next, out.Certificate), body
		}
		return code, credential{}, body
	}
	if code, _, body := renew(); code != 409 {
		t.Errorf("renewed at once: %d %s", code, body)
	}
	for day := range 3 {
		h.clock.Advance(23 * time.Hour)
		code, next, body := renew()
		if code != 200 {
			t.Fatalf("day %d: %d %s", day, code, body)
		}
		st = next
	}
	h.unit(st, "L1")
	h.clock.Advance(4 * time.Hour) // 73 h: the window is over
	if code, _, body := renew(); code == 200 {
		t.Errorf("renewed beyond the window: %s", body)
	}
}

func TestManifest(t *testing.T) {
	h := lite(t)
	batch, st, _ := h.demanding("B1", 10, nil)
	for i := range 5 {
		h.unit(st, fmt.Sprintf("L%d", i))
	}
	code, _, manifest := h.rawCall("GET", "/v1/batches/"+batch+"/manifest", "")
	if code != 200 {
		t.Fatalf("manifest: %d %s", code, manifest)
	}
	m, err := enroll.VerifyManifest(strings.NewReader(manifest), h.logKey)
	if err != nil || m.Count != 5 || m.Batch != batch {
		t.Fatalf("%+v %v\n%s", m, err, manifest)
	}
	if _, err := enroll.VerifyManifest(strings.NewReader(manifest), ""); !errors.Is(err, enroll.ErrUnpinned) {
		t.Errorf("without a key: %v", err)
	}
	// Any single change is found: an entry less, more, changed or moved, and every other byte.
	lines := strings.Split(manifest, "\n")
	moved := slices.Clone(lines)
	moved[2], moved[3] = moved[3], moved[2]
	for name, text := range map[string]string{
		"an entry is missing": strings.Join(slices.Delete(slices.Clone(lines), 2, 3), "\n"),
		"an entry twice":      strings.Join(slices.Insert(slices.Clone(lines), 2, lines[2]), "\n"),
		"entries swapped":     strings.Join(moved, "\n"),
		"another serial":      strings.Replace(manifest, `"serial":"L3"`, `"serial":"L7"`, 1),
		"more behind it":      manifest + "{}",
		"cut off":             manifest[:len(manifest)-3],
		"empty":               "",
	} {
		if _, err := enroll.VerifyManifest(strings.NewReader(text), h.logKey); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for i := range manifest {
		b := []byte(manifest)
		if b[i] ^= 1; strings.ContainsAny(manifest[i:i+1], " \n") { // white space between values says nothing
			continue
		}
		if _, err := enroll.VerifyManifest(bytes.NewReader(b), h.logKey); err == nil {
			t.Fatalf("byte %d changed from %q to %q: accepted", i, manifest[i], b[i])
		}
	}
}

func TestCloseWithSerials(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		batch, st, _ := h.demanding("B1", 10, nil)
		for i := range 4 {
			h.unit(st, fmt.Sprintf("L%d", i))
		}
		if code, out, _ := h.rawCall("POST", "/v1/batches/"+batch+"/produced", "serial\nL0\nL1\nL0\n"); code != 409 || !strings.Contains(out["detail"].(string), "lines 2 and 4") {
			t.Errorf("a serial number twice: %d %v", code, out)
		}
		for _, text := range []string{"", "L0\nL1\n", "{}"} {
			if code, out, _ := h.rawCall("POST", "/v1/batches/"+batch+"/produced", text); code != 400 {
				t.Errorf("no list: %d %v", code, out)
			}
		}
		if code, out, _ := h.rawCall("POST", "/v1/batches/"+batch+"/produced", "serial\nL/0\n"); code != 400 {
			t.Errorf("an odd serial number: %d %v", code, out)
		}
		code, out, _ := h.rawCall("POST", "/v1/batches/"+batch+"/produced", "\ufeffserial,note\nL0,ok\n\nL1,\n# a remark\nL9,not made here\n")
		if code != 200 || out["produced"] != 3.0 || out["surplus"] != 2.0 {
			t.Fatalf("close: %d %v", code, out)
		}
		got := map[string]string{}
		for _, d := range h.items("/v1/batches/" + batch + "/differences") {
			got[d["serial"].(string)] = d["kind"].(string)
		}
		if fmt.Sprint(got) != "map[L2:surplus L3:surplus L9:missing]" {
			t.Errorf("differences: %v", got)
		}
		var data []byte
		h.must(h.db.QueryRow(t.Context(), `SELECT payload FROM audit_entry WHERE kind = 'batch.surplus'`).Scan(&data))
		if !bytes.Contains(data, []byte(`"serials":2`)) {
			t.Errorf("alarm: %s", data)
		}
		if code, _, body := h.rawCall("POST", "/v1/batches/"+batch+"/produced", "serial\nL0\n"); code != 409 {
			t.Errorf("closed twice: %d %s", code, body)
		}
	})
}

func TestPreauthorised(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		batch, st, _ := h.demanding("B1", 10, map[string]any{"listed": true})
		product := h.lineProduct()
		path := "/v1/preauthorised/import?product=" + product
		for name, c := range map[string]struct {
			body string
			code int
			says string
		}{
			"no heading":        {"", 400, "first line"},
			"an unknown column": {"serial,colour\nA,red\n", 400, "colour"},
			"a column twice":    {"serial,serial\nA,B\n", 400, "twice"},
			"no serial":         {"order\n1\n", 400, "serial"},
			"faulty lines":      {"serial,mac\nA/1,\nB2,zz\nC3,\nC3,\nD4\n", 400, "line 6"},
			"nothing":           {"serial\n", 400, "no serial number"},
			"a broken quote":    {"serial\n\"A\n", 400, "line"},
		} {
			code, _, body := h.rawCall("POST", path, c.body)
			if code != c.code || !strings.Contains(body, c.says) {
				t.Errorf("%s: %d %s", name, code, body)
			}
		}
		file := "serial,order,part,label:site\nA1,4711,LMP-C,kiel\nA2,4711,LMP-C,\nB1,4711,LMP-D,bonn\n"
		if code, out, body := h.rawCall("POST", path+"&preview=true", file); code != 200 || out["rows"] != 3.0 {
			t.Fatalf("preview: %d %s", code, body)
		}
		if n := h.count(`SELECT count(*) FROM preauthorised`); n != 0 {
			t.Errorf("a preview took %d rows", n)
		}
		if code, _, body := h.rawCall("POST", path, file); code != 200 {
			t.Fatalf("import: %d %s", code, body)
		}
		quoted := "\ufeff\"serial\",\"order\"\r\n\"Q1\",\"47, 11\"\r\n" // as spreadsheets write it that put everything into quotes
		if code, out, body := h.rawCall("POST", path+"&preview=true", quoted); code != 200 || out["rows"] != 1.0 || !strings.Contains(body, "47, 11") {
			t.Errorf("a byte order mark before a quote: %d %s", code, body)
		}
		if code, _, body := h.rawCall("POST", path, "serial,order\n\nC1,\"47\n11\"\n\nA2,\n"); code != 400 || !strings.Contains(body, "line 3") {
			t.Errorf("a line end in a cell: %d %s", code, body)
		}
		if code, _, body := h.rawCall("POST", path, "serial\n\n\nC1\n\nA2\n"); code != 409 || !strings.Contains(body, "line 6") {
			t.Errorf("one that is taken, below empty lines: %d %s", code, body)
		}
		if code, _, body := h.rawCall("POST", path, "serial\nC1\nA2\n"); code != 409 || !strings.Contains(body, "A2") || h.count(`SELECT count(*) FROM preauthorised`) != 3 {
			t.Errorf("one that is taken: %d %s", code, body)
		}
		if code, _, body := h.line(st, wire.LineRequest{Serial: "Z1", CSR: csrPEM(t, newKey(t))}); code != 403 || rule(body) != enroll.RuleListed {
			t.Errorf("not preauthorised: %d %s", code, body)
		}
		_, unit := h.unit(st, "A1")
		_, m := h.call("GET", "/v1/devices/"+unit.Device+"/manufacture", nil)
		if making := m["making"].(map[string]any); making["order"] != "4711" || making["part"] != "LMP-C" {
			t.Errorf("making: %v", making)
		}
		if _, l := h.call("GET", "/v1/devices/"+unit.Device+"/labels", nil); fmt.Sprint(l["labels"]) != "map[site:kiel]" {
			t.Errorf("labels: %v", l)
		}
		if code, p := h.call("POST", "/v1/preauthorised", map[string]any{"product": product, "serial": "S1", "batch": batch}); code != 201 {
			t.Errorf("one by one: %d %v", code, p)
		}
		var all []string
		for _, p := range h.items("/v1/preauthorised?product=" + product) {
			all = append(all, p["serial"].(string))
		}
		if fmt.Sprint(all) != "[A1 A2 B1 S1]" {
			t.Errorf("list: %v", all)
		}
		if got := h.items("/v1/preauthorised?search=A&used=no&product=" + product); len(got) != 1 || got[0]["serial"] != "A2" {
			t.Errorf("search: %v", got)
		}
		revoke := func(serials ...string) int {
			code, _, _ := h.sendJSON("POST", "/v1/preauthorised/revoke", map[string]any{"product": product, "serials": serials})
			return code
		}
		if code := revoke("A2", "A1"); code != 409 {
			t.Errorf("revoked one that was used: %d", code)
		}
		if code := revoke("A2"); code != 204 {
			t.Errorf("revoke: %d", code)
		}
		if code, _, body := h.line(st, wire.LineRequest{Serial: "A2", CSR: csrPEM(t, newKey(t))}); code != 403 || rule(body) != enroll.RuleListed {
			t.Errorf("revoked and made: %d %s", code, body)
		}
	})
}

// sendJSON sends JSON and takes an answer without a body.
func (h *house) sendJSON(method, path string, in any) (int, map[string]any, string) {
	h.t.Helper()
	b, err := json.Marshal(in)
	h.must(err)
	r, err := http.NewRequest(method, h.api.URL+path, bytes.NewReader(b))
	h.must(err)
	r.Header.Set("Content-Type", "application/json")
	resp, err := h.api.Client().Do(r)
	h.must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	h.must(err)
	var out map[string]any
	json.Unmarshal(body, &out) //nolint:errcheck // some answers are empty
	return resp.StatusCode, out, string(body)
}

func (h *house) lineProduct() (id string) {
	h.t.Helper()
	h.must(h.db.QueryRow(h.t.Context(), `SELECT product FROM hardware_revision WHERE id = $1`, h.revision).Scan(&id))
	return id
}

func TestLobby(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		_, st, _ := h.demanding("B1", 10, nil)
		a, unitA := h.unit(st, "A")
		b, unitB := h.unit(st, "B")
		for _, c := range []credential{a, b, a} {
			if code, body := h.enrol(c, "simpleenroll", csrFor(t, newKey(t), nil)); code != 202 {
				t.Fatalf("unclaimed: %d %s", code, body)
			}
		}
		if gs := h.items("/v1/lobby"); len(gs) != 2 || gs[0]["how"] != enroll.ByLine {
			t.Fatalf("lobby: %v", gs)
		}
		deny := func(ids ...string) int {
			code, _, _ := h.sendJSON("POST", "/v1/lobby/deny", map[string]any{"devices": ids, "reason": "not ours"})
			return code
		}
		approve := func(labels map[string]string, ids ...string) int {
			code, _, _ := h.sendJSON("POST", "/v1/lobby/approve", map[string]any{"devices": ids, "solution": h.solution, "labels": labels})
			return code
		}
		if code := deny(unitB.Device); code != 204 {
			t.Fatalf("deny: %d", code)
		}
		if code, body := h.enrol(b, "simpleenroll", csrFor(t, newKey(t), nil)); code != 403 || !strings.Contains(body, enroll.RuleDenied) {
			t.Errorf("denied: %d %s", code, body)
		}
		if code, m := h.claim(unitB.Claim); code != 403 || m["rule"] != enroll.RuleDenied {
			t.Errorf("denied and claimed: %d %v", code, m)
		}
		if code := approve(nil, unitA.Device, "dev_nobody"); code != 404 || len(h.items("/v1/lobby")) != 1 {
			t.Errorf("one of them does not exist: %d", code)
		}
		if code := approve(map[string]string{"Site!": "x"}, unitA.Device); code != 400 {
			t.Errorf("an odd label: %d", code)
		}
		if code := approve(map[string]string{"site": "kiel"}, unitA.Device); code != 204 {
			t.Fatalf("approve: %d", code)
		}
		if code, body := h.enrol(a, "simpleenroll", csrFor(t, newKey(t), nil)); code != 200 {
			t.Errorf("approved: %d %s", code, body)
		}
		if code, m := h.claim(unitA.Claim); code != 409 {
			t.Errorf("the code of an approved unit still works: %d %v", code, m)
		}
		if _, l := h.call("GET", "/v1/devices/"+unitA.Device+"/labels", nil); fmt.Sprint(l["labels"]) != "map[site:kiel]" {
			t.Errorf("labels: %v", l)
		}
		if code := approve(nil, unitB.Device); code != 204 { // somebody thought again
			t.Errorf("approved after all: %d", code)
		}
		for _, kind := range []string{"device.denied", "device.approved"} {
			if h.count(`SELECT count(*) FROM audit_entry WHERE kind = $1`, kind) == 0 {
				t.Errorf("%s is not in the log", kind)
			}
		}
	})
}

// A unit that its owner released gets another code; the old one and any before it are worth nothing.
func TestClaimCodeAfterRelease(t *testing.T) {
	h := lite(t)
	_, st, _ := h.demanding("B1", 10, nil)
	_, unit := h.unit(st, "A")
	if code, m := h.claim(unit.Claim); code != 201 {
		t.Fatalf("claim: %d %v", code, m)
	}
	path := "/v1/devices/" + unit.Device + "/claim-code"
	if code, m := h.call("POST", path, nil); code != 409 {
		t.Errorf("a code for a unit that somebody holds: %d %v", code, m)
	}
	h.write(func(tx *store.Tx) error {
		h.must(h.identity.SetSolution(tx, ten, unit.Device, ""))
		return h.identity.SetState(tx, ten, unit.Device, identity.Provisioned, "per_a", "released")
	})
	if code, m := h.claim(unit.Claim); code != 409 {
		t.Errorf("the code that the last owner has seen: %d %v", code, m)
	}
	code, m := h.call("POST", path, nil)
	if code != 201 {
		t.Fatalf("new code: %d %v", code, m)
	}
	if code, m := h.claim(unit.Claim); code != 404 {
		t.Errorf("the old code: %d %v", code, m)
	}
	label, err := enroll.NewLabel("A", m["code"].(string), "https://things.example")
	h.must(err)
	if code, m := h.claim(label.Text()); code != 201 { // as a scanner reads it
		t.Errorf("the link of the label: %d %v", code, m)
	}
}

// One careless customer does not delay the others.
func TestClaimLimitOfAnActor(t *testing.T) {
	h := lite(t)
	_, st, _ := h.demanding("B1", 10, nil)
	_, unit := h.unit(st, "A")
	try := func(role, code string) int {
		status, _ := h.callAs(role, "POST", "/v1/claims", map[string]any{"code": code, "solution": h.solution})
		return status
	}
	for range 20 {
		code, _ := enroll.NewCode()
		if status := try("owner", code); status != 404 {
			t.Fatalf("a code that nobody has: %d", status)
		}
	}
	if status := try("owner", unit.Claim); status != 429 {
		t.Errorf("after 20 failures: %d", status)
	}
	if status := try("fleet-operator", unit.Claim); status != 201 {
		t.Errorf("somebody else: %d", status)
	}
}

func TestLabel(t *testing.T) {
	code, _ := enroll.NewCode()
	l, err := enroll.NewLabel("L1", strings.ToLower(strings.ReplaceAll(code, "-", " ")), "https://things.example/")
	if err != nil || l.Code != code || l.Text() != "https://things.example/label?code="+code {
		t.Fatalf("%+v %v", l, err)
	}
	svg, err := l.SVG()
	if err != nil || !strings.HasPrefix(svg, "<svg ") || strings.Count(svg, "<path") != 2 {
		t.Errorf("%.200s %v", svg, err)
	}
	b, err := l.PNG()
	if err != nil || !bytes.HasPrefix(b, []byte("\x89PNG")) {
		t.Errorf("%.10q %v", b, err)
	}
	blocks, err := l.Blocks()
	if err != nil || len(strings.Split(strings.TrimSpace(blocks), "\n")) < 15 {
		t.Errorf("%s %v", blocks, err)
	}
	for _, link := range []string{"http://x.example", "https://", "javascript:alert(1)", "https://x.example/?a=b"} {
		if _, err := enroll.NewLabel("", code, link); err == nil {
			t.Errorf("a label leads to %s", link)
		}
	}
	if _, err := enroll.NewLabel("", "hello", ""); err == nil {
		t.Error("a label of no code")
	}
	if err := os.WriteFile(filepath.Join(t.TempDir(), "x.png"), b, 0o600); err != nil {
		t.Error(err)
	}
}

func pemBytes(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
