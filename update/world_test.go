// SPDX-License-Identifier: AGPL-3.0-only

package update_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/agent"
	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/blob"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/telemetry"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/update"
	"github.com/openthings-platform/openthings/wire"
)

const ten = "ten_a"

var schema = []store.Migrations{seal.Schema, api.Schema, audit.Schema, product.Schema, identity.Schema, enroll.Schema, fleet.Schema,
	telemetry.CatalogueSchema, telemetry.Schema, sbom.Schema, update.Schema}

// world is the part of the house that an update goes through, all of it real, with a signing folder beside it.
type world struct {
	*update.Service
	t           *testing.T
	db          *store.DB
	products    *product.Service
	identity    *identity.Service
	fleet       *fleet.Service
	gateway     *gateway.Gateway
	api         *api.API
	roots       *x509.CertPool
	mqtt, https string
	dir         string // signing folder and files
	product     product.Product
	ended       chan string       // device and state of updates that ended
	moved       chan string       // state of deployments that ended
	ready       chan string       // devices that subscribed
	dirs        map[string]string // state directories by device
	full        atomic.Int64      // how many ends of updates that were rolled back the platform cannot keep
}

// each runs fn in a fresh world on both engines.
func each(t *testing.T, fn func(t *testing.T, w *world)) {
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) { fn(t, newWorld(t, db)) })
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newWorld(t *testing.T, db *store.DB, edit ...func(*update.Config)) *world {
	dir := t.TempDir()
	keys := must[*seal.Keys](t)(seal.Open(filepath.Join(dir, "keys"), clock.System))
	issuer := must[*embedded.Issuer](t)(embedded.Open(embedded.Config{Dir: filepath.Join(dir, "ca"), Keys: keys, Name: "Test"}))
	w := &world{t: t, db: db, dir: filepath.Join(dir, "sign"), ended: make(chan string, 1000), moved: make(chan string, 1000), ready: make(chan string, 1000), dirs: map[string]string{}}
	w.identity = must[*identity.Service](t)(identity.New(identity.Config{DB: db, Issuer: issuer}))
	w.products = product.New(product.Config{DB: db})
	w.fleet = fleet.New(fleet.Config{DB: db, Identity: w.identity, Product: w.products})
	tele := telemetry.New(telemetry.Config{DB: db, Platform: db, Keys: keys, Identity: w.identity})
	blobs := must[*blob.Dir](t)(blob.NewDir(filepath.Join(dir, "blobs")))
	bills := sbom.New(sbom.Config{DB: db, Blobs: blobs, ProductOf: func(ctx context.Context, t, r string) (string, error) { return w.ProductOf(ctx, t, r) }})
	serverCert := must[tls.Certificate](t)(w.identity.ServerCertificate([]string{"127.0.0.1"}))
	w.gateway = must[*gateway.Gateway](t)(gateway.New(gateway.Config{Admit: w.identity.Admit, Used: w.identity.Used, Append: func(ctx context.Context, records []gateway.Record) error {
		for _, r := range records {
			if strings.HasPrefix(r.Topic, "ota/") && bytes.Contains(r.Body, []byte(wire.UpdateRolledBack)) && w.full.Add(-1) >= 0 {
				return errors.New("the disk is full")
			}
		}
		return tele.Append(ctx, records)
	},
		Online: w.fleet.Online, Offline: w.fleet.Offline, Ready: func(p gateway.Peer) {
			w.Ready(p)
			w.ready <- p.Device
		},
		TLS: &tls.Config{Certificates: []tls.Certificate{serverCert}}, Log: slog.New(slog.DiscardHandler)}))
	cfg := update.Config{DB: db, Blobs: blobs, Identity: w.identity, Product: w.products, SBOM: bills, Fleet: w.fleet,
		Send: w.gateway.Send, Live: w.gateway.Live, Checks: []string{update.CheckSignature, update.CheckSBOM, "night-watch"}}
	for _, e := range edit {
		e(&cfg)
	}
	w.Service = update.New(cfg)
	tele.Route("ota/", w.Status)
	tele.Route("inv", w.Inventory)
	tele.Route("state/", w.fleet.Reported)
	enroll.New(enroll.Config{DB: db, Identity: w.identity, Products: w.products, TrustRoot: w.TrustRoot}).Doors(w.gateway)
	w.DeviceRoutes(w.gateway)
	w.roots = x509.NewCertPool()
	w.roots.AppendCertsFromPEM(w.identity.Roots())
	db.On("update.ended", "test", func(_ context.Context, e store.Event) error {
		var d struct{ State string }
		err := e.Decode(&d)
		w.ended <- e.Subject + " " + d.State
		return err
	})
	db.On("deployment.ended", "test", func(_ context.Context, e store.Event) error {
		var d struct{ State string }
		err := e.Decode(&d)
		w.moved <- d.State
		return err
	})
	w.serve(tele)
	w.api = api.New(api.Config{DB: db, Clock: clock.System, Log: slog.New(slog.DiscardHandler), Holds: tenant.Holds,
		Authenticate: func(r *http.Request) (context.Context, error) {
			role := tenant.Role(r.Header.Get("Role"))
			return tenant.WithActor(r.Context(), tenant.Actor{ID: "per_" + string(role), Tenant: ten, Grants: []tenant.Grant{{Role: role, Tenant: ten}}}), nil
		}, Caller: func(context.Context) string { return "x" }})
	w.Routes(w.api)
	w.product = must[product.Product](t)(w.products.Create(t.Context(), product.Product{Tenant: ten, Name: "Lamp", Model: "lamp"}, "per_1"))
	w.revision("rev-c", time.Now().AddDate(6, 0, 0))
	if err := update.SignInit(w.dir, update.SignInitOptions{}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) revision(name string, supportEnd time.Time) product.Revision {
	w.t.Helper()
	return must[product.Revision](w.t)(w.products.CreateRevision(w.t.Context(), product.Revision{Tenant: ten, Product: w.product.ID, Name: name,
		Placed: time.Now().AddDate(-9, 0, 0), SupportEnd: supportEnd, Reason: "short-lived"}, "per_1"))
}

// serve runs doors and background work until the end of the test.
func (w *world) serve(tele *telemetry.Service) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	run := func(fn func(context.Context) error) {
		running.Go(func() {
			if err := fn(ctx); err != nil && ctx.Err() == nil {
				w.t.Error(err)
			}
		})
	}
	listen := func(fn func(context.Context, net.Listener) error) string {
		l := must[net.Listener](w.t)(net.Listen("tcp", "127.0.0.1:0"))
		run(func(ctx context.Context) error { return fn(ctx, l) })
		return l.Addr().String()
	}
	w.mqtt, w.https = listen(w.gateway.ServeMQTT), listen(w.gateway.ServeHTTPS)
	run(w.db.RunJobs)
	run(tele.Work)
	run(w.fleet.Work)
	run(w.Work)
	w.t.Cleanup(func() { cancel(); running.Wait() })
}

// device makes a claimed unit whose agent runs until the end of the test.
func (w *world) device(serial string, edit func(*agent.Config)) string {
	w.t.Helper()
	dir := filepath.Join(w.t.TempDir(), "state")
	csrPEM := must[[]byte](w.t)(agent.Provision(dir, serial))
	csr := must[*identity.CSR](w.t)(identity.ParseCSRPEM(string(csrPEM)))
	revisions := must[[]product.Revision](w.t)(w.products.Revisions(w.t.Context(), ten, w.product.ID))
	var d identity.Device
	w.write(func(tx *store.Tx) (err error) {
		d, err = w.identity.Register(tx, identity.Device{Tenant: ten, Product: w.product.ID, Revision: revisions[0].ID, Serial: serial}, "per_1")
		return err
	})
	cert, _, err := w.identity.Issue(w.t.Context(), identity.IssueRequest{Tenant: ten, Subject: d.ID, Kind: identity.IDevID, CSR: csr, Actor: "per_1"})
	if err != nil {
		w.t.Fatal(err)
	}
	chain := must[[]byte](w.t)(w.identity.Chain(w.t.Context(), identity.IDevID))
	root := must[json.RawMessage](w.t)(w.TrustRoot(w.t.Context(), ten))
	if err := agent.Install(dir, wire.LineResponse{Device: d.ID, Certificate: pemOf(cert.DER), Chain: string(chain), TrustRoot: root}); err != nil {
		w.t.Fatal(err)
	}
	w.write(func(tx *store.Tx) error {
		return w.identity.SetState(tx, ten, d.ID, identity.Pending, "per_1", "claimed")
	})
	c := agent.Config{Dir: dir, HTTPS: w.https, MQTT: w.mqtt, Product: w.product.ID, Revision: "rev-c", Roots: w.roots, Interval: time.Hour, Retry: 10 * time.Millisecond}
	if edit != nil {
		edit(&c)
	}
	w.dirs[d.ID] = dir
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = agent.Supervise(ctx, c) }()
	w.t.Cleanup(func() { cancel(); <-ended })
	return d.ID
}

func (w *world) write(fn func(tx *store.Tx) error) {
	w.t.Helper()
	if err := w.db.Write(w.t.Context(), fn); err != nil {
		w.t.Fatal(err)
	}
}

// do calls the API in a role; out may be nil. It returns the status and, for a problem, its rule.
func (w *world) do(role tenant.Role, method, path string, body io.Reader, contentType string, out any) (status int, rule string) {
	w.t.Helper()
	r := httptest.NewRequest(method, path, body)
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("Role", string(role))
	rec := httptest.NewRecorder()
	w.api.ServeHTTP(rec, r)
	var p struct{ Rule, Detail string }
	if rec.Code >= 300 {
		if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil {
			w.t.Fatalf("%s %s: %d %s", method, path, rec.Code, rec.Body)
		}
		if rec.Code >= 500 {
			w.t.Fatalf("%s %s: %d %s", method, path, rec.Code, rec.Body)
		}
	} else if out != nil {
		if err := json.Unmarshal(rec.Body.Bytes(), out); err != nil {
			w.t.Fatalf("%s %s: %v in %s", method, path, err, rec.Body)
		}
	}
	return rec.Code, p.Rule
}

func (w *world) json(role tenant.Role, method, path string, in, out any) (int, string) {
	w.t.Helper()
	return w.do(role, method, path, bytes.NewReader(must[[]byte](w.t)(json.Marshal(in))), "application/json", out)
}

// file is a file of the manufacturer's.
func (w *world) file(name, content string) string {
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func bill(image string) string {
	return fmt.Sprintf(`{"bomFormat":"CycloneDX","specVersion":"1.6","metadata":{"component":{"type":"firmware","name":"lamp","version":"x",
		"hashes":[{"alg":"SHA-256","content":%q}]}},"components":[{"type":"library","name":"zlib","version":"1.3","purl":"pkg:generic/zlib@1.3"}]}`,
		strings.TrimPrefix(wire.Digest([]byte(image)), "sha256:"))
}

// release is what the manufacturer sends.
type release struct{ targets, sbom, image, vex string }

// sign signs an image as the manufacturer does.
func (w *world) sign(version string, security int64, image string, edit func(*update.SignReleaseOptions)) release {
	w.t.Helper()
	o := update.SignReleaseOptions{Dir: w.dir, Image: w.file("image", image), SBOM: w.file("sbom", bill(image)), Product: w.product.ID,
		HW: []string{"rev-c"}, Version: version, SecurityVersion: security}
	if edit != nil {
		edit(&o)
	}
	if err := update.SignRelease(o); err != nil {
		w.t.Fatal(err)
	}
	read := func(path string) string { return string(must[[]byte](w.t)(os.ReadFile(path))) }
	return release{targets: read(filepath.Join(w.dir, update.FileTargets)), sbom: read(o.SBOM), image: read(o.Image)}
}

func (w *world) upload(role tenant.Role, r release) (update.ReleaseOut, int, string) {
	w.t.Helper()
	var body bytes.Buffer
	m := multipart.NewWriter(&body)
	for _, p := range []struct{ name, content string }{{"targets", r.targets}, {"sbom", r.sbom}, {"vex", r.vex}, {"image", r.image}} {
		if p.content == "" {
			continue
		}
		part := must[io.Writer](w.t)(m.CreateFormFile(p.name, p.name))
		must[int](w.t)(io.WriteString(part, p.content))
	}
	if err := m.Close(); err != nil {
		w.t.Fatal(err)
	}
	var out update.ReleaseOut
	status, rule := w.do(role, "POST", "/v1/releases", &body, m.FormDataContentType(), &out)
	return out, status, rule
}

func (w *world) setRoot() {
	w.t.Helper()
	root := must[[]byte](w.t)(os.ReadFile(filepath.Join(w.dir, update.FileRoot)))
	if code, rule := w.do(tenant.Owner, "POST", "/v1/trust/root", bytes.NewReader(root), "application/json", nil); code != 201 {
		w.t.Fatalf("trust root: %d %s", code, rule)
	}
}

// published takes a release through the gate.
func (w *world) published(version string, security int64, image string) update.ReleaseOut {
	w.t.Helper()
	r, code, rule := w.upload(tenant.Owner, w.sign(version, security, image, nil))
	if code != 201 {
		w.t.Fatalf("upload: %d %s", code, rule)
	}
	w.write(func(tx *store.Tx) error {
		return w.RecordCheck(tx, ten, r.ID, "night-watch", update.Pass, "all quiet", "watch")
	})
	if code, rule := w.json(tenant.Owner, "POST", "/v1/releases/"+r.ID+"/publish", nil, &r); code != 200 || r.State != update.Published {
		w.t.Fatalf("publish: %d %s %+v", code, rule, r)
	}
	return r
}

// await returns the next words on c.
func await(t *testing.T, c <-chan string) string {
	t.Helper()
	select {
	case s := <-c:
		return s
	case <-time.After(time.Minute):
		t.Fatal("nothing happened")
		return ""
	}
}

// leaves counts the entries of the audit log of a kind.
func (w *world) leaves(kind string) (n int) {
	w.t.Helper()
	if err := w.db.QueryRow(w.t.Context(), `SELECT COUNT(*) FROM audit_entry WHERE tenant = $1 AND kind = $2`, ten, kind).Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// sqlite is one database, for stories that another test already tells on both engines.
func sqlite(t *testing.T) *store.DB { return storetest.Open(t, storetest.SQLiteURL(t), schema) }
