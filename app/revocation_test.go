// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// another starts a second node of w on the same database: a process of its own in everything but the process, with the
// folder of keys that both share, the authorities that an administrator copied and a journal of its own.
func (w *world) another() *world {
	w.t.Helper()
	n := &world{t: w.t, log: &record{}}
	n.cfg = w.cfg
	n.cfg.Data = filepath.Join(w.t.TempDir(), "data")
	n.cfg.Keys = filepath.Join(w.cfg.Data, "keys") // what one node seals the other opens
	authorities := filepath.Join(n.cfg.Data, "ca")
	if err := os.CopyFS(authorities, os.DirFS(filepath.Join(w.cfg.Data, "ca"))); err != nil {
		w.t.Fatal(err)
	}
	err := filepath.WalkDir(authorities, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o700)
		} else if err == nil {
			err = os.Chmod(path, 0o600)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.Chmod(n.cfg.Data, 0o700); err != nil {
		w.t.Fatal(err)
	}
	n.start()
	w.t.Cleanup(func() {
		n.stop()
		if w.t.Failed() {
			log := n.log.String()
			w.t.Logf("log of the second node:\n%s", log[max(0, len(log)-5000):])
		}
	})
	return n
}

// ends waits until the platform ends the session.
func (w *world) ends(c *mqtt.Client, what string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second) // a hanging test says less; the sweep comes after a minute
	defer cancel()
	select {
	case <-c.Done():
	case <-ctx.Done():
		w.t.Fatalf("%s: the session lives on", what)
	}
}

// on runs fn with one node on SQLite and with two on PostgreSQL; devices are on the second.
func on(t *testing.T, fn func(t *testing.T, w, node *world)) {
	t.Run("sqlite", func(t *testing.T) { w := newWorld(t, ""); fn(t, w, w) })
	t.Run("postgres, two nodes", func(t *testing.T) {
		w := newWorld(t, storetest.PostgresURL(t))
		fn(t, w, w.another())
	})
}

// TestI01_RevokedDeviceWithALiveSessionIsCut: whatever ends the trust in a device on one node ends its session on every
// node: a suspension, a revocation, a retirement, and a bar on its station or batch. A device that nobody meant stays.
func TestI01_RevokedDeviceWithALiveSessionIsCut(t *testing.T) {
	on(t, func(t *testing.T, w, node *world) {
		m := w.newMaker("Acme")
		open := func(m *maker) (*unit, *mqtt.Client) {
			t.Helper()
			u := m.make()
			c, err := node.mqtt(u.ldevid)
			if err != nil {
				t.Fatal(err)
			}
			return u, c
		}
		bystander := w.newMaker("Bystander")
		_, stays := open(bystander)
		for what, path := range map[string]string{"suspended": "/suspend", "revoked": "/revoke", "retired": "/deprovision"} {
			u, c := open(m)
			in := map[string]any{"reason": "test"}
			if what == "retired" {
				in["without_wipe"] = true
			}
			w.post(m.owner, "/v1/devices/"+u.id+path, in, nil)
			w.ends(c, what)
			if c, err := node.mqtt(u.ldevid); err == nil {
				c.Close()
				t.Errorf("%s, and admitted again", what)
			}
		}
		for scope, id := range map[string]string{"station": m.stationID, "batch": m.batch} {
			m := m
			if scope == "batch" { // what the barred station made is gone already
				m = w.newMaker("Globex")
				id = m.batch
			}
			u, c := open(m)
			var reach struct{ Devices, Certificates int64 }
			a, err := w.do(w.client(nil), "GET", w.info.URL+"/v1/revocations/preview?"+url.Values{"scope": {scope}, "id": {id}}.Encode(), m.owner, "", nil)
			if err != nil || json.Unmarshal(a.body, &reach) != nil || reach.Devices < 1 || reach.Certificates < 2 {
				t.Errorf("preview of %s: %s %v", scope, a.body, err)
			}
			a, err = w.do(w.client(nil), "POST", w.info.URL+"/v1/revocations", bystander.owner, "application/json", fmt.Appendf(nil, `{"scope":%q,"id":%q,"reason":"envy"}`, scope, id))
			if err != nil || a.status != 404 {
				t.Errorf("another tenant bars it: %d %s %v", a.status, a.body, err)
			}
			w.post(m.owner, "/v1/revocations", map[string]any{"scope": scope, "id": id, "reason": "stolen"}, nil)
			w.ends(c, scope)
			for kind, cert := range map[string]tls.Certificate{"LDevID": u.ldevid, "IDevID": u.idevid} {
				if a, err := w.do(node.client(&cert), "GET", node.info.Devices+"/.well-known/est/cacerts", "", "", nil); err == nil {
					t.Errorf("%s of a barred %s: %d", kind, scope, a.status)
				}
			}
			finished(t, w, m, scope, id)
		}
		if err := stays.Publish(t.Context(), wire.Root+"tele/env", []byte(`{"boot":1,"seq":1,"values":{"t":1}}`)); err != nil {
			t.Errorf("the bystander: %v", err)
		}
		if node != w {
			for _, n := range []*world{w, node} { // a node ends the sessions first, then it writes
				soon(t, "each node's journal holds what the other wrote", func() bool {
					b, err := os.ReadFile(filepath.Join(n.cfg.Data, "journal", "distrust.jsonl"))
					return err == nil && bytes.Count(b, []byte("\n")) >= 6 && strings.Contains(string(b), m.stationID)
				})
			}
		}
	})
}

// finished waits until every certificate of a bar is revoked.
func finished(t *testing.T, w *world, m *maker, scope, id string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
		var b struct {
			Certificates int64
			Finished     time.Time
		}
		a, err := w.do(w.client(nil), "GET", w.info.URL+"/v1/revocations/"+scope+"/"+id, m.owner, "", nil)
		if err != nil || a.status != 200 || json.Unmarshal(a.body, &b) != nil {
			t.Fatalf("%d %s %v", a.status, a.body, err)
		}
		if !b.Finished.IsZero() {
			if b.Certificates < 2 {
				t.Errorf("%d certificates of the %s were revoked", b.Certificates, scope)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the revocation does not end: %s", a.body)
		}
	}
}

// sessions is what a TLS client keeps of its sessions, and counts the tickets that it was given.
type sessions struct {
	tls.ClientSessionCache
	given atomic.Int64
}

func keepsSessions() *sessions { return &sessions{ClientSessionCache: tls.NewLRUClientSessionCache(4)} }

func (s *sessions) Put(key string, c *tls.ClientSessionState) {
	if c != nil {
		s.given.Add(1)
	}
	s.ClientSessionCache.Put(key, c)
}

// generous is a server that hands out tickets, as the doors do not, and asks the register as they do. It has the last word of
// one connection: whether a session was resumed, and how its handshake ended.
type generous struct {
	conf    *tls.Config
	resumed bool
}

func newGenerous(t *testing.T, w *world) *generous {
	g := &generous{}
	g.conf = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{selfSigned(t, newKey(t))}, ClientAuth: tls.RequireAnyClientCert,
		VerifyConnection: func(s tls.ConnectionState) error {
			g.resumed = s.DidResume
			_, err := w.h.identity.Admit(context.Background(), s.PeerCertificates[0])
			return err
		}}
	return g
}

// meets connects once, and reads to the end, so that the client has its ticket.
func (g *generous) meets(t *testing.T, cert tls.Certificate, kept *sessions) (resumed bool, err error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ended := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			s := tls.Server(conn, g.conf)
			err = s.Handshake()
			s.Close()
		}
		ended <- err
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{ServerName: "generous", InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}, ClientSessionCache: kept})
	if err == nil {
		_, _ = io.ReadAll(c)
		c.Close()
	}
	err = <-ended
	return g.resumed, err
}

// TestI02_RevokedDeviceWithATicketIsRefused: a TLS client that kept what it could of its last session does not resume it
// past the register. The doors hand out no ticket; and where a server does, the register is asked for a resumed session too.
func TestI02_RevokedDeviceWithATicketIsRefused(t *testing.T) {
	w := newWorld(t, "")
	m := w.newMaker("Acme")
	other := newGenerous(t, w)
	for _, what := range []string{"LDevID", "IDevID"} {
		u := m.make() // to deprovision it ends both of its certificates
		cert := u.ldevid
		if what == "IDevID" {
			cert = u.idevid
		}
		c := w.client(&cert)
		tr := c.Transport.(*http.Transport)
		tr.DisableKeepAlives = true
		atDoor, atOther := keepsSessions(), keepsSessions()
		tr.TLSClientConfig.ClientSessionCache = atDoor
		ask := func() (answer, error) { return w.do(c, "GET", w.info.Devices+"/.well-known/est/cacerts", "", "", nil) }
		for i := range 2 { // the second one resumes where it can
			if a, err := ask(); err != nil || a.status != 200 {
				t.Fatalf("%s before: %d %v", what, a.status, err)
			}
			if resumed, err := other.meets(t, cert, atOther); err != nil || resumed != (i > 0) {
				t.Fatalf("%s before, at a server with tickets: resumed %v, %v", what, resumed, err)
			}
		}
		if n := atDoor.given.Load(); n != 0 {
			t.Errorf("the door gave %d tickets to a device with its %s", n, what)
		}
		if what == "LDevID" {
			w.post(m.owner, "/v1/devices/"+u.id+"/revoke", map[string]any{"reason": "lost"}, nil)
		} else {
			w.post(m.owner, "/v1/devices/"+u.id+"/deprovision", map[string]any{"reason": "lost", "without_wipe": true}, nil)
		}
		if a, err := ask(); err == nil {
			t.Errorf("a revoked %s is answered %d", what, a.status)
		}
		if resumed, err := other.meets(t, cert, atOther); !resumed || !problem.Is(err, problem.KindForbidden) {
			t.Errorf("a revoked %s with a ticket: resumed %v, %v", what, resumed, err)
		}
	}
}

// TestI03_RevocationStoreUnreachable: when the database is gone, nobody is admitted, nothing is issued and no command
// leaves, and readiness says so.
func TestI03_RevocationStoreUnreachable(t *testing.T) {
	dbURL, stopDB, err := storetest.StartPostgres()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { stopDB() }()
	w := newWorld(t, dbURL)
	w.expectErrors = true
	m := w.newMaker("Acme")
	u := m.make()
	live, err := w.mqtt(u.ldevid)
	if err != nil {
		t.Fatal(err)
	}
	enrolling := w.client(&u.idevid) // its connection is open already
	if a, err := w.do(enrolling, "GET", w.info.Devices+"/.well-known/est/csrattrs", "", "", nil); err != nil || a.status >= 300 {
		t.Fatalf("%d %s %v", a.status, a.body, err)
	}
	stopDB()
	stopDB = func() {}
	if c, err := w.mqtt(u.ldevid); err == nil {
		c.Close()
		t.Error("a session begins while the register cannot be read")
	}
	for what, c := range map[string]*http.Client{"an open connection": enrolling, "a new connection": w.client(&u.idevid)} {
		a, err := w.do(c, "POST", w.info.Devices+"/.well-known/est/simpleenroll", "", "application/pkcs10", csrPEM(t, newKey(t), "x"))
		if err == nil && a.status < 400 {
			t.Errorf("over %s a device enrols: %d %s", what, a.status, a.body)
		}
	}
	a, err := w.do(w.client(nil), "POST", w.info.URL+"/v1/devices/"+u.id+"/commands", m.owner, "application/json", []byte(`{"name":"identify","args":{}}`))
	if err == nil && a.status < 400 {
		t.Errorf("a command is taken: %d %s", a.status, a.body)
	}
	if err := live.Publish(t.Context(), wire.Root+"tele/env", []byte(`{"boot":1,"seq":1,"values":{"t":1}}`)); err == nil {
		t.Error("telemetry has a receipt and no place on a disk")
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); w.h.identity.Ready() == nil; <-tick.C { // until the feed is stale
		if time.Now().After(deadline) {
			t.Fatal("a node that hears of no revocation still vouches for its devices")
		}
	}
	if err := w.h.send(t.Context(), gateway.Downlink{Device: u.id, Topic: wire.TopicOffer, Payload: []byte("{}")}); !problem.Is(err, problem.KindUnavailable) {
		t.Errorf("a command leaves: %v", err)
	}
	if a, err := w.do(http.DefaultClient, "GET", w.info.Health+"/readyz", "", "", nil); err != nil || a.status != 503 || !strings.Contains(string(a.body), "revocation") {
		t.Errorf("/readyz: %d %s %v", a.status, a.body, err)
	}
}

// TestI12_RestoredBackupRevivesNobody: yesterday's backup, as an operator makes it, takes today's revocations back
// nowhere: one device revoked, one retired, and a whole station barred.
func TestI12_RestoredBackupRevivesNobody(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		w := newWorld(t, "")
		dir := t.TempDir()
		files := []string{"platform.db", "telemetry.db"}
		testRestore(t, w, func() {
			for _, name := range files {
				db, err := sql.Open("sqlite", "file:"+filepath.Join(w.cfg.Data, name))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := db.Exec(`VACUUM INTO '` + filepath.Join(dir, name) + `'`); err != nil {
					t.Fatal(err)
				}
				db.Close()
			}
		}, func() {
			for _, name := range files {
				os.Remove(filepath.Join(w.cfg.Data, name+"-wal"))
				os.Remove(filepath.Join(w.cfg.Data, name+"-shm"))
				b, err := os.ReadFile(filepath.Join(dir, name))
				if err == nil {
					err = os.WriteFile(filepath.Join(w.cfg.Data, name), b, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		})
	})
	t.Run("postgres", func(t *testing.T) {
		server, stopDB, err := storetest.StartPostgres()
		if err != nil {
			t.Fatal(err)
		}
		defer stopDB()
		admin, err := sql.Open("pgx", server)
		if err != nil {
			t.Fatal(err)
		}
		defer admin.Close()
		exec := func(q string) {
			t.Helper()
			if _, err := admin.Exec(q); err != nil {
				t.Fatal(err)
			}
		}
		exec(`CREATE DATABASE live`)
		w := newWorld(t, strings.Replace(server, "/postgres?", "/live?", 1))
		defer w.stop() // before the server
		testRestore(t, w, func() {
			w.stop()
			exec(`CREATE DATABASE backup TEMPLATE live`)
			w.start()
		}, func() {
			exec(`DROP DATABASE live`)
			exec(`CREATE DATABASE live TEMPLATE backup`)
		})
	})
}

func testRestore(t *testing.T, w *world, backup, restore func()) {
	m, theft := w.newMaker("Acme"), w.newMaker("Globex")
	stays, revoked, retired, stolen := m.make(), m.make(), m.make(), theft.make()
	for _, u := range []*unit{stays, revoked, retired, stolen} {
		c, err := w.mqtt(u.ldevid)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	backup()
	w.post(m.owner, "/v1/devices/"+revoked.id+"/revoke", map[string]any{"reason": "lost"}, nil)
	w.post(m.owner, "/v1/devices/"+retired.id+"/deprovision", map[string]any{"reason": "lost", "without_wipe": true}, nil)
	w.post(theft.owner, "/v1/revocations", map[string]any{"scope": "station", "id": theft.stationID, "reason": "stolen"}, nil)
	w.stop()
	restore()
	w.expectErrors = true // the log has to tell
	w.start()
	refuses := func() {
		t.Helper()
		for what, cert := range map[string]tls.Certificate{
			"revoked": revoked.ldevid, "retired": retired.ldevid, "retired, IDevID": retired.idevid,
			"stolen": stolen.ldevid, "stolen, IDevID": stolen.idevid, "the station": theft.station,
		} {
			if a, err := w.do(w.client(&cert), "GET", w.info.Devices+"/.well-known/est/cacerts", "", "", nil); err == nil {
				t.Fatalf("%s: answered %d", what, a.status)
			}
		}
	}
	refuses()
	if err := w.h.audit.Acknowledge(t.Context(), "host", "the disk broke"); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(60 * time.Second); ; <-tick.C { // until who is trusted is admitted
		refuses()
		c, err := w.mqtt(stays.ldevid)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the doors stay shut: %v", err)
		}
	}
	refuses()
	finished(t, w, theft, "station", theft.stationID)
	w.stop()
	w.start() // and for good
	refuses()
	w.ready()
}

// TestI14_CertificateOfAnotherTenant: whatever a station or device of one tenant asks for at the doors, it gets nothing of
// another tenant and puts nothing there.
func TestI14_CertificateOfAnotherTenant(t *testing.T) {
	w := newWorld(t, "")
	a, b := w.newMaker("Acme"), w.newMaker("Globex")
	ua, ub := a.make(), b.make()

	// A unit that the station of Acme makes is Acme's, also under a serial number of Globex; Globex's code claims it not.
	key := newKey(t)
	body, err := json.Marshal(wire.LineRequest{Serial: "SN-B", CSR: string(csrPEM(t, key, "SN-B"))})
	if err != nil {
		t.Fatal(err)
	}
	for serial, idevid := range map[string]tls.Certificate{"station": a.station} {
		r, err := w.do(w.client(&idevid), "POST", w.info.Devices+"/d/1/line/devices", "", "application/json", body)
		if err == nil && r.status == 200 {
			t.Errorf("%s made a second SN-B of its own product: %s", serial, r.body)
		}
	}
	if r, err := w.do(w.client(nil), "POST", w.info.URL+"/v1/claims", b.owner, "application/json", fmt.Appendf(nil, `{"code":%q,"solution":%q}`, ua.claim, b.solution)); err != nil || r.status < 400 {
		t.Errorf("Globex claims Acme's unit: %d %s %v", r.status, r.body, err)
	}
	// Acme's device writes as itself, whatever it names; the other's tree is not below its root.
	c, err := w.mqtt(ua.ldevid)
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range []string{"ot/1/" + ub.id + "/tele/env", "ot/1/" + b.tenant + "/" + ub.id + "/tele/env", "../" + ub.id + "/tele/env"} {
		if err := c.Publish(t.Context(), topic, []byte(`{}`)); err == nil {
			t.Errorf("it publishes to %s", topic)
		}
		if c, err = w.mqtt(ua.ldevid); err != nil {
			t.Fatal(err)
		}
		if err := c.Subscribe(t.Context(), topic); err == nil {
			t.Errorf("it subscribes to %s", topic)
		}
		if c, err = w.mqtt(ua.ldevid); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	// Acme's LDevID re-enrols nobody but itself, and Acme's IDevID gets an LDevID of Acme's device only.
	for what, q := range map[string]struct {
		cert tls.Certificate
		path string
	}{"IDevID": {ua.idevid, "/.well-known/est/simpleenroll"}, "LDevID": {ua.ldevid, "/.well-known/est/simplereenroll"}} {
		req := csrPEM(t, newKey(t), ub.id)
		r, err := w.do(w.client(&q.cert), "POST", w.info.Devices+q.path, "", "application/pkcs10", req)
		if err != nil {
			t.Fatal(err)
		}
		cs, err := w.h.identity.Certificates(t.Context(), b.tenant, ub.id)
		if err != nil || len(cs) != 2 {
			t.Errorf("%s: %d; the other's device has %d certificates (%v)", what, r.status, len(cs), err)
		}
	}
	// What the doors say of each peer is its own tenant.
	for _, x := range []struct {
		cert   tls.Certificate
		tenant string
	}{{ua.ldevid, a.tenant}, {ub.ldevid, b.tenant}, {a.station, a.tenant}, {ub.idevid, b.tenant}} {
		if p, err := w.h.identity.Admit(t.Context(), x.cert.Leaf); err != nil || p.Tenant != x.tenant {
			t.Errorf("%+v %v", p, err)
		}
	}
	// Tokens and certificates do not stand in for each other: the people's door knows no device.
	if r, err := w.do(w.client(&ua.ldevid), "GET", w.info.URL+"/v1/devices/"+ub.id, "", "", nil); err != nil || r.status != 401 {
		t.Errorf("a device at the people's door: %d %v", r.status, err)
	}
	if r, err := w.do(w.client(nil), "GET", w.info.URL+"/v1/devices/"+ub.id+"/certificates", a.owner, "", nil); err != nil || r.status != 404 {
		t.Errorf("Acme reads Globex's certificates: %d %s %v", r.status, r.body, err)
	}
	var leaked []gateway.Peer
	for _, p := range w.h.gateway.Peers() {
		if p.Tenant != a.tenant && p.Tenant != b.tenant {
			leaked = append(leaked, p)
		}
	}
	if len(leaked) > 0 {
		t.Errorf("%+v", leaked)
	}
}

// TestRevocationIsPublished: openssl asks the running platform about real devices, by revocation list and by OCSP.
func TestRevocationIsPublished(t *testing.T) {
	w := newWorld(t, "")
	w.stop()
	w.cfg.PublicURL = "https://things.example:8443"
	w.start()
	m := w.newMaker("Acme")
	good, bad := m.make(), m.make()
	w.post(m.owner, "/v1/devices/"+bad.id+"/revoke", map[string]any{"reason": "lost"}, nil)
	dir := t.TempDir()
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (string, error) {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	chain, err := w.h.identity.Chain(t.Context(), "ldevid")
	if err != nil {
		t.Fatal(err)
	}
	write("chain.pem", chain)
	first, _, _ := bytes.Cut(chain, []byte("-----END CERTIFICATE-----\n"))
	write("issuer.pem", append(bytes.Clone(first), "-----END CERTIFICATE-----\n"...))
	for name, u := range map[string]*unit{"good": good, "bad": bad} {
		write(name+".pem", pemCert(u.ldevid.Certificate[0]))
		if len(u.ldevid.Leaf.OCSPServer) != 1 || u.ldevid.Leaf.OCSPServer[0] != "https://things.example:8443/ocsp" {
			t.Errorf("%s names %v", name, u.ldevid.Leaf.OCSPServer)
		}
		// OCSP as POST, over real TLS, checked by openssl with a nonce.
		if out, err := run("openssl", "ocsp", "-issuer", "issuer.pem", "-cert", name+".pem", "-reqout", name+".req"); err != nil {
			t.Fatal(out)
		}
		req, err := os.ReadFile(filepath.Join(dir, name+".req"))
		if err != nil {
			t.Fatal(err)
		}
		a, err := w.do(w.client(nil), "POST", w.info.URL+"/ocsp", "", "application/ocsp-request", req)
		if err != nil || a.header.Get("Content-Type") != "application/ocsp-response" {
			t.Fatalf("%d %s %v", a.status, a.body, err)
		}
		write(name+".resp", a.body)
		out, err := run("openssl", "ocsp", "-issuer", "issuer.pem", "-cert", name+".pem", "-no_nonce", "-reqin", name+".req", "-respin", name+".resp", "-CAfile", "chain.pem")
		want := map[string]string{"good": "good.pem: good", "bad": "bad.pem: revoked"}[name]
		if err != nil || !strings.Contains(out, "Response verify OK") || !strings.Contains(out, want) {
			t.Errorf("openssl ocsp: %s %v", out, err)
		}
	}
	// The list is there within a second, where the certificates say.
	if len(bad.ldevid.Leaf.CRLDistributionPoints) != 1 {
		t.Fatalf("the certificate names %v", bad.ldevid.Leaf.CRLDistributionPoints)
	}
	point, err := url.Parse(bad.ldevid.Leaf.CRLDistributionPoints[0])
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var list answer
	for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
		if list, err = w.do(w.client(nil), "GET", w.info.URL+point.Path, "", "", nil); err == nil && list.status == 200 {
			if l, err := x509.ParseRevocationList(list.body); err == nil && len(l.RevokedCertificateEntries) == 1 {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d %v", list.status, err)
		}
	}
	write("list.crl", list.body)
	if out, err := run("openssl", "crl", "-inform", "der", "-in", "list.crl", "-out", "list.pem", "-CAfile", "chain.pem"); err != nil || !strings.Contains(out, "verify OK") {
		t.Errorf("openssl crl: %s %v", out, err)
	}
	verify := func(name string) (string, error) {
		return run("openssl", "verify", "-CAfile", "chain.pem", "-crl_check", "-extended_crl", "-CRLfile", "list.pem", name+".pem")
	}
	if out, err := verify("good"); err != nil {
		t.Errorf("openssl verify refuses a good device: %s", out)
	}
	if out, err := verify("bad"); err == nil || !strings.Contains(out, "revoked") {
		t.Errorf("openssl verify of a revoked device: %s", out)
	}
	for name, refused := range map[string]bool{"good": false, "bad": true} {
		out, err := run("certtool", "--verify", "--load-ca-certificate", "chain.pem", "--load-crl", "list.pem", "--infile", name+".pem")
		if (err != nil) != refused || refused && !strings.Contains(out, "revoked") {
			t.Errorf("certtool on the %s device: %s %v", name, out, err)
		}
	}
	delta, err := w.do(w.client(nil), "GET", w.info.URL+strings.Replace(point.Path, ".crl", ".delta.crl", 1), "", "", nil)
	if err != nil || delta.status != 200 {
		t.Errorf("the delta: %d %v", delta.status, err)
	}
	for _, path := range []string{"/crl/operational-1/999.crl", "/crl/operational-1/x", "/crl/", "/crl/../ca.pem"} {
		if a, err := w.do(w.client(nil), "GET", w.info.URL+path, "", "", nil); err != nil || a.status != 404 {
			t.Errorf("%s: %d %v", path, a.status, err)
		}
	}
}

func pemCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
