// SPDX-License-Identifier: AGPL-3.0-only

package demo

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/console/browsertest"
)

// jobs makes what the pages of jobs, commands and twins show: a product that declares commands, a job that is over, one
// that is under way, and a device that cannot become what is desired of it.
func (w *world) jobs(ctx context.Context, t *testing.T, shown *device) (over, open string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	put := func(path string, in any) { must(w.api.Do(ctx, http.MethodPut, path, in, nil)) }
	put("/v1/products/"+w.product+"/commands/ping", map[string]any{"title": "Say who you are", "idempotent": true, "result_timeout_s": 60})
	put("/v1/products/"+w.product+"/commands/set-interval", map[string]any{"title": "Measure every …", "about": "Until the next start counts as well.", "result_timeout_s": 60,
		"args": []map[string]any{{"name": "seconds", "type": "number", "min": 0.01, "max": 86400, "required": true, "about": "Seconds between two measurements."}}})
	var j struct {
		ID, State string
		Ended     time.Time
		Counts    struct{ Done int }
	}
	must(w.post(ctx, "/v1/jobs", map[string]any{"title": "Roll call", "name": "ping", "rate": 600, "parallel": 4, "abort_percent": 50, "abort_after": 3, "timeout_s": 60}, &j))
	over = j.ID
	must(w.until(ctx, 30*time.Second, func() (bool, error) {
		err := w.get(ctx, "/v1/jobs/"+over, &j)
		return j.Counts.Done >= 5, err
	}))
	must(w.api.Do(ctx, http.MethodPatch, "/v1/devices/"+shown.id+"/twin", map[string]any{"telemetry": map[string]any{"interval_s": 0.5}}, nil))
	must(w.until(ctx, 30*time.Second, func() (bool, error) {
		var tw struct {
			Applied int64 `json:"applied_version"`
		}
		err := w.get(ctx, "/v1/devices/"+shown.id+"/twin", &tw)
		return tw.Applied == 1, err
	}))
	must(w.api.Do(ctx, http.MethodPatch, "/v1/devices/"+shown.id+"/twin", map[string]any{"telemetry": map[string]any{"interval_s": -1}, "light": map[string]any{"level": 40}}, nil))
	must(w.post(ctx, "/v1/jobs", map[string]any{"kind": "twin", "title": "Dim for the night", "args": map[string]any{"night": map[string]any{"level": 20}}, "rate": 6, "follow": true}, &j))
	return over, j.ID
}

// lookAtJobs walks the pages of jobs as a person does.
func (w *world) lookAtJobs(t *testing.T, b *browsertest.Browser, over, open string, shown *device) {
	t.Helper()
	for name, page := range map[string]struct{ path, want string }{
		"jobs": {"/jobs", "Dim for the night"}, "job": {"/jobs/" + over, "done"}, "job-open": {"/jobs/" + open, "6 devices a minute"},
		"device-state": {"/devices/" + shown.id, "The device could not apply version"}, "product-commands": {"/products/" + w.product, "Measure every …"},
	} {
		b.Go(page.path)
		if text := b.Text("main"); !strings.Contains(text, page.want) {
			t.Errorf("%s does not say %q:\n%s", page.path, page.want, text)
		}
		b.Accessible()
		b.Shots(name)
	}
	// The progress of a job moves without a reload.
	var slow struct{ ID string }
	if err := w.post(t.Context(), "/v1/jobs", map[string]any{"title": "One by one", "name": "ping", "rate": 12}, &slow); err != nil {
		t.Fatal(err)
	}
	b.Go("/jobs/" + slow.ID)
	progress := `document.querySelector('#job-progress').textContent`
	before := browsertest.Value[string](b, progress)
	b.Until(fmt.Sprintf(`%s !== %q`, progress, before))
	// A setting is changed by its field, and a writer who was overtaken sees both.
	b.Go("/devices/" + shown.id)
	b.Type(`input[name="v:/telemetry/interval_s"]`, "2")
	if err := w.api.Do(t.Context(), http.MethodPatch, "/v1/devices/"+shown.id+"/twin", map[string]any{"light": map[string]any{"level": 55}}, nil); err != nil {
		t.Fatal(err)
	}
	b.Click(`form[action$="/twin"] button.primary`)
	b.Until(`document.querySelector('main .problem[role=alert]') !== null`)
	if text := b.Text("main"); !strings.Contains(text, "Somebody else has changed") {
		t.Errorf("the writer who was overtaken reads:\n%s", text)
	}
	if v := browsertest.Value[string](b, `document.querySelector('input[name="v:/telemetry/interval_s"]').value`); v != "2" {
		t.Errorf("what was typed is gone: %q", v)
	}
	b.Accessible()
	b.Shots("device-state-conflict")
	b.Click(`form[action$="/twin"] button.primary`)
	b.Until(`document.querySelector('main .said') !== null`)
	for _, l := range b.Log() {
		if !strings.Contains(l, "status of 412") { // the refusal above
			t.Errorf("browser log: %s", l)
		}
	}
}
