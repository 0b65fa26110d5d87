// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire"
)

// web is an HTTP client with certificate c, or none.
func (h *house) web(c *tls.Certificate) *http.Client {
	tr := &http.Transport{TLSClientConfig: h.clientTLS(c)}
	h.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

// do sends a request and returns the status, and the problem or body.
func (h *house) do(c *http.Client, method, path, body string) (int, map[string]any, error) {
	req, err := http.NewRequest(method, "https://"+h.https+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, err
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		m = map[string]any{"body": string(b)}
	}
	if resp.StatusCode >= 400 && resp.Header.Get("Content-Type") != "application/problem+json" {
		h.t.Errorf("%s %s: status %d with content type %q", method, path, resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	return resp.StatusCode, m, nil
}

func echo(g *gateway.Gateway) {
	for i, need := range []gateway.Kind{gateway.None, gateway.Station, gateway.IDevID, gateway.LDevID, gateway.LDevID} {
		var also []gateway.Kind
		if i == 4 {
			also = []gateway.Kind{gateway.IDevID, gateway.Lapsed}
		}
		g.Route(fmt.Sprintf("POST /test/%d%s/{id}", i, need), need, func(w http.ResponseWriter, r *http.Request, p gateway.Peer) {
			b, err := io.ReadAll(r.Body)
			if err != nil {
				gateway.WriteProblem(w, problem.TooLarge("too long").Because(err))
				return
			}
			fmt.Fprintf(w, `{"kind":%q,"device":%q,"n":%d}`, p.Kind, p.Device, len(b))
		}, also...)
	}
}

// TestRoutesAskForTheirKind walks all routes with every kind of peer.
func TestRoutesAskForTheirKind(t *testing.T) {
	h := newHouse(t, gateway.Limits{}, echo)
	peers := map[gateway.Kind]*http.Client{gateway.None: h.web(nil)}
	for _, k := range []gateway.Kind{gateway.Station, gateway.IDevID, gateway.LDevID, gateway.Lapsed} {
		c := h.cert(gateway.Peer{Kind: k, Tenant: "acme", Device: "dev_" + string(k)})
		peers[k] = h.web(&c)
	}
	routes := h.g.Routes()
	if len(routes) != 6 {
		t.Fatalf("%d routes, want 5 and the gateway's own", len(routes))
	}
	for _, r := range routes {
		method, path, _ := strings.Cut(strings.ReplaceAll(r.Pattern, "{id}", "x"), " ")
		for kind, c := range peers {
			status, body, err := h.do(c, method, path, "[]")
			if err != nil {
				t.Fatal(err)
			}
			allowed := r.Need == gateway.None || r.Need == kind || slices.Contains(r.Also, kind)
			if allowed != (status == 200) || !allowed && (status != 403 || body["rule"] != "door.kind") {
				t.Errorf("%s as %s: %d %v", r.Pattern, kind, status, body)
			}
		}
	}
	if status, body, _ := h.do(peers[gateway.None], "GET", "/nothing", ""); status != 404 || body["type"] != "/problems/not-found" {
		t.Errorf("an unknown route: %d %v", status, body)
	}
}

func TestPostMessages(t *testing.T) {
	h := newHouse(t, gateway.Limits{Body: 2000, Messages: 3})
	cert := h.device("dev_1")
	c := h.web(&cert)
	status, body, err := h.do(c, "POST", "/d/1/messages", `[{"topic":"tele/env","payload":{"t":1}},{"topic":"event/door","payload":{}}]`)
	if err != nil || status != 200 || body["durable"] != 2.0 {
		t.Fatalf("%d %v %v", status, body, err)
	}
	rs := h.appended()
	if len(rs) != 2 || rs[0].Device != "dev_1" || rs[0].Tenant != "acme" || rs[0].Topic != "tele/env" || string(rs[0].Body) != `{"t":1}` || rs[1].Topic != "event/door" {
		t.Errorf("appended %+v", rs)
	}
	for name, bad := range map[string]struct {
		body   string
		status int
	}{
		"foreign topic":     {`[{"topic":"tele/env","payload":1},{"topic":"cmd/c1/reboot","payload":{}}]`, 403},
		"root in the topic": {`[{"topic":"ot/1/me/tele/env","payload":1}]`, 403},
		"wildcard":          {`[{"topic":"tele/#","payload":1}]`, 403},
		"U+0000":            {`[{"topic":"tele/\u0000","payload":1}]`, 403},
		"no payload":        {`[{"topic":"tele/env"}]`, 400},
		"no list":           {`{"topic":"tele/env"}`, 400},
		"no JSON":           {`[{`, 400},
		"too many":          {`[{},{},{},{}]`, 413},
		"too long":          {`[{"topic":"tele/env","payload":"` + strings.Repeat("x", 3000) + `"}]`, 413},
	} {
		if status, body, err := h.do(c, "POST", "/d/1/messages", bad.body); err != nil || status != bad.status {
			t.Errorf("%s: %d %v %v, want %d", name, status, body, err, bad.status)
		}
	}
	if n := len(h.appended()); n != 2 {
		t.Errorf("%d records after refused requests", n)
	}
	h.set(nil, nil, errors.New("disk full"))
	if status, body, _ := h.do(c, "POST", "/d/1/messages", `[{"topic":"inv","payload":{}}]`); status != 503 || strings.Contains(fmt.Sprint(body), "disk") {
		t.Errorf("with a full disk: %d %v", status, body)
	}
}

// TestPostMessagesIsAReceipt: the answer comes after Append returned.
func TestPostMessagesIsAReceipt(t *testing.T) {
	h := newHouse(t, gateway.Limits{})
	cert := h.device("dev_1")
	c := h.web(&cert)
	hold, entered := make(chan struct{}), make(chan int, 1)
	h.set(hold, entered, nil)
	answered := make(chan int, 1)
	go func() {
		status, _, _ := h.do(c, "POST", "/d/1/messages", `[{"topic":"inv","payload":{}}]`)
		answered <- status
	}()
	<-entered
	select {
	case s := <-answered:
		t.Fatalf("status %d before the append ended", s)
	default:
	}
	close(hold)
	if s := <-answered; s != 200 {
		t.Errorf("status %d", s)
	}
}

// TestCutHTTPS: a revoked device loses its HTTPS connection in the middle of a download, and the next one is refused.
func TestCutHTTPS(t *testing.T) {
	started := make(chan struct{}, 1)
	h := newHouse(t, gateway.Limits{}, func(g *gateway.Gateway) {
		g.Route("GET /test/download", gateway.LDevID, func(w http.ResponseWriter, r *http.Request, p gateway.Peer) {
			w.Write([]byte("begin"))
			w.(http.Flusher).Flush()
			started <- struct{}{}
			<-r.Context().Done()
		})
	})
	withinASecond(t, func() time.Duration {
		cert := h.device("dev_1")
		c := h.web(&cert)
		resp, err := c.Get("https://" + h.https + "/test/download")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		<-started
		h.revoke(cert)
		start := time.Now()
		if n := h.g.Cut("dev_1", "revoked"); n != 1 {
			t.Errorf("Cut = %d", n)
		}
		if b, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("the download ended well with %q", b)
		}
		took := time.Since(start)
		if _, _, err := h.do(c, "POST", "/d/1/messages", "[]"); err == nil || !strings.Contains(err.Error(), "bad certificate") {
			t.Errorf("a new connection: %v", err)
		}
		return took
	})
}

// TestRevokedOnAnOpenConnection: each request asks the register, even if nobody cut the connection.
func TestRevokedOnAnOpenConnection(t *testing.T) {
	h := newHouse(t, gateway.Limits{})
	cert := h.device("dev_1")
	c := h.web(&cert)
	if status, body, err := h.do(c, "POST", "/d/1/messages", "[]"); status != 200 {
		t.Fatalf("%d %v %v", status, body, err)
	}
	h.revoke(cert)
	reused := false
	req, err := http.NewRequest("POST", "https://"+h.https+"/d/1/messages", bytes.NewReader([]byte("[]")))
	if err != nil {
		t.Fatal(err)
	}
	req = req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}))
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if !reused || resp.StatusCode != 403 {
		t.Errorf("status %d, connection reused: %t", resp.StatusCode, reused)
	}
}

// TestCurl: the door works for a program that is not ours.
func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	h := newHouse(t, gateway.Limits{}, echo)
	cert := h.device("dev_1")
	certFile, keyFile := h.pem(cert)
	run := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), curl, append([]string{"-sS", "--cacert", h.caFile}, args...)...).CombinedOutput()
		if err != nil {
			t.Errorf("curl: %v\n%s", err, out)
		}
		return string(out)
	}
	url := "https://" + h.https
	var receipt wire.Receipt
	out := run("--cert", certFile, "--key", keyFile, "--json", `[{"topic":"tele/env","payload":{"t":1}}]`, url+"/d/1/messages")
	if err := json.Unmarshal([]byte(out), &receipt); err != nil || receipt.Durable != 1 {
		t.Errorf("answer %q", out)
	}
	if out := run("--json", "[]", url+"/d/1/messages"); !strings.Contains(out, "door.kind") {
		t.Errorf("without a certificate: %q", out)
	}
	if out := run("--json", "{}", url+"/test/0none/x"); !strings.Contains(out, `"kind":"none"`) {
		t.Errorf("an open route: %q", out)
	}
}
