// SPDX-License-Identifier: AGPL-3.0-only

package demo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/wire/mqtt"
)

// steps is the circle. life bounds what runs beside the steps: the agents.
func (w *world) steps(life context.Context) []step {
	s := func(stage, name string, run func(ctx context.Context, p *progress) (string, error)) step {
		return step{stage, name, run}
	}
	return []step{
		s("provision", "the platform starts and speaks TLS 1.3 only", w.start),
		s("provision", "the first person joins by a one-time link and a passkey", w.enter),
		s("provision", "a product and a hardware revision with a support end", w.describe),
		s("provision", "the line gives each unit its own identity", w.manufacture),
		s("provision", "a unit beyond the quota is refused", w.overQuota),
		s("commission", "claim codes bind units to solutions", w.claim),
		s("commission", "EST gives each agent an operational certificate", func(ctx context.Context, p *progress) (string, error) { return w.commission(life, ctx, p) }),
		s("commission", "each door refuses the other's certificate", w.wrongDoor),
		s("work", "telemetry of every device is read back", w.telemetry),
		s("work", "a command goes down and its result comes back", w.command),
		s("work", "what is desired of a device becomes so", w.twin),
		s("work", "a device cannot write another device's topic", w.foreignTopic),
		s("update", "the manufacturer's offline key signs two releases", w.sign),
		s("update", "an unsigned and an unnamed image are refused", w.refuseUploads),
		s("update", "releases pass the gate and are published", w.publish),
		s("monitor", "records are imported and every device turns out exposed", w.importRecords),
		s("update", "a deployment reaches its devices in waves", w.deploy),
		s("monitor", "which devices, which version, since when: now and before", w.exposure),
		s("monitor", "a decision (VEX) changes the answer", w.decide),
		s("respond", "an exploited vulnerability is a signal and starts no clock", w.signal),
		s("respond", "a person declares awareness and the clocks run", w.declare),
		s("respond", "security.txt is served", w.securityTxt),
		s("decommission", "a device wipes itself and proves it", w.wipe),
		s("deprovision", "the live session is cut and never comes back", w.deprovision),
		s("deprovision", "the data is unreadable, the evidence is kept", w.erased),
		s("deprovision", "the evidence verifies with no server", w.evidence),
	}
}

func (w *world) start(ctx context.Context, _ *progress) (string, error) {
	var err error
	if w.platform, err = startPlatform(ctx, w.cfg.Binary, filepath.Join(w.dir, "platform"), w.cfg.Database); err != nil {
		return "", err
	}
	b, err := os.ReadFile(w.platform.CA)
	if err != nil {
		return "", err
	}
	w.roots = x509.NewCertPool()
	if !w.roots.AppendCertsFromPEM(b) {
		return "", errors.New("the CA file holds no certificate")
	}
	ports, err := w.platform.listeners()
	if err != nil {
		return "", err
	}
	health := strings.TrimPrefix(w.platform.Health, "http://127.0.0.1")
	secure := 0
	for _, addr := range ports {
		if strings.HasSuffix(addr, health) {
			continue
		}
		for _, max := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: w.roots, ServerName: "localhost", MinVersion: tls.VersionTLS12, MaxVersion: max})
			if err == nil {
				c.Close()
			}
			if (err == nil) != (max == tls.VersionTLS13) {
				return "", fmt.Errorf("port %s, TLS %x: %v", addr, max, err)
			}
		}
		secure++
	}
	if secure < 3 {
		return "", fmt.Errorf("found %d doors with TLS among %v", secure, ports)
	}
	return fmt.Sprintf("%d doors, all TLS 1.3; health on loopback", secure), nil
}

func (w *world) enter(ctx context.Context, _ *progress) (string, error) {
	if w.platform.Setup == "" { // a database that somebody has entered before: the demo gets its tenant through the host
		return "", errors.New("somebody has joined this database already; give the demo an empty one")
	}
	if err := w.join(ctx); err != nil {
		return "", err
	}
	var me struct {
		Kind, Name string
	}
	if err := w.person.Do(ctx, http.MethodGet, "/v1/me", nil, &me); err != nil {
		return "", err
	}
	if me.Kind != "person" || me.Name != personName {
		return "", fmt.Errorf("signed in as %+v", me)
	}
	var err error
	w.api, err = w.platform.token(ctx, tenantName, "owner")
	return personName + " is in; the link did not work twice", err
}

func (w *world) describe(ctx context.Context, _ *progress) (string, error) {
	var p struct{ ID string }
	if err := w.post(ctx, "/v1/products", map[string]any{"name": "Street lamp", "model": "lamp"}, &p); err != nil {
		return "", err
	}
	w.product, w.revisionName = p.ID, "C"
	if err := w.post(ctx, "/v1/products/"+p.ID+"/revisions", map[string]any{"name": "C"}, nil); err == nil {
		return "", errors.New("a revision without a support end was accepted")
	}
	end := time.Now().UTC().AddDate(6, 0, 0).Truncate(24 * time.Hour)
	var v struct{ ID string }
	if err := w.post(ctx, "/v1/products/"+p.ID+"/revisions", map[string]any{"name": "C", "support_end": end}, &v); err != nil {
		return "", err
	}
	w.revision = v.ID
	w.solutions = map[string]string{}
	for _, name := range []string{"harbour", behind} {
		var s struct{ ID string }
		if err := w.post(ctx, "/v1/solutions", map[string]any{"name": name, "owner": "Port of " + name}, &s); err != nil {
			return "", err
		}
		w.solutions[name] = s.ID
	}
	// The manufacturer's trust root exists before the first unit, so that every unit leaves the line with it.
	w.signing = filepath.Join(w.dir, "signing")
	if _, err := w.run(ctx, "sign", "init", "--dir", w.signing); err != nil {
		return "", err
	}
	root, err := os.Open(filepath.Join(w.signing, "root.json"))
	if err != nil {
		return "", err
	}
	defer root.Close()
	if err := w.post(ctx, "/v1/trust/root", root, nil); err != nil {
		return "", err
	}
	return "supported until " + end.Format(time.DateOnly) + "; without a date it was refused", nil
}

func (w *world) manufacture(ctx context.Context, p *progress) (string, error) {
	var err error
	if w.images, err = unpack(w.dir, first, second); err != nil {
		return "", err
	}
	var b struct{ ID string }
	if err := w.post(ctx, "/v1/batches", map[string]any{"revision": w.revision, "name": "2026-47", "size": w.cfg.Devices}, &b); err != nil {
		return "", err
	}
	w.batch = b.ID
	key, csr, err := stationCSR()
	if err != nil {
		return "", err
	}
	var st struct{ Certificate string }
	if err := w.post(ctx, "/v1/stations", map[string]any{"batch": b.ID, "name": "line 3", "quota": w.cfg.Devices, "csr": csr}, &st); err != nil {
		return "", err
	}
	w.factory = &factory{url: w.platform.Devices, roots: w.roots}
	if w.factory.cert, err = station(key, st.Certificate); err != nil {
		return "", err
	}
	firmware, err := image(first)
	if err != nil {
		return "", err
	}
	for n := range w.cfg.Devices {
		w.devices = append(w.devices, &device{n: n, serial: fmt.Sprintf("LMP-%05d", n+1), dir: filepath.Join(w.dir, "devices", fmt.Sprint(n+1))})
	}
	if err := w.each(p, w.devices, func(d *device) error { return w.factory.make(ctx, d, firmware, first, 1) }); err != nil {
		return "", err
	}
	// Every IDevID chains to the pinned CA, and no two units share a key.
	keys := map[string]string{}
	for _, d := range w.devices {
		c, err := d.credential("idevid")
		if err != nil {
			return "", err
		}
		if err := chains(c, w.roots); err != nil {
			return "", fmt.Errorf("%s: %w", d.serial, err)
		}
		spki := string(c.Leaf.RawSubjectPublicKeyInfo)
		if other := keys[spki]; other != "" {
			return "", fmt.Errorf("%s and %s share a key", d.serial, other)
		}
		keys[spki] = d.serial
		if c.Leaf.Subject.SerialNumber != d.serial {
			return "", fmt.Errorf("%s got the certificate of %s", d.serial, c.Leaf.Subject.SerialNumber)
		}
	}
	var batch struct{ Issued int64 }
	if err := w.get(ctx, "/v1/batches/"+b.ID, &batch); err != nil {
		return "", err
	}
	if batch.Issued != int64(w.cfg.Devices) {
		return "", fmt.Errorf("the batch counts %d identities for %d units", batch.Issued, w.cfg.Devices)
	}
	return fmt.Sprintf("%d units, %d keys, all chain to the CA", len(w.devices), len(keys)), nil
}

// chains verifies a client certificate against the roots, with the intermediates that came along.
func chains(c tls.Certificate, roots *x509.CertPool) error {
	between := x509.NewCertPool()
	for _, der := range c.Certificate[1:] {
		x, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		between.AddCert(x)
	}
	_, err := c.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err
}

func (w *world) overQuota(ctx context.Context, _ *progress) (string, error) {
	firmware, err := image(first)
	if err != nil {
		return "", err
	}
	extra := &device{serial: "LMP-99999", dir: filepath.Join(w.dir, "devices", "extra")}
	err = w.factory.make(ctx, extra, firmware, first, 1)
	var r *refusal
	if !errors.As(err, &r) || r.status != http.StatusForbidden || r.rule() == "" {
		return "", fmt.Errorf("unit %d of %d: %v", w.cfg.Devices+1, w.cfg.Devices, err)
	}
	return "refused by rule " + r.rule(), nil
}

func (w *world) claim(ctx context.Context, p *progress) (string, error) {
	if err := w.post(ctx, "/v1/claims", map[string]any{"code": "00000-00000-00000-00000-00000-0", "solution": w.solutions["harbour"]}, nil); err == nil {
		return "", errors.New("a made-up claim code was accepted")
	}
	// The last quarter of the lamps belongs to the city, which updates later.
	for i, d := range w.devices {
		d.solution = "harbour"
		if i >= len(w.devices)*3/4 {
			d.solution = behind
		}
	}
	err := w.each(p, w.devices, func(d *device) error {
		return w.post(ctx, "/v1/claims", map[string]any{"code": d.claim, "solution": w.solutions[d.solution]}, nil)
	})
	if err != nil {
		return "", err
	}
	if err := w.post(ctx, "/v1/claims", map[string]any{"code": w.devices[0].claim, "solution": w.solutions[behind]}, nil); err == nil {
		return "", errors.New("a claim code worked twice")
	}
	return "a made-up code and a used one were refused", nil
}

func (w *world) commission(life, ctx context.Context, p *progress) (string, error) {
	for _, d := range w.devices {
		d.switchOn(life, w)
	}
	var online int64
	err := w.until(ctx, 60*time.Second, func() (bool, error) {
		var sum struct {
			Online int64
			States map[string]int64
		}
		if err := w.get(ctx, "/v1/fleet/summary", &sum); err != nil {
			return false, err
		}
		online = sum.Online
		p.say("%d of %d online", online, len(w.devices))
		return online == int64(len(w.devices)) && sum.States["commissioned"] == online, nil
	})
	return fmt.Sprintf("%d agents online over mutual TLS", online), err
}

func (w *world) wrongDoor(ctx context.Context, _ *progress) (string, error) {
	d := w.devices[0]
	born, err := d.credential("idevid")
	if err != nil {
		return "", err
	}
	works, err := d.credential("ldevid")
	if err != nil {
		return "", err
	}
	// MQTT with the certificate of birth.
	if c, err := w.mqtt(ctx, born); err == nil {
		c.Close()
		return "", errors.New("MQTT admitted an IDevID")
	}
	// Enrolment with the operational certificate.
	err = deviceDo(ctx, w.platform.Devices, &works, w.roots, "/.well-known/est/simpleenroll", []byte("x"), nil)
	var r *refusal
	if !errors.As(err, &r) || r.status != http.StatusForbidden {
		return "", fmt.Errorf("simpleenroll with an LDevID: %v", err)
	}
	// Anything with a certificate of our own making.
	if c, err := w.mqtt(ctx, selfSigned()); err == nil {
		c.Close()
		return "", errors.New("MQTT admitted a self-signed certificate")
	}
	return "IDevID at MQTT, LDevID at EST, and a stranger: all refused", nil
}

// mqtt connects to the MQTT door with a certificate; nil error means that CONNECT was accepted.
func (w *world) mqtt(ctx context.Context, cert tls.Certificate) (*mqtt.Client, error) {
	c, err := w.dial(ctx, w.platform.MQTT, cert)
	if err != nil {
		return nil, err
	}
	cl, err := mqtt.NewClient(ctx, c, mqtt.ClientConfig{ClientID: "demo-probe"})
	if err != nil {
		c.Close()
		return nil, err
	}
	return cl, nil
}
