// SPDX-License-Identifier: AGPL-3.0-only

package update_test

import (
	"bytes"
	"context"
	"crypto"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/openthings-platform/openthings/agent"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/update"
	"github.com/openthings-platform/openthings/update/trust"
	"github.com/openthings-platform/openthings/wire"
)

func pemOf(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// TestUpdateReachesDevices is the whole way: signed offline, uploaded, checked, published, deployed in waves to real
// agents, committed by what the new systems report.
func TestUpdateReachesDevices(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.setRoot()
		r := w.published("2.0.0", 4, "the new image")
		devices := map[string]bool{}
		for _, serial := range []string{"A1", "A2", "A3", "A4"} {
			devices[w.device(serial, nil)] = true
		}
		var d update.DeploymentOut
		if code, rule := w.json(tenant.FleetOperator, "POST", "/v1/deployments", map[string]any{"release": r.ID, "waves": []int64{30, 100}}, &d); code != 201 {
			t.Fatalf("deployment: %d %s", code, rule)
		}
		for range 4 {
			device, state, _ := strings.Cut(await(t, w.ended), " ")
			if state != "committed" || !devices[device] {
				t.Errorf("%s %s", device, state)
			}
			delete(devices, device)
		}
		if s := await(t, w.moved); s != update.Completed {
			t.Errorf("the deployment ended as %s", s)
		}
		counts, err := w.fleet.CountByRelease(t.Context(), ten)
		if err != nil || counts[r.ID] != 4 {
			t.Errorf("installed on %v, %v", counts, err)
		}
		code, _ := w.json(tenant.Auditor, "GET", "/v1/deployments/"+d.ID, nil, &d)
		if code != 200 || d.Counts["committed"] != 4 || d.Waves[0].State != update.WaveDone || d.Waves[1].State != update.WaveDone {
			t.Errorf("%d %+v", code, d)
		}
		for kind, n := range map[string]int{"release.uploaded": 1, "release.published": 1, "deployment.started": 1, "deployment.completed": 1, "update.committed": 4, "trust.root-set": 1} {
			if got := w.leaves(kind); got != n {
				t.Errorf("%d leaves %s, want %d", got, kind, n)
			}
		}
		// A device that comes later is not part of what is complete; a new deployment reaches it alone.
		late := w.device("A5", nil)
		for await(t, w.ready) != late {
		}
		if code, rule := w.json(tenant.Owner, "POST", "/v1/deployments", map[string]any{"release": r.ID, "waves": []int64{100}}, nil); code != 201 {
			t.Fatalf("deployment: %d %s", code, rule)
		}
		if got := await(t, w.ended); got != late+" committed" {
			t.Errorf("%s; want %s", got, late)
		}
	})
}

// TestFirstWaveTriesOne: a wave of 1 % of three devices is one device, and the others wait for it.
func TestFirstWaveTriesOne(t *testing.T) {
	w := newWorld(t, sqlite(t))
	w.setRoot()
	r := w.published("2.0.0", 4, "the new image")
	connected := map[string]bool{}
	for _, serial := range []string{"A1", "A2", "A3"} {
		w.device(serial, nil)
	}
	for len(connected) < 3 {
		connected[await(t, w.ready)] = true
	}
	var d update.DeploymentOut
	if code, rule := w.json(tenant.Owner, "POST", "/v1/deployments", map[string]any{"release": r.ID, "waves": []int64{1, 100}}, &d); code != 201 {
		t.Fatalf("deployment: %d %s", code, rule)
	}
	for range 3 {
		if got := await(t, w.ended); !strings.HasSuffix(got, " committed") {
			t.Error(got)
		}
	}
	if s := await(t, w.moved); s != update.Completed {
		t.Errorf("the deployment ended as %s", s)
	}
	var first int
	err := w.db.QueryRow(t.Context(), `SELECT count(*) FROM device_update WHERE deployment_id = $1 AND wave = 0`, d.ID).Scan(&first)
	if err != nil || first < 1 {
		t.Errorf("%d devices in the first wave, %v", first, err)
	}
}

// TestBadImageStops: three devices roll back, the deployment aborts, nobody else is touched.
func TestBadImageStops(t *testing.T) {
	w := newWorld(t, sqlite(t))
	w.setRoot()
	r := w.published("2.0.0", 4, "a bad image")
	for _, serial := range []string{"A1", "A2", "A3"} {
		w.device(serial, func(c *agent.Config) {
			c.Health = func(context.Context, string) error { return errors.New("the lamp stays dark") }
		})
	}
	if code, rule := w.json(tenant.Owner, "POST", "/v1/deployments", map[string]any{"release": r.ID, "waves": []int64{100}}, nil); code != 201 {
		t.Fatalf("deployment: %d %s", code, rule)
	}
	if s := await(t, w.moved); s != update.Aborted {
		t.Errorf("the deployment ended as %s", s)
	}
	if n := w.leaves("update.rolled_back"); n != 3 {
		t.Errorf("%d leaves of rollbacks", n)
	}
	counts, err := w.fleet.CountByRelease(t.Context(), ten)
	if err != nil || counts[r.ID] != 0 {
		t.Errorf("installed on %v, %v", counts, err)
	}
}

// TestAnEndThatWasNotKeptIsToldAgain: the platform cannot keep the end of an update for a while, and the session goes on.
func TestAnEndThatWasNotKeptIsToldAgain(t *testing.T) {
	w := newWorld(t, sqlite(t))
	w.setRoot()
	r := w.published("2.0.0", 4, "a bad image")
	w.full.Store(4)
	device := w.device("A1", func(c *agent.Config) {
		c.Health = func(context.Context, string) error { return errors.New("the lamp stays dark") }
	})
	if code, rule := w.json(tenant.Owner, "POST", "/v1/deployments", map[string]any{"release": r.ID, "waves": []int64{100}}, nil); code != 201 {
		t.Fatalf("deployment: %d %s", code, rule)
	}
	if s := await(t, w.ended); s != device+" "+wire.UpdateRolledBack {
		t.Errorf("it ended as %s", s)
	}
	if left := w.full.Load(); left >= 0 {
		t.Errorf("%d more ends would have been refused: the disk was never full", left)
	}
}

// TestGate has one row per reason to refuse an upload.
func TestGate(t *testing.T) {
	w := newWorld(t, sqlite(t))
	if _, code, rule := w.upload(tenant.Owner, w.sign("0.1.0", 1, "early", nil)); code != 403 || rule != "update.signature" {
		t.Errorf("without a trust root: %d %s", code, rule)
	}
	w.setRoot()
	w.published("1.0.0", 5, "first")
	w.revision("rev-old", time.Now().Add(-time.Hour))
	for _, row := range []struct {
		name, rule string
		code       int
		role       tenant.Role
		sign       func(*update.SignReleaseOptions)
		send       func(*release)
	}{
		{name: "by a fleet operator", role: tenant.FleetOperator, code: 403},
		{name: "signature removed", rule: "update.signature", send: func(r *release) {
			r.targets = strings.Replace(r.targets, `"signatures": [`, `"signatures": [], "x": [`, 1)
		}},
		{name: "list tampered with", rule: "update.signature", send: func(r *release) {
			r.targets = strings.Replace(r.targets, `"security_version": 7`, `"security_version": 8`, 1)
		}},
		{name: "no list", code: 400, send: func(r *release) { r.targets = "" }},
		{name: "no bill of materials", code: 400, send: func(r *release) { r.sbom = "" }},
		{name: "no image", code: 400, send: func(r *release) { r.image = "" }},
		{name: "bill is not one", code: 400, send: func(r *release) { r.sbom = "{}" }},
		{name: "another bill than signed", rule: update.RuleSBOMFile, send: func(r *release) { r.sbom += " " }},
		{name: "bill of another image", rule: update.RuleSBOMImage, sign: func(o *update.SignReleaseOptions) { o.SBOM = w.file("other", bill("another image")) }},
		{name: "another image than signed", rule: "update.digest", send: func(r *release) { r.image = "evil" }},
		{name: "longer image than signed", code: 413, send: func(r *release) { r.image = strings.Repeat("long", 1000) }},
		{name: "unknown product", rule: "update.product", sign: func(o *update.SignReleaseOptions) { o.Product = "prd_none" }},
		{name: "unknown hardware", rule: "update.hardware", sign: func(o *update.SignReleaseOptions) { o.HW = []string{"rev-x"} }},
		{name: "support ended", rule: update.RuleSupport, sign: func(o *update.SignReleaseOptions) { o.HW = []string{"rev-old"} }},
		{name: "below what is published", rule: update.RuleFloor, sign: func(o *update.SignReleaseOptions) { o.SecurityVersion = 4 }},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := w.sign("2-"+strings.ReplaceAll(row.name, " ", "-"), 7, "image "+row.name, row.sign)
			if row.send != nil {
				row.send(&r)
			}
			role, want := row.role, row.code
			if role == "" {
				role = tenant.Owner
			}
			if want == 0 {
				want = 403
			}
			_, code, rule := w.upload(role, r)
			if code != want || row.rule != "" && rule != row.rule {
				t.Errorf("%d by rule %q; want %d by %q", code, rule, want, row.rule)
			}
		})
	}
	list, err := w.List(t.Context(), ten, "")
	if err != nil || len(list) != 1 {
		t.Errorf("%d releases, %v: a refused upload left one", len(list), err)
	}
	older := w.sign("3.0.0", 7, "older list", nil)
	if _, code, rule := w.upload(tenant.Owner, w.sign("3.0.1", 7, "newer list", nil)); code != 201 {
		t.Fatalf("%d %s", code, rule)
	}
	if _, code, rule := w.upload(tenant.Owner, older); code != 403 || rule != "update.rollback" {
		t.Errorf("a list older than one that is known: %d %s", code, rule)
	}
}

func TestReleaseWaitsForEveryCheck(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.setRoot()
		r, code, rule := w.upload(tenant.FirmwareEngineer, w.sign("1.0.0", 1, "image", nil))
		if code != 201 || r.State != update.Draft || len(r.Checks) != 3 || len(r.Signers) != 1 {
			t.Fatalf("%d %s %+v", code, rule, r)
		}
		publish := func() (int, string) {
			return w.json(tenant.ProductSecurityOfficer, "POST", "/v1/releases/"+r.ID+"/publish", nil, &r)
		}
		record := func(name, verdict string) {
			w.write(func(tx *store.Tx) error { return w.RecordCheck(tx, ten, r.ID, name, verdict, "because", "watch") })
		}
		if code, rule := publish(); code != 403 || rule != update.RuleChecks {
			t.Errorf("with an open check: %d %s", code, rule)
		}
		if code, rule := w.json(tenant.Owner, "POST", "/v1/deployments", map[string]any{"release": r.ID}, nil); code != 403 || rule != "update.published" {
			t.Errorf("deployed as a draft: %d %s", code, rule)
		}
		record("night-watch", update.Pass)
		record("another", update.Fail) // not in the policy, and still a reason
		if code, rule := publish(); code != 403 || rule != update.RuleChecks {
			t.Errorf("with a failed check: %d %s", code, rule)
		}
		record("another", update.Pass)
		if got, err := w.Get(t.Context(), ten, r.ID); err != nil || got.State != update.Checked {
			t.Errorf("%+v, %v", got, err)
		}
		if code, rule := w.json(tenant.FirmwareEngineer, "POST", "/v1/releases/"+r.ID+"/publish", nil, nil); code != 403 {
			t.Errorf("the engineer publishes alone: %d %s", code, rule)
		}
		if code, rule := publish(); code != 200 || r.State != update.Published {
			t.Errorf("%d %s", code, rule)
		}
		if code, rule := w.json(tenant.Owner, "POST", "/v1/deployments", map[string]any{"release": r.ID, "waves": []int64{50, 20, 100}}, nil); code != 400 {
			t.Errorf("falling waves: %d %s", code, rule)
		}
		var d update.DeploymentOut
		if code, _ := w.json(tenant.Owner, "POST", "/v1/deployments", map[string]any{"release": r.ID}, &d); code != 201 {
			t.Fatalf("%d", code)
		}
		for _, act := range []struct {
			verb, state string
			code        int
		}{{"pause", update.Paused, 200}, {"pause", "", 409}, {"resume", update.Running, 200}, {"resume", "", 409}} {
			if code, _ := w.json(tenant.FleetOperator, "POST", "/v1/deployments/"+d.ID+"/"+act.verb, nil, &d); code != act.code || act.state != "" && d.State != act.state {
				t.Errorf("%s: %d %s", act.verb, code, d.State)
			}
		}
		if code, _ := w.json(tenant.Owner, "POST", "/v1/releases/"+r.ID+"/withdraw", map[string]string{"reason": "it smells"}, &r); code != 200 || r.State != update.Withdrawn {
			t.Errorf("withdraw: %d %s", code, r.State)
		}
		if s := await(t, w.moved); s != update.Aborted {
			t.Errorf("the deployment of a withdrawn release is %s", s)
		}
		if code, _ := publish(); code != 409 {
			t.Errorf("a withdrawn release was published again: %d", code)
		}
	})
}

func TestTrustRootOnlyRotates(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		root := must[[]byte](t)(os.ReadFile(filepath.Join(w.dir, update.FileRoot)))
		set := func(role tenant.Role, doc []byte) (int, string) {
			return w.do(role, "POST", "/v1/trust/root", bytes.NewReader(doc), "application/json", nil)
		}
		if code, _ := set(tenant.FirmwareEngineer, root); code != 403 {
			t.Errorf("an engineer chose the root: %d", code)
		}
		if code, rule := set(tenant.Owner, bytes.Replace(root, []byte(`"version": 1`), []byte(`"version": 2`), 1)); code != 403 || rule != "update.signature" {
			t.Errorf("a root tampered with: %d %s", code, rule)
		}
		w.setRoot()
		other := filepath.Join(t.TempDir(), "other")
		if err := update.SignInit(other, update.SignInitOptions{}); err != nil {
			t.Fatal(err)
		}
		if code, rule := set(tenant.Owner, must[[]byte](t)(os.ReadFile(filepath.Join(other, update.FileRoot)))); code != 403 || rule != "update.rollback" {
			t.Errorf("a second first root: %d %s", code, rule)
		}
		key := func(dir, name string) crypto.Signer {
			return must[crypto.Signer](t)(trust.ParseKey(must[[]byte](t)(os.ReadFile(filepath.Join(dir, name)))))
		}
		old, next := key(w.dir, update.FileRootKey), key(other, update.FileRootKey)
		spec := trust.RootSpec{Version: 2, Expires: time.Now().AddDate(1, 0, 0), RootThreshold: 1, TargetsThreshold: 1,
			RootKeys: []crypto.PublicKey{next.Public()}, TargetsKeys: []crypto.PublicKey{next.Public()}}
		if code, rule := set(tenant.Owner, must[[]byte](t)(trust.NewRoot(spec, next))); code != 403 || rule != "update.signature" {
			t.Errorf("a successor that the old key did not sign: %d %s", code, rule)
		}
		if code, rule := set(tenant.Owner, must[[]byte](t)(trust.NewRoot(spec, old, next))); code != 201 {
			t.Errorf("a lawful successor: %d %s", code, rule)
		}
		var out update.RootOut
		if code, _ := w.json(tenant.Auditor, "GET", "/v1/trust/root", nil, &out); code != 200 || out.Version != 2 {
			t.Errorf("%d %+v", code, out)
		}
	})
}

// TestRootRotationReachesDevices: a device born under the first root installs what the second one vouches for.
func TestRootRotationReachesDevices(t *testing.T) {
	w := newWorld(t, sqlite(t))
	w.setRoot()
	device := w.device("A1", nil)
	other := filepath.Join(t.TempDir(), "other")
	if err := update.SignInit(other, update.SignInitOptions{}); err != nil {
		t.Fatal(err)
	}
	key := func(dir, name string) crypto.Signer {
		return must[crypto.Signer](t)(trust.ParseKey(must[[]byte](t)(os.ReadFile(filepath.Join(dir, name)))))
	}
	root := must[[]byte](t)(trust.NewRoot(trust.RootSpec{Version: 2, Expires: time.Now().AddDate(1, 0, 0), RootThreshold: 1, TargetsThreshold: 1,
		RootKeys:    []crypto.PublicKey{key(other, update.FileRootKey).Public()},
		TargetsKeys: []crypto.PublicKey{key(other, update.FileTargetsKey).Public()}}, key(w.dir, update.FileRootKey), key(other, update.FileRootKey)))
	if code, rule := w.do(tenant.Owner, "POST", "/v1/trust/root", bytes.NewReader(root), "application/json", nil); code != 201 {
		t.Fatalf("%d %s", code, rule)
	}
	if _, code, rule := w.upload(tenant.Owner, w.sign("1.0.0", 1, "by the old key", nil)); code != 403 || rule != "update.signature" {
		t.Errorf("the replaced key still signs: %d %s", code, rule)
	}
	w.dir = other
	r := w.published("2.0.0", 2, "by the new key")
	if code, rule := w.json(tenant.Owner, "POST", "/v1/deployments", map[string]any{"release": r.ID}, nil); code != 201 {
		t.Fatalf("%d %s", code, rule)
	}
	if got := await(t, w.ended); got != device+" committed" {
		t.Error(got)
	}
}

func TestSignFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sign")
	if err := update.SignInit(dir, update.SignInitOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := update.SignInit(dir, update.SignInitOptions{}); err == nil {
		t.Error("signing keys were replaced")
	}
	for _, name := range []string{update.FileRootKey, update.FileTargetsKey} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	image := filepath.Join(dir, "image")
	o := update.SignReleaseOptions{Dir: dir, Image: image, SBOM: image, Product: "prd_1", HW: []string{"A"}, Version: "1", SecurityVersion: 1}
	sign := func(content string) error {
		if err := os.WriteFile(image, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return update.SignRelease(o)
	}
	if err := errors.Join(sign("one"), sign("one")); err != nil {
		t.Error(err)
	}
	if err := sign("two"); !problem.Is(err, problem.KindConflict) {
		t.Errorf("one version names two images: %v", err)
	}
	if err := os.Chmod(filepath.Join(dir, update.FileTargetsKey), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := sign("one"); err == nil {
		t.Error("a key that everybody can read was used")
	}
}

// TestOutcomeComesFromTheImage: a device that says "committed" and runs something else has failed; one that reports of
// another device's update, or of none, changes nothing.
func TestOutcomeComesFromTheImage(t *testing.T) {
	w := newWorld(t, sqlite(t))
	w.setRoot()
	r := w.published("2.0.0", 4, "the new image")
	hold := make(chan struct{})
	device := w.device("A1", func(c *agent.Config) {
		c.Health = func(ctx context.Context, _ string) error {
			select {
			case <-hold:
			case <-ctx.Done():
			}
			return ctx.Err()
		}
	})
	stranger := w.device("B1", nil)
	for await(t, w.ready) != device {
	}
	if code, rule := w.json(tenant.Owner, "POST", "/v1/deployments", map[string]any{"release": r.ID, "waves": []int64{100}}, nil); code != 201 {
		t.Fatalf("deployment: %d %s", code, rule)
	}
	if got := await(t, w.ended); got != stranger+" committed" {
		t.Fatal(got)
	}
	var id string
	if err := w.db.QueryRow(t.Context(), `SELECT id FROM device_update WHERE tenant = $1 AND device = $2`, ten, device).Scan(&id); err != nil {
		t.Fatal(err)
	}
	say := func(from, topic, body string) error {
		return w.Status(t.Context(), gateway.Record{Tenant: ten, Device: from, Topic: topic, At: time.Now().UnixMilli(), Body: []byte(body)})
	}
	status := "ota/" + id + "/status"
	for name, err := range map[string]error{
		"a report on another device's update": say(stranger, status, `{"state":"committed","inventory":{"image":"`+r.Image+`"}}`),
		"an unknown state":                    say(device, status, `{"state":"splendid"}`),
		"no JSON":                             say(device, status, `committed`),
		"another topic":                       say(device, "ota/"+id+"/offer", `{"state":"committed"}`),
	} {
		if err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if err := say(device, status, `{"state":"committed","inventory":{"image":"sha256:00"}}`); err != nil {
		t.Fatal(err)
	}
	if got := await(t, w.ended); got != device+" failed" {
		t.Errorf("%s; a claim without the image must fail", got)
	}
	close(hold)
}

func TestPages(t *testing.T) {
	w := newWorld(t, sqlite(t))
	c := console.New(console.Config{Clock: clock.System, Log: slog.New(slog.DiscardHandler), Menu: []string{"Releases", "Deployments"}, Holds: tenant.Holds,
		Visitor: func(context.Context) string { return "x" }, Authenticate: func(r *http.Request) (context.Context, error) {
			return tenant.WithActor(r.Context(), tenant.Actor{ID: "per_x", Tenant: ten, Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: ten}}}), nil
		}})
	w.Pages(c)
	c.Page(console.Page{Path: "/devices/{id}", Title: "Device", Public: true, FS: fstest.MapFS{"d.html": {Data: []byte(`{{.}}`)}}, Template: "d.html",
		Load: func(r *http.Request) (any, error) {
			ctx := tenant.WithActor(r.Context(), tenant.Actor{ID: "per_x", Tenant: ten, Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: ten}}})
			return c.Slot("device").Render(r.WithContext(ctx), r.PathValue("id")), nil
		}})
	page := func(method, path, form string, want ...string) *httptest.ResponseRecorder {
		t.Helper()
		r := httptest.NewRequest(method, path, strings.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Referer", "http://example.com/releases")
		rec := httptest.NewRecorder()
		c.ServeHTTP(rec, r)
		for _, s := range want {
			if !strings.Contains(rec.Body.String(), s) {
				t.Errorf("%s %s (%d) lacks %q: %s", method, path, rec.Code, s, rec.Body)
			}
		}
		return rec
	}
	page("GET", "/releases", "", "no update root yet", "No release is uploaded yet")
	w.setRoot()
	r, code, _ := w.upload(tenant.Owner, w.sign("1.0.0", 1, "image", nil))
	if code != 201 {
		t.Fatal(code)
	}
	page("GET", "/releases/"+r.ID, "", "Lamp 1.0.0", "night-watch", "pending", r.Signers[0], "It was never deployed")
	w.write(func(tx *store.Tx) error {
		return w.RecordCheck(tx, ten, r.ID, "night-watch", update.Pass, "<quiet>", "watch")
	})
	page("GET", "/releases/"+r.ID, "", "&lt;quiet&gt;", `action="/releases/`+r.ID+`/publish"`)
	if rec := page("POST", "/releases/"+r.ID+"/publish", ""); rec.Code != 303 {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	page("GET", "/releases", "", "Root version 1", "1.0.0", "published")
	page("POST", "/releases/"+r.ID+"/deploy", "waves=ten", "not a percentage")
	device := w.device("A1", nil)
	page("GET", "/devices/"+device, "", "Firmware")
	rec := page("POST", "/releases/"+r.ID+"/deploy", "waves=50,+100")
	deployment := rec.Header().Get("Location")
	if rec.Code != 303 || !strings.HasPrefix(deployment, "/deployments/dpl_") {
		t.Fatalf("%d %s", rec.Code, deployment)
	}
	if got := await(t, w.ended); got != device+" committed" {
		t.Error(got)
	}
	page("GET", deployment, "", "Deployment of 1.0.0", "Wave 2: up to 100 %", "committed", device)
	page("GET", "/deployments", "", "1.0.0")
	page("GET", "/devices/"+device, "", `<a href="/releases/`+r.ID+`">1.0.0</a>`, "committed")
	page("POST", "/releases/"+r.ID+"/withdraw", "reason=", "why it is withdrawn")
}

func TestReleaseWaitsForTheGradeThatIsDemanded(t *testing.T) {
	for demanded, want := range map[sbom.Grade]int{"": 200, sbom.GradeUsable: 200, sbom.GradeComplete: 403} {
		w := newWorld(t, sqlite(t), func(c *update.Config) { c.SBOMGrade, c.Checks = demanded, []string{update.CheckSBOM} })
		w.setRoot()
		r, code, rule := w.upload(tenant.Owner, w.sign("1.0.0", 1, "image", nil))
		if code != 201 {
			t.Fatalf("%d %s; quality alone never refuses an upload", code, rule)
		}
		code, rule = w.json(tenant.Owner, "POST", "/v1/releases/"+r.ID+"/publish", nil, &r)
		if code != want || want == 403 && rule != update.RuleChecks {
			t.Errorf("demanded %q: %d %s %+v", demanded, code, rule, r.Checks)
		}
	}
}

// TestThePlatformIsProductNumberOne: its own program is a release with a bill of materials, once, and nothing that anybody
// could publish, withdraw or deploy.
func TestThePlatformIsProductNumberOne(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		info, ok := debug.ReadBuildInfo()
		if !ok {
			t.Fatal("the test has no build information")
		}
		image := wire.Digest([]byte("program"))
		doc := must[[]byte](t)(sbom.FromBuildInfo(info, image, "openthings", "1.0.0"))
		watch := func(version, image string) update.Release {
			return must[update.Release](t)(w.WatchOwn(ctx, ten, version, image, 7, doc))
		}
		first, again := watch("1.0.0", image), watch("1.0.0", image)
		next := watch("1.1.0", wire.Digest([]byte("program 2")))
		if first.ID != again.ID || next.ID == first.ID || first.State != update.Watched || first.Product != update.OwnProduct {
			t.Errorf("watched %+v, again %+v, next %+v", first, again, next)
		}
		if list := must[[]update.Release](t)(w.List(ctx, ten, "")); len(list) != 0 {
			t.Errorf("it stands among the manufacturer's releases: %+v", list)
		}
		if list := must[[]update.Release](t)(w.List(ctx, ten, update.OwnProduct)); len(list) != 2 {
			t.Errorf("asked for by its product: %+v", list)
		}
		if _, err := w.Publish(ctx, ten, first.ID, "per_1"); !problem.Is(err, problem.KindConflict) {
			t.Errorf("published: %v", err)
		}
		if _, err := w.Withdraw(ctx, ten, first.ID, "per_1", "x"); !problem.Is(err, problem.KindConflict) {
			t.Errorf("withdrawn: %v", err)
		}
		if code, rule := w.json(tenant.Owner, "POST", "/v1/deployments", map[string]any{"release": first.ID}, nil); code != 403 {
			t.Errorf("deployed: %d %s", code, rule)
		}
	})
}
