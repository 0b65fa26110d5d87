// SPDX-License-Identifier: AGPL-3.0-only

package demo

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

func (w *world) signal(ctx context.Context, _ *progress) (string, error) {
	kev, err := feed.Open("feed/kev.json")
	if err != nil {
		return "", err
	}
	defer kev.Close()
	if err := w.post(ctx, "/v1/feeds/kev", kev, nil); err != nil {
		return "", err
	}
	var found int
	if err := w.until(ctx, 20*time.Second, func() (bool, error) {
		var list struct {
			Items []struct{ ID, Source, Ref string }
		}
		err := w.get(ctx, "/v1/signals", &list)
		found = len(list.Items)
		return found > 0, err
	}); err != nil {
		return "", err
	}
	var cases struct{ Items []struct{ ID string } }
	if err := w.get(ctx, "/v1/cases", &cases); err != nil {
		return "", err
	}
	if len(cases.Items) != 0 {
		return "", errors.New("a feed has opened a case")
	}
	a, err := w.affects(ctx, time.Time{})
	if err != nil || !a.Exploited {
		return "", fmt.Errorf("exploited is %v: %w", a.Exploited, err)
	}
	return fmt.Sprintf("%d signal, 0 cases", found), nil
}

// caseView is a case as the API shows it.
type caseView struct {
	ID, Kind, Status string
	T0               time.Time
	Clocks           []struct {
		Stage, Undetermined string
		Due, Met            time.Time
	}
}

func (c caseView) due(stage string) time.Time {
	for _, x := range c.Clocks {
		if x.Stage == stage {
			return x.Due
		}
	}
	return time.Time{}
}

func (w *world) declare(ctx context.Context, _ *progress) (string, error) {
	var signals struct{ Items []struct{ ID, Ref string } }
	if err := w.get(ctx, "/v1/signals", &signals); err != nil {
		return "", err
	}
	var as struct{ ID string }
	if err := w.person.Do(ctx, http.MethodPost, "/v1/signals/"+signals.Items[0].ID+"/assessment", nil, &as); err != nil {
		return "", err
	}
	t0 := time.Now().UTC().Truncate(time.Second)
	declaration := map[string]any{
		"verdict": "aware", "aev": true, "si": false, "t0": t0, "coordinator": "DE", "member_states": []string{"DE", "FR"},
		"title": "HTTP/2 rapid reset in street lamps", "summary": "Lamps of one city can be exhausted from the service network.",
		"basis": "The city's firewall log of today shows the attack pattern against eleven lamps.",
	}
	// A program may carry the signal, never the declaration.
	if err := w.post(ctx, "/v1/assessments/"+as.ID+"/decision", declaration, nil); err == nil {
		return "", errors.New("a token declared awareness")
	}
	var ended struct{ Cases []string }
	if err := w.person.Do(ctx, http.MethodPost, "/v1/assessments/"+as.ID+"/decision", declaration, &ended); err != nil {
		return "", err
	}
	if len(ended.Cases) != 1 {
		return "", fmt.Errorf("%d cases were opened", len(ended.Cases))
	}
	w.caseID = ended.Cases[0]
	var c caseView
	if err := w.get(ctx, "/v1/cases/"+w.caseID, &c); err != nil {
		return "", err
	}
	if got, want := c.due("early_warning"), t0.Add(24*time.Hour); !got.Equal(want) {
		return "", fmt.Errorf("early warning due %s, want %s", got, want)
	}
	if got, want := c.due("notification"), t0.Add(72*time.Hour); !got.Equal(want) {
		return "", fmt.Errorf("notification due %s, want %s", got, want)
	}
	if got := c.due("final"); !got.IsZero() {
		return "", fmt.Errorf("the final report has the date %s before any measure is available", got)
	}
	// What the early warning asks for beside title and summary is drafted from findings and fleet.
	var pack struct {
		Faults []struct{ Label, Why string }
	}
	if err := w.get(ctx, "/v1/cases/"+w.caseID+"/pack", &pack); err != nil {
		return "", err
	}
	if len(pack.Faults) > 0 {
		return "", fmt.Errorf("the early warning is not complete: %v", pack.Faults)
	}
	// The update that the lamps got is the corrective measure: from here the 14 days count.
	measure := t0.Add(time.Second)
	if err := w.until(ctx, 5*time.Second, func() (bool, error) { return !time.Now().Before(measure), nil }); err != nil {
		return "", err
	}
	if err := w.person.Do(ctx, http.MethodPost, "/v1/cases/"+w.caseID+"/events", map[string]any{
		"kind": "measure.available", "at": measure, "note": "Firmware " + second + " is published and installed in the harbour.",
	}, nil); err != nil {
		return "", err
	}
	if err := w.get(ctx, "/v1/cases/"+w.caseID, &c); err != nil {
		return "", err
	}
	// The strict rule is the earlier of 336 hours and the same wall-clock time 14 days later in Berlin.
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		return "", err
	}
	want := measure.Add(336 * time.Hour)
	if wall := measure.In(berlin).AddDate(0, 0, 14); wall.Before(want) {
		want = wall
	}
	if got := c.due("final"); !got.Equal(want) {
		return "", fmt.Errorf("final report due %s, want %s", got, want)
	}
	return "24 h, 72 h and 14 days after the measure, recomputed here; a token may not declare", nil
}

func (w *world) securityTxt(ctx context.Context, _ *progress) (string, error) {
	if err := w.api.Do(ctx, http.MethodPut, "/v1/disclosure", map[string]any{
		"contacts": []string{"mailto:security@lumen.example"}, "hosts": []string{"localhost"}, "languages": []string{"en", "de"},
	}, nil); err != nil {
		return "", err
	}
	txt, err := w.platform.get(ctx, "/.well-known/security.txt")
	if err != nil {
		return "", err
	}
	var expires time.Time
	for line := range strings.Lines(txt) {
		if v, ok := strings.CutPrefix(line, "Expires: "); ok {
			if expires, err = time.Parse(time.RFC3339, strings.TrimSpace(v)); err != nil {
				return "", err
			}
		}
	}
	if !strings.Contains(txt, "Contact: mailto:security@lumen.example") || expires.Before(time.Now()) || expires.After(time.Now().AddDate(1, 0, 0)) {
		return "", fmt.Errorf("security.txt is not what RFC 9116 asks for:\n%s", txt)
	}
	return "valid until " + expires.Format(time.DateOnly), nil
}

// retirement is a device's last way as the API shows it.
type retirement struct {
	State string
	Wipe  *struct {
		State   string
		Problem string
		Signed  *wire.Signed
	}
	Tombstone *json.RawMessage
}

func (w *world) wipe(ctx context.Context, _ *progress) (string, error) {
	d := w.devices[0]
	born, err := d.credential("idevid")
	if err != nil {
		return "", err
	}
	if err := w.post(ctx, "/v1/devices/"+d.id+"/decommission", map[string]any{"reason": "sold"}, nil); err != nil {
		return "", err
	}
	var r retirement
	if err := w.until(ctx, 30*time.Second, func() (bool, error) {
		err := w.get(ctx, "/v1/devices/"+d.id+"/retirement", &r)
		return r.State == "decommissioned", err
	}); err != nil {
		return "", fmt.Errorf("state %s, wipe %+v: %w", r.State, r.Wipe, err)
	}
	if r.Wipe == nil || r.Wipe.Signed == nil {
		return "", errors.New("there is no receipt")
	}
	var receipt wire.WipeReceipt
	if err := r.Wipe.Signed.Open(born.Leaf.PublicKey, &receipt); err != nil {
		return "", fmt.Errorf("the receipt under the unit's IDevID: %w", err)
	}
	select {
	case <-d.ended:
	case <-time.After(20 * time.Second):
		return "", errors.New("the agent did not end after its wipe")
	}
	if left, err := d.keysLeft(); err != nil || len(left) > 0 {
		return "", fmt.Errorf("keys left on the device: %v %w", left, err)
	}
	if receipt.Device != d.id || receipt.Serial != d.serial {
		return "", fmt.Errorf("the receipt is about %s", receipt.Serial)
	}
	// Its certificate of birth must not bring it back.
	if err := w.barred(ctx, born); err != nil {
		return "", err
	}
	return d.serial + " signed for " + strings.Join(receipt.Areas, ", "), nil
}

// barred checks that neither door admits the certificate: no session, no enrolment.
func (w *world) barred(ctx context.Context, cert tls.Certificate) error {
	if c, err := w.mqtt(ctx, cert); err == nil {
		c.Close()
		return errors.New("MQTT admitted it again")
	}
	if err := deviceDo(ctx, w.platform.Devices, &cert, w.roots, "/.well-known/est/simpleenroll", []byte("x"), nil); err == nil {
		return errors.New("EST enrolled it again")
	} else {
		// A malformed request would be refused from anybody: the refusal must be about who asks.
		var r *refusal
		if errors.As(err, &r) && r.status != http.StatusForbidden && r.status != http.StatusUnauthorized {
			return fmt.Errorf("EST refused the request, not the device: %w", err)
		}
	}
	return nil
}

func (w *world) deprovision(ctx context.Context, _ *progress) (string, error) {
	d := w.devices[1]
	born, err := d.credential("idevid")
	if err != nil {
		return "", err
	}
	works, err := d.credential("ldevid")
	if err != nil {
		return "", err
	}
	d.switchOff()
	// A session of our own, so that the cut can be timed at its other end.
	c, err := w.mqtt(ctx, works)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.Publish(ctx, wire.Root+"tele/env", []byte(`{"temperature":20}`)); err != nil {
		return "", err
	}
	began := time.Now()
	if err := w.post(ctx, "/v1/devices/"+d.id+"/deprovision", map[string]any{"reason": "lost in the harbour basin", "without_wipe": true}, nil); err != nil {
		return "", err
	}

	select {
	case <-c.Done():
	case <-time.After(5 * time.Second):
		return "", errors.New("the session lives on after five seconds")
	}
	cut := time.Since(began) // shown, not judged: on a busy machine the figure is the machine's
	for name, cert := range map[string]tls.Certificate{"IDevID": born, "LDevID": works} {
		if err := w.barred(ctx, cert); err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
	}
	var denied *mqtt.Error
	reason := "connection closed"
	if errors.As(c.Err(), &denied) {
		reason = denied.Error()
	}
	return fmt.Sprintf("cut %d ms after the request (%s); reconnect and re-enrolment refused", cut.Milliseconds(), reason), nil
}

func (w *world) erased(ctx context.Context, _ *progress) (string, error) {
	d := w.devices[1]
	var r retirement
	if err := w.until(ctx, 20*time.Second, func() (bool, error) {
		err := w.get(ctx, "/v1/devices/"+d.id+"/retirement", &r)
		return r.State == "deprovisioned" && r.Tombstone != nil, err
	}); err != nil {
		return "", fmt.Errorf("state %s: %w", r.State, err)
	}
	var out struct {
		Series []struct{ Points []struct{ Count int } }
	}
	err := w.get(ctx, "/v1/devices/"+d.id+"/telemetry", &out)
	for _, s := range out.Series {
		if len(s.Points) > 0 {
			return "", errors.New("telemetry is still readable")
		}
	}
	said := "telemetry is empty"
	if err != nil {
		said = err.Error()
	}
	var log struct{ Items []struct{ Kind string } }
	if err := w.get(ctx, "/v1/audit/entries"+query("subject", d.id, "page_size", "200"), &log); err != nil {
		return "", err
	}
	kinds := map[string]bool{}
	for _, e := range log.Items {
		kinds[e.Kind] = true
	}
	for _, want := range []string{"device.manufactured", "device.commissioned", "device.revoked", "device.deprovisioned"} {
		if !kinds[want] {
			return "", fmt.Errorf("the log lacks %s: %v", want, kinds)
		}
	}
	return fmt.Sprintf("%s; %d entries kept", said, len(log.Items)), nil
}

// verify runs the offline verifier with nothing but the bundle and the key, and returns its exit code.
func (w *world) verify(ctx context.Context, bundle, key string) (int, string) {
	args := []string{"verify", bundle}
	if key != "" {
		args = append(args, "--log-key", key)
	}
	cmd := exec.CommandContext(ctx, w.cfg.Binary, args...)
	cmd.Env = []string{}
	out, _ := cmd.CombinedOutput()
	return cmd.ProcessState.ExitCode(), string(out)
}

func (w *world) evidence(ctx context.Context, p *progress) (string, error) {
	good := w.temp("bundle.txt")
	if _, err := w.run(ctx, "evidence", "export", w.devices[0].id, "-o", good); err != nil {
		return "", err
	}
	b, err := os.ReadFile(good)
	if err != nil {
		return "", err
	}
	key := w.platform.LogKey
	if code, out := w.verify(ctx, good, key); code != 0 {
		return "", fmt.Errorf("the bundle was refused: %s", out)
	}
	if code, _ := w.verify(ctx, good, ""); code != 1 {
		return "", fmt.Errorf("without a pinned key the verifier said %d, want 1", code)
	}
	bad := w.temp("flipped.txt")
	const probes = 24
	for i := range probes {
		p.say("flipping byte %d of %d", i+1, probes)
		flipped := bytes.Clone(b)
		at := i * (len(b) - 1) / (probes - 1)
		flipped[at] ^= 1
		if err := write(bad, flipped); err != nil {
			return "", err
		}
		if code, _ := w.verify(ctx, bad, key); code != 1 {
			return "", fmt.Errorf("byte %d of %d flipped and the verifier said %d", at, len(b), code)
		}
	}
	// A bundle of another log, whole and honest in itself, must not pass under this log's key.
	other, err := w.otherLog(ctx)
	if err != nil {
		return "", err
	}
	if code, _ := w.verify(ctx, good, other); code != 1 {
		return "", fmt.Errorf("the bundle passed under the key of another log (%d)", code)
	}
	return fmt.Sprintf("%d kB; %d flipped bytes and a foreign key refused", len(b)/1024, probes), nil
}

// otherLog starts a second platform, only to have a log key that is not ours. Two platforms never share an issuer.
func (w *world) otherLog(ctx context.Context) (string, error) {
	p, err := startPlatform(ctx, w.cfg.Binary, w.temp("other"), "", "--issuer", "embedded")
	if err != nil {
		return "", err
	}
	p.kill()
	return p.LogKey, nil
}
