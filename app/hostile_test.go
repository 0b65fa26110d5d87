// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/store/storetest"
)

// evil are strings that have broken programs: what a database, a path or a page does not expect.
var evil = []string{
	"a\x00b", "\xff\xfe\xc0\x80", "../../../../etc/passwd", strings.Repeat("x", 10_000), "9999-99-99T99:99:99Z", "\u202e\u0000", "' OR 1=1 --",
	"<script>alert(1)</script>", "%s%n{{.}}", "-9223372036854775809", "null", "",
}

// schema is the part of OpenAPI that says what an operation takes.
type schema struct {
	Ref        string `json:"$ref"`
	Type       any    // a string, or a list of them
	Properties map[string]schema
	Items      *schema
}

type openAPI struct {
	Paths map[string]map[string]struct {
		OperationID string
		Parameters  []struct{ Name, In string }
		RequestBody struct {
			Content map[string]struct{ Schema schema }
		}
	}
	Components struct{ Schemas map[string]schema }
}

// fill makes a value of the schema's shape with s wherever text stands. Bytes that are no UTF-8 stay as they are.
func (o *openAPI) fill(x schema, s string, depth int) string {
	if name, ok := strings.CutPrefix(x.Ref, "#/components/schemas/"); ok {
		x = o.Components.Schemas[name]
	}
	quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\x00", `\u0000`).Replace(s) + `"`
	typ := fmt.Sprint(x.Type)
	switch {
	case depth > 4:
		return "null"
	case strings.Contains(typ, "array") && x.Items != nil:
		return "[" + o.fill(*x.Items, s, depth+1) + "]"
	case len(x.Properties) > 0:
		var fields []string
		for name, p := range x.Properties {
			if name != "$schema" {
				fields = append(fields, fmt.Sprintf("%q:%s", name, o.fill(p, s, depth+1)))
			}
		}
		slices.Sort(fields)
		return "{" + strings.Join(fields, ",") + "}"
	case strings.Contains(typ, "object"):
		return "{" + quoted + ":" + quoted + "}"
	case strings.Contains(typ, "integer"):
		return "1"
	case strings.Contains(typ, "number"):
		return "1e308"
	case strings.Contains(typ, "boolean"):
		return "true"
	}
	return quoted
}

// bodies are what a hostile client posts: nothing that an operation is made for.
func bodies(rnd *rand.Rand) [][]byte {
	out := [][]byte{nil, []byte("{}"), []byte("null"), []byte("[]"), []byte(`{"`), []byte(strings.Repeat("[", 100_000)), []byte(strings.Repeat(`{"a":`, 50_000)),
		[]byte("\x00\x01\x02"), []byte("\xef\xbb\xbf{}"), []byte(`{"name":1e999999}`), []byte(strings.Repeat("\xff", 4096))}
	for range 6 {
		b := make([]byte, rnd.IntN(2000))
		for i := range b {
			b[i] = byte(rnd.UintN(256))
		}
		out = append(out, b)
	}
	return out
}

// TestBadInputToTheAPI gives every operation what it is not made for, in bodies, paths and queries, with a token that
// may do everything, on ids that exist. Nothing is our fault, and everything else goes on.
func TestBadInputToTheAPI(t *testing.T) {
	storetestEach(t, func(t *testing.T, w *world) {
		m := w.newMaker("Acme")
		u := m.make()
		live, err := w.mqtt(u.ldevid)
		if err != nil {
			t.Fatal(err)
		}
		defer live.Close()
		ids := map[string]string{"devices": u.id, "products": m.product, "batches": m.batch, "stations": m.stationID, "solutions": m.solution}
		a, err := w.do(w.client(nil), "GET", w.info.URL+"/openapi.json", "", "", nil)
		var doc openAPI
		if err != nil || json.Unmarshal(a.body, &doc) != nil {
			t.Fatalf("openapi: %v", err)
		}
		rnd := rand.New(rand.NewPCG(1, 2))
		asked := 0
		for _, op := range w.h.api.Operations() {
			if slices.Contains([]string{"kill-station", "close-batch", "suspend-device", "revoke-device", "deprovision-device"}, op.ID) { // they would succeed, and end what others are tried on
				continue
			}
			spec := doc.Paths[op.Path][strings.ToLower(op.Method)]
			if spec.OperationID != op.ID {
				t.Errorf("%s is not in the OpenAPI document", op.ID)
			}
			token, c := w.token("Acme", "owner").Token, w.client(nil)
			ask := func(path, contentType string, body []byte) answer {
				asked++
				a, err := w.do(c, op.Method, w.info.URL+path, token, contentType, body)
				if err != nil {
					t.Fatalf("%s %.80q %.80q: %v", op.ID, path, body, err)
				}
				if a.status >= 500 || a.status == 429 {
					t.Errorf("%s %.100q %.200q: %d %s", op.ID, path, body, a.status, a.body)
				}
				return a
			}
			collection, _, _ := strings.Cut(strings.TrimPrefix(op.Path, "/v1/"), "/")
			path := pathName.ReplaceAllString(op.Path, ids[collection])
			if ids[collection] == "" {
				path = pathName.ReplaceAllString(op.Path, "nobody")
			}
			if op.Method != "GET" {
				for _, b := range bodies(rnd) {
					ask(path, "application/json", b)
				}
				for _, ct := range []string{"", "text/plain", "application/xml", "multipart/form-data; boundary=x", "application/json; charset=utf-16", "\xff"} {
					ask(path, ct, []byte("{}"))
				}
				for _, s := range evil {
					ask(path, "application/json", []byte(doc.fill(spec.RequestBody.Content["application/json"].Schema, s, 0)))
				}
				if op.MaxBody <= 4<<20 {
					if a := ask(path, "application/json", make([]byte, op.MaxBody+1)); a.status != 413 {
						t.Errorf("%s with %d bytes: %d", op.ID, op.MaxBody+1, a.status)
					}
				}
			}
			for _, s := range evil {
				if strings.Contains(op.Path, "{") && s != "" {
					ask(pathName.ReplaceAllString(op.Path, url.PathEscape(s)), "application/json", []byte("{}"))
				}
				for _, p := range spec.Parameters {
					if p.In == "query" {
						ask(path+"?"+p.Name+"="+url.QueryEscape(s), "application/json", []byte("{}"))
					}
				}
			}
		}
		t.Logf("%d requests", asked)
		if asked < 1500 {
			t.Error("too few to mean anything")
		}
		w.stillGood(m, u)
		select {
		case <-live.Done():
			t.Errorf("a device lost its session: %v", live.Err())
		default:
		}
	})
}

// storetestEach runs fn on a platform over each engine.
func storetestEach(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Run("sqlite", func(t *testing.T) { fn(t, newWorld(t, "")) })
	t.Run("postgres", func(t *testing.T) { fn(t, newWorld(t, storetest.PostgresURL(t))) })
}

// stillGood asserts that the platform serves as if nothing had been.
func (w *world) stillGood(m *maker, u *unit) {
	w.t.Helper()
	w.ready()
	a, err := w.do(w.client(nil), "GET", w.info.URL+"/v1/devices/"+u.id, w.token("Acme", "owner").Token, "", nil)
	if err != nil || a.status != 200 {
		w.t.Errorf("reading a device: %d %s %v", a.status, a.body, err)
	}
	if a, err = w.do(w.client(&u.ldevid), "POST", w.info.Devices+"/d/1/messages", "", "application/json", []byte(`[{"topic":"tele/env","payload":{"still_good":1}}]`)); err != nil || a.status != 200 {
		w.t.Errorf("a message of a device: %d %s %v", a.status, a.body, err)
	}
	c, err := w.mqtt(m.make().ldevid)
	if err != nil {
		w.t.Fatalf("a new device: %v", err)
	}
	defer c.Close()
	if err := c.Publish(w.t.Context(), "ot/1/me/tele/env", []byte(`{"t":1}`)); err != nil {
		w.t.Errorf("a publish of a new device: %v", err)
	}
	// What came after the garbage is compacted and readable: nothing stands in the way.
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	owner, reader := w.token("Acme", "owner").Token, w.client(nil)
	for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
		a, err := w.do(reader, "GET", w.info.URL+"/v1/devices/"+u.id+"/telemetry/latest", owner, "", nil)
		if err == nil && strings.Contains(string(a.body), `"still_good":1`) {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the message of the device is not readable: %s %v", a.body, err)
		}
	}
}

// TestBadInputToTheDeviceDoors does the same to devices' HTTPS and to MQTT, with certificates that are good.
func TestBadInputToTheDeviceDoors(t *testing.T) {
	storetestEach(t, func(t *testing.T, w *world) {
		m := w.newMaker("Acme")
		u := m.make()
		rnd := rand.New(rand.NewPCG(3, 4))
		clients := map[gateway.Kind]*http.Client{
			gateway.None: w.client(nil), gateway.Station: w.client(&m.station), gateway.IDevID: w.client(&u.idevid), gateway.LDevID: w.client(&u.ldevid),
		}
		for _, r := range w.h.gateway.Routes() {
			method, path, _ := strings.Cut(r.Pattern, " ")
			ask := func(path string, body []byte) {
				a, err := w.do(clients[r.Need], method, w.info.Devices+path, "", "application/json", body)
				if err != nil {
					t.Errorf("%s %.80q: %v", r.Pattern, body, err)
				} else if a.status >= 500 {
					t.Errorf("%s %.200q: %d %s", r.Pattern, body, a.status, a.body)
				}
			}
			plain := pathName.ReplaceAllString(path, "x")
			for _, b := range bodies(rnd) {
				ask(plain, b)
			}
			for _, s := range evil {
				q, _ := json.Marshal(s)
				raw := `"` + strings.NewReplacer("\x00", `\u0000`, `"`, "", `\`, "").Replace(s) + `"`
				for _, v := range []string{string(q), raw} {
					ask(plain, []byte(`{"serial":`+v+`,"csr":`+v+`,"firmware":`+v+`}`))
					ask(plain, []byte(`[{"topic":"tele/env","payload":`+v+`},{"topic":`+v+`,"payload":`+v+`}]`))
					ask(plain, []byte(`[{"topic":"inv","payload":{"slots":`+v+`,"release":`+v+`}},{"topic":"ota/status","payload":`+v+`},{"topic":"cmd/x/result","payload":{"result":`+v+`}}]`))
				}
				if strings.Contains(path, "{") && s != "" {
					ask(pathName.ReplaceAllString(path, url.PathEscape(s)), nil)
				}
			}
		}
		// Messages that only the work behind the doors looks into, over MQTT.
		c, err := w.mqtt(u.ldevid)
		if err != nil {
			t.Fatal(err)
		}
		for _, topic := range []string{"tele/env", "inv", "ota/status", "ota/x/status", "cmd/x/result", "cmd/x/accepted", "event/boot"} {
			for _, s := range slices.Concat(evil, []string{`{"series":{"a\u0000b":1}}`, `{"a\u0000":1e400}`, `{"\ud800":[{}]}`, `{"digest":"\u0000","version":"\u0000","state":"\u0000","slot":"\u0000"}`}) {
				if err := c.Publish(t.Context(), "ot/1/me/"+topic, []byte(s)); err != nil && c.Err() != nil {
					if c, err = w.mqtt(u.ldevid); err != nil {
						t.Fatalf("after %s %.80q: %v", topic, s, err)
					}
				}
			}
		}
		c.Close()
		// Bytes that are no MQTT, after a handshake that is good.
		for range 60 {
			conn, err := tls.Dial("tcp", w.info.MQTT, &tls.Config{RootCAs: w.roots, Certificates: []tls.Certificate{u.ldevid}})
			if err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 1+rnd.IntN(300))
			for i := range b {
				b[i] = byte(rnd.UintN(256))
			}
			if rnd.IntN(2) == 0 {
				b = append([]byte("\x10\x0c\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00"), b...)
			}
			conn.Write(b) //nolint:errcheck // the door may have closed already
			conn.CloseWrite()
			conn.SetReadDeadline(time.Now().Add(time.Minute)) //nolint:errcheck // the read says so
			if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Errorf("a connection with garbage %x stays open", b)
			}
			conn.Close()
		}
		w.stillGood(m, u)
	})
}

// TestHalfOpenConnections: peers that begin and do not go on take nothing from those who do.
func TestHalfOpenConnections(t *testing.T) {
	w := newWorld(t, "")
	m := w.newMaker("Acme")
	u := m.make()
	for _, base := range []string{w.info.URL, w.info.Devices, "https://" + w.info.MQTT} {
		addr := strings.TrimPrefix(base, "https://")
		for i := range 100 {
			var conn net.Conn
			var err error
			if i%2 == 0 {
				conn, err = net.Dial("tcp", addr)
			} else {
				conn, err = tls.Dial("tcp", addr, &tls.Config{RootCAs: w.roots, Certificates: []tls.Certificate{u.ldevid}})
			}
			if err != nil {
				continue // the door may refuse what is too much
			}
			t.Cleanup(func() { conn.Close() })
			io.WriteString(conn, []string{"", "GET / HTTP/1.1\r\nHost: x\r\nX: ", "\x16\x03\x01", "\x10"}[i%4]) //nolint:errcheck // as above
		}
	}
	w.stillGood(m, m.make())
}

var (
	link = regexp.MustCompile(`href="(/[^"#]*)"`)
	form = regexp.MustCompile(`<form[^>]*\saction="(/[^"]*)"`)
)

// TestEveryPage walks the console from Today along its links as an owner. A stranger is sent to sign in, every other
// role sees a page or a refusal, and no form takes garbage for an answer.
func TestEveryPage(t *testing.T) {
	w := newWorld(t, "")
	m := w.newMaker("Acme")
	m.make()
	roles := map[string]string{}
	for _, r := range []string{"fleet-operator", "firmware-engineer", "product-security-officer", "compliance-officer", "auditor", "customer"} {
		roles[r] = w.token("Acme", r).Token
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	get := func(path, token string) answer {
		a, err := w.do(w.client(nil), "GET", w.info.URL+path, token, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	var forms []string
	public := []string{"/sign-in", "/assets/", "/.well-known/", "/p/", "/security/", "/label", "/self", "/told/"}
	seen, queue := map[string]bool{"/": true}, []string{"/"}
	asked := []string{"/releases/compare", "/components/review", "/self/vex.json"} // about something that a query or a statement names
	// Each page with a fixed address, whether or not a link leads there yet.
	for _, pattern := range w.h.console.Patterns() {
		method, path, _ := strings.Cut(pattern, " ")
		if method == "GET" && !strings.Contains(path, "{") && !slices.Contains(asked, path) {
			seen[path], queue = true, append(queue, path)
		}
	}
	for len(queue) > 0 {
		path := queue[0]
		queue = queue[1:]
		if strings.Contains(path, "/live") { // a stream without end
			continue
		}
		a := get(path, m.owner)
		if a.status != 200 && a.status/100 != 3 && !strings.HasPrefix(path, "/.well-known/") {
			t.Errorf("%s: %d", path, a.status)
			continue
		}
		if !slices.ContainsFunc(public, func(p string) bool { return strings.HasPrefix(path, p) }) {
			if s := get(path, ""); s.status != 303 || !strings.HasPrefix(s.header.Get("Location"), "/sign-in") {
				t.Errorf("%s for a stranger: %d", path, s.status)
			}
			for role, token := range roles {
				if a := get(path, token); a.status >= 400 && a.status != 403 && a.status != 404 {
					t.Errorf("%s as %s: %d", path, role, a.status)
				}
			}
		}
		if !strings.Contains(a.header.Get("Content-Type"), "html") {
			continue
		}
		if nothing := regexp.MustCompile(`&lt;nil&gt;|%!\w?\(|&lt;no value&gt;`).Find(a.body); nothing != nil {
			t.Errorf("%s shows people %s", path, nothing)
		}
		for _, l := range link.FindAllStringSubmatch(string(a.body), -1) {
			next := html.UnescapeString(l[1])
			if !seen[next] && len(seen) < 200 && !strings.HasPrefix(next, "/v1/") && !strings.HasPrefix(next, "/assets/") {
				seen[next] = true
				queue = append(queue, next)
			}
		}
		for _, f := range form.FindAllStringSubmatch(string(a.body), -1) {
			if action := html.UnescapeString(f[1]); !slices.Contains(forms, action) {
				forms = append(forms, action)
			}
		}
	}
	t.Logf("%d pages, %d forms", len(seen), len(forms))
	if len(seen) < 15 || len(forms) < 8 {
		t.Errorf("%d pages and %d forms were found", len(seen), len(forms))
	}
	forms = append(forms, "/sign-in/begin", "/sign-in/finish", "/enter/x/begin", "/enter/x/finish", "/access/tokens", "/access/people")
	for _, f := range forms {
		if f == "/sign-out" {
			continue
		}
		strange, err := w.do(w.client(nil), "POST", w.info.URL+f, "", "application/x-www-form-urlencoded", []byte("a=b"))
		if err != nil || (strange.status < 400) != (f == "/sign-in/begin") || strange.status >= 500 { // that one asks who it is
			t.Errorf("POST %s by a stranger: %d %v", f, strange.status, err)
		}
		c := w.client(nil)
		for _, b := range bodies(rnd) {
			for _, ct := range []string{"application/x-www-form-urlencoded", "application/json", "multipart/form-data; boundary=x"} {
				if a, err := w.do(c, "POST", w.info.URL+f, m.owner, ct, b); err != nil || a.status >= 500 {
					t.Errorf("POST %s %.60q: %d %v", f, b, a.status, err)
				}
			}
		}
	}
	w.ready()
}
