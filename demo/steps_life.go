// SPDX-License-Identifier: AGPL-3.0-only

package demo

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/wire/mqtt"
)

func (w *world) telemetry(ctx context.Context, p *progress) (string, error) {
	values := 0
	err := w.until(ctx, 30*time.Second, func() (bool, error) {
		values = 0
		for i, d := range w.devices {
			var out struct {
				Series []struct {
					Field  string
					Points []struct{ Count int }
				}
			}
			if err := w.get(ctx, "/v1/devices/"+d.id+"/telemetry", &out); err != nil {
				return false, err
			}
			mine := 0
			for _, s := range out.Series {
				for _, b := range s.Points {
					mine += b.Count
				}
			}
			p.say("%d of %d devices", i, len(w.devices))
			if mine == 0 {
				return false, fmt.Errorf("nothing from %s yet", d.serial)
			}
			values += mine
		}
		return true, nil
	})
	return fmt.Sprintf("%d values of %d devices", values, len(w.devices)), err
}

func (w *world) command(ctx context.Context, _ *progress) (string, error) {
	d := w.devices[0]
	var c struct{ ID, State, Reason string }
	if err := w.post(ctx, "/v1/devices/"+d.id+"/commands", map[string]any{"name": "ping"}, &c); err != nil {
		return "", err
	}
	err := w.until(ctx, 20*time.Second, func() (bool, error) {
		err := w.get(ctx, "/v1/commands/"+c.ID, &c)
		return c.State == "done", err
	})
	if err != nil {
		return "", fmt.Errorf("ping is %s %s: %w", c.State, c.Reason, err)
	}
	return "ping to " + d.serial + ": done", nil
}

// twin asks a device to measure more often, and waits until the device says that it does and how often that is.
func (w *world) twin(ctx context.Context, _ *progress) (string, error) {
	d := w.devices[0]
	var t struct {
		Desired  int64 `json:"desired_version"`
		Applied  int64 `json:"applied_version"`
		Reported struct {
			Telemetry struct {
				Interval float64 `json:"interval_s"`
			}
		}
	}
	path := "/v1/devices/" + d.id + "/twin"
	if err := w.api.Do(ctx, http.MethodPatch, path, map[string]any{"telemetry": map[string]any{"interval_s": 0.5}}, &t); err != nil {
		return "", err
	}
	err := w.until(ctx, 20*time.Second, func() (bool, error) {
		err := w.get(ctx, path, &t)
		return t.Applied == t.Desired && t.Reported.Telemetry.Interval == 0.5, err
	})
	return fmt.Sprintf("%s goes by version %d and says that it measures every %g s", d.serial, t.Applied, t.Reported.Telemetry.Interval), err
}

func (w *world) foreignTopic(ctx context.Context, _ *progress) (string, error) {
	mine, other := w.devices[1], w.devices[2]
	cert, err := mine.credential("ldevid")
	if err != nil {
		return "", err
	}
	var me struct{ Tenant struct{ ID string } }
	if err := w.get(ctx, "/v1/me", &me); err != nil {
		return "", err
	}
	c, err := w.mqtt(ctx, cert)
	if err != nil {
		return "", err
	}
	defer c.Close()
	err = c.Publish(ctx, "ot/1/"+me.Tenant.ID+"/"+other.id+"/tele/env", []byte(`{"temperature":99}`))
	var denied *mqtt.Error
	if !errors.As(err, &denied) || denied.Reason != mqtt.NotAuthorized {
		return "", fmt.Errorf("publish on the topic of %s: %v", other.serial, err)
	}
	return "refused: " + denied.Error(), nil
}

func (w *world) sign(ctx context.Context, _ *progress) (string, error) {
	for i, v := range []string{first, second} {
		if err := w.bill(ctx, v); err != nil {
			return "", err
		}
		if _, err := w.run(ctx, "sign", "release", "--dir", w.signing, "--image", w.images[v], "--sbom", w.billOf(v), "--product", w.product,
			"--hw", w.revisionName, "--version", v, "--security-version", fmt.Sprint(i+1), "--class", "security"); err != nil {
			return "", err
		}
	}
	// The server must hold neither of the keys: look for their bytes in all it keeps.
	for _, name := range []string{"root.key", "targets.key"} {
		key, err := os.ReadFile(filepath.Join(w.signing, name))
		if err != nil {
			return "", err
		}
		secret := bytes.Split(key, []byte("\n"))[1]
		err = filepath.WalkDir(w.platform.dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if err == nil && bytes.Contains(b, secret) {
				return fmt.Errorf("%s is in %s", name, path)
			}
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return "bills from real builds; no key on the server", nil
}

func (w *world) targets() string           { return filepath.Join(w.signing, "targets.json") }
func (w *world) billOf(v string) string    { return filepath.Join(w.dir, "lamp-"+v+".cdx.json") }
func (w *world) temp(name string) string   { return filepath.Join(w.dir, name) }
func write(path string, b []byte) error    { return os.WriteFile(path, b, 0o600) }
func contains(err error, want string) bool { return err != nil && strings.Contains(err.Error(), want) }

func (w *world) refuseUploads(ctx context.Context, _ *progress) (string, error) {
	signed, err := os.ReadFile(w.targets())
	if err != nil {
		return "", err
	}
	// The list without its signatures.
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(signed, &doc); err != nil {
		return "", err
	}
	doc["signatures"] = json.RawMessage("[]")
	bare, err := json.Marshal(doc)
	if err != nil {
		return "", err
	}
	if err := write(w.temp("unsigned.json"), bare); err != nil {
		return "", err
	}
	if _, err := w.upload(ctx, w.temp("unsigned.json"), w.billOf(first), w.images[first]); !contains(err, "rule: ") {
		return "", fmt.Errorf("a release without a signature: %v", err)
	}
	// One flipped byte in the image.
	b, err := image(first)
	if err != nil {
		return "", err
	}
	b = bytes.Clone(b)
	b[len(b)/2] ^= 1
	if err := write(w.temp("tampered"), b); err != nil {
		return "", err
	}
	if _, err := w.upload(ctx, w.targets(), w.billOf(first), w.temp("tampered")); !contains(err, "rule: ") {
		return "", fmt.Errorf("a tampered image: %v", err)
	}
	// A bill of materials of another image.
	if _, err := w.upload(ctx, w.targets(), w.billOf(second), w.images[first]); !contains(err, "rule: ") {
		return "", fmt.Errorf("a bill that names another image: %v", err)
	}
	var list struct{ Items []struct{ ID string } }
	if err := w.get(ctx, "/v1/releases", &list); err != nil || len(list.Items) != 0 {
		return "", fmt.Errorf("%d releases exist after three refusals: %v", len(list.Items), err)
	}
	return "unsigned, tampered, and a bill of another image: each refused by its rule", nil
}

func (w *world) publish(ctx context.Context, _ *progress) (string, error) {
	w.releases = map[string]string{}
	for _, v := range []string{first, second} {
		id, err := w.upload(ctx, w.targets(), w.billOf(v), w.images[v])
		if err != nil {
			return "", err
		}
		w.releases[v] = id
	}
	for _, v := range []string{first, second} { // in the order of their security versions
		id := w.releases[v]
		var r struct {
			State  string
			Checks []struct{ Name, Verdict string }
		}
		if err := w.until(ctx, 20*time.Second, func() (bool, error) {
			err := w.get(ctx, "/v1/releases/"+id, &r)
			return r.State == "checked", err
		}); err != nil {
			return "", fmt.Errorf("release %s is %s, checks %v: %w", v, r.State, r.Checks, err)
		}
		if err := w.person.Do(ctx, http.MethodPost, "/v1/releases/"+id+"/publish", nil, &r); err != nil {
			return "", err
		}
		if r.State != "published" {
			return "", fmt.Errorf("release %s is %s", v, r.State)
		}
	}
	// The lamps left the line with the first firmware, and have said so: the register must know without being told.
	return "checks green", w.until(ctx, 30*time.Second, func() (bool, error) {
		return w.runs(ctx, w.releases[first], len(w.devices))
	})
}

// runs says whether exactly n devices run a release.
func (w *world) runs(ctx context.Context, release string, n int) (bool, error) {
	var r struct{ Devices int }
	err := w.get(ctx, "/v1/releases/"+release, &r)
	if err == nil && r.Devices != n {
		err = fmt.Errorf("%d devices run it, want %d", r.Devices, n)
	}
	return err == nil, err
}

func (w *world) of(solution string) (out []*device) {
	for _, d := range w.devices {
		if d.solution == solution {
			out = append(out, d)
		}
	}
	return out
}

func (w *world) deploy(ctx context.Context, p *progress) (string, error) {
	w.before = time.Now()
	var d struct {
		ID, State, Reason string
		Counts            map[string]int64
	}
	if err := w.post(ctx, "/v1/deployments", map[string]any{"release": w.releases[second], "solution": w.solutions["harbour"], "waves": []int{20, 100}}, &d); err != nil {
		return "", err
	}
	want := w.of("harbour")
	err := w.until(ctx, 90*time.Second, func() (bool, error) {
		err := w.get(ctx, "/v1/deployments/"+d.ID, &d)
		p.say("%v", d.Counts)
		if d.State == "aborted" {
			return false, errors.New("aborted: " + d.Reason)
		}
		return d.State == "completed", err
	})
	if err != nil {
		return "", fmt.Errorf("%s, %v: %w", d.State, d.Counts, err)
	}
	if ok, err := w.runs(ctx, w.releases[second], len(want)); !ok {
		return "", err
	}
	return fmt.Sprintf("%d of %d run %s, said by the new system after its restart", len(want), len(w.devices), second), nil
}

// pack puts the demo's records into one zip, as a mirror would serve them.
func pack(skip string) ([]byte, error) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	files, err := fs.Glob(feed, "feed/*.json")
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		if filepath.Base(name) == skip {
			continue
		}
		src, err := feed.ReadFile(name)
		if err != nil {
			return nil, err
		}
		f, err := z.Create(filepath.Base(name))
		if err != nil {
			return nil, err
		}
		if _, err := f.Write(src); err != nil {
			return nil, err
		}
	}
	err = z.Close()
	return b.Bytes(), err
}

const rapidReset = "CVE-2023-44487"

type affected struct {
	Devices   int
	Exploited bool
	Releases  []struct {
		Release, Version string
		Devices          int
		Exposed          bool
		FixedIn          string `json:"fixed_in"`
	}
	List struct {
		Items []struct {
			Device, Version string
			Since           time.Time
		}
	} `json:"exposed_devices"`
}

// affects asks who is exposed, as of an instant unless it is zero.
func (w *world) affects(ctx context.Context, asOf time.Time) (a affected, err error) {
	path := "/v1/vulnerabilities/" + rapidReset + "/affected"
	q := query("page_size", "1000")
	if !asOf.IsZero() {
		q = query("page_size", "1000", "as_of", asOf.UTC().Format(time.RFC3339Nano))
	}
	return a, w.get(ctx, path+q, &a)
}

func (w *world) importRecords(ctx context.Context, _ *progress) (string, error) {
	records, err := pack("kev.json")
	if err != nil {
		return "", err
	}
	if err := w.post(ctx, "/v1/feeds/osv", io.Reader(bytes.NewReader(records)), nil); err != nil {
		return "", err
	}
	// Half a feed must change nothing.
	if err := w.post(ctx, "/v1/feeds/osv", io.Reader(bytes.NewReader(records[:len(records)/2])), nil); err == nil {
		return "", errors.New("half a feed was accepted")
	}
	now, err := w.affects(ctx, time.Time{})
	if err != nil {
		return "", err
	}
	if now.Devices != len(w.devices) {
		return "", fmt.Errorf("%d devices, want all %d", now.Devices, len(w.devices))
	}
	return fmt.Sprintf("%s: %d of %d devices; half a feed was refused", rapidReset, now.Devices, len(w.devices)), nil
}

func (w *world) exposure(ctx context.Context, _ *progress) (string, error) {
	late := w.of(behind)
	now, err := w.affects(ctx, time.Time{})
	if err != nil {
		return "", err
	}
	if now.Devices != len(late) || len(now.List.Items) != len(late) {
		return "", fmt.Errorf("now %d devices (%d listed), want %d", now.Devices, len(now.List.Items), len(late))
	}
	ids := map[string]bool{}
	for _, x := range now.List.Items {
		ids[x.Device] = x.Version == first && !x.Since.IsZero() && x.Since.Before(w.before)
	}
	for _, d := range late {
		if !ids[d.id] {
			return "", fmt.Errorf("%s runs %s and is not listed, or not since before the deployment", d.serial, first)
		}
	}
	past, err := w.affects(ctx, w.before)
	if err != nil {
		return "", err
	}
	if past.Devices != len(w.devices) {
		return "", fmt.Errorf("as of before the deployment %d devices, want %d", past.Devices, len(w.devices))
	}
	return fmt.Sprintf("now %d, all %s and since when; as of before the deployment %d", now.Devices, first, past.Devices), nil
}

func (w *world) decide(ctx context.Context, _ *progress) (string, error) {
	known := time.Now() // everything is known and nothing decided
	path := "/v1/vulnerabilities/" + rapidReset + "/decisions"
	decision := map[string]any{"product": w.product, "status": "not_affected", "justification": "vulnerable_code_not_in_execute_path"}
	if err := w.post(ctx, path, decision, nil); err == nil {
		return "", errors.New("not_affected was accepted without evidence")
	}
	decision["evidence"] = "The HTTP/2 listener is compiled in and never started; see review 114."
	if err := w.post(ctx, path, decision, nil); err != nil {
		return "", err
	}
	with, err := w.affects(ctx, time.Time{})
	if err != nil {
		return "", err
	}
	if err := w.post(ctx, path, map[string]any{"product": w.product, "status": "affected", "evidence": "The listener is started by the service menu: review 114 was wrong."}, nil); err != nil {
		return "", err
	}
	after, err := w.affects(ctx, time.Time{})
	if err != nil {
		return "", err
	}
	past, err := w.affects(ctx, known)
	if err != nil {
		return "", err
	}
	n := len(w.of(behind))
	if with.Devices != 0 || after.Devices != n || past.Devices != n {
		return "", fmt.Errorf("decided not affected: %d, taken back: %d, as of before: %d; want 0, %d, %d", with.Devices, after.Devices, past.Devices, n, n)
	}
	return fmt.Sprintf("not affected: 0; affected again: %d; as of before: %d", after.Devices, past.Devices), nil
}
