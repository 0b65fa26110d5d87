// SPDX-License-Identifier: AGPL-3.0-only

package update_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/agent"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/update"
)

// get asks the HTTPS device door as a device.
func (w *world) get(device, path, byteRange string) (status int, body string) {
	w.t.Helper()
	cert := must[tls.Certificate](w.t)(agent.Identity(w.dirs[device], "ldevid"))
	c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{RootCAs: w.roots, Certificates: []tls.Certificate{cert}}}}
	req := must[*http.Request](w.t)(http.NewRequestWithContext(w.t.Context(), "GET", "https://"+w.https+path, nil))
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
	}
	resp := must[*http.Response](w.t)(c.Do(req))
	defer resp.Body.Close()
	return resp.StatusCode, string(must[[]byte](w.t)(io.ReadAll(resp.Body)))
}

// TestDevicesFetchTheirOwn: images and signed lists reach devices of the release's product, once it is published.
func TestDevicesFetchTheirOwn(t *testing.T) {
	w := newWorld(t, sqlite(t))
	w.setRoot()
	lamp := w.device("A1", nil)
	draft, code, rule := w.upload(tenant.Owner, w.sign("1.0.0", 1, "draft image", nil))
	if code != 201 {
		t.Fatalf("%d %s", code, rule)
	}
	r := w.published("2.0.0", 2, "0123456789")
	w.product = must[product.Product](t)(w.products.Create(t.Context(), product.Product{Tenant: ten, Name: "Meter", Model: "meter"}, "per_1"))
	w.revision("rev-c", time.Now().AddDate(6, 0, 0))
	meter := w.device("M1", nil)
	for seen := map[string]bool{}; !seen[lamp] || !seen[meter]; {
		seen[await(t, w.ready)] = true
	}
	blob := func(r update.ReleaseOut) string { return "/d/1/blob/" + strings.TrimPrefix(r.Image, "sha256:") }
	for _, row := range []struct {
		name, device, path, byteRange string
		status                        int
		body                          string
	}{
		{"image", lamp, blob(r), "", 200, "0123456789"},
		{"rest of an image", lamp, blob(r), "bytes=4-", 206, "456789"},
		{"beyond the image", lamp, blob(r), "bytes=40-", 416, ""},
		{"list", lamp, "/d/1/ota/" + r.ID + "/targets.json", "", 200, `"2.0.0"`},
		{"root", lamp, "/d/1/trust/root.json", "", 200, `"_type": "root"`},
		{"first root", lamp, "/d/1/trust/root.json?version=1", "", 200, `"_type": "root"`},
		{"root to come", lamp, "/d/1/trust/root.json?version=2", "", 404, ""},
		{"root of no version", lamp, "/d/1/trust/root.json?version=x", "", 400, ""},
		{"image of another product", meter, blob(r), "", 404, ""},
		{"list of another product", meter, "/d/1/ota/" + r.ID + "/targets.json", "", 404, ""},
		{"image of a draft", lamp, blob(draft), "", 404, ""},
		{"list of a draft", lamp, "/d/1/ota/" + draft.ID + "/targets.json", "", 404, ""},
		{"unknown image", lamp, "/d/1/blob/" + strings.Repeat("0", 64), "", 404, ""},
		{"no digest", lamp, "/d/1/blob/root.json", "", 400, ""},
		{"bill of materials by its digest", lamp, "/d/1/blob/" + strings.TrimPrefix(r.SBOM, "sha256:"), "", 404, ""},
	} {
		status, body := w.get(row.device, row.path, row.byteRange)
		if status != row.status || !strings.Contains(body, row.body) {
			t.Errorf("%s: %d %q; want %d", row.name, status, body, row.status)
		}
	}
}

// TestSilenceIsAFailure: a device that took the offer and is never heard of again counts as failed, whether it was
// connected when the deployment began or came later.
func TestSilenceIsAFailure(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprintf("late=%v", late), func(t *testing.T) {
			w := newWorld(t, sqlite(t), func(c *update.Config) { c.Deadline = 1500 * time.Millisecond })
			w.setRoot()
			r := w.published("2.0.0", 2, "an image that hangs")
			var device string
			connect := func() {
				device = w.device("A1", func(c *agent.Config) {
					c.Health = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
				})
				for await(t, w.ready) != device {
				}
			}
			if !late {
				connect()
			}
			if code, rule := w.json(tenant.Owner, "POST", "/v1/deployments", map[string]any{"release": r.ID, "waves": []int64{100}}, nil); code != 201 {
				t.Fatalf("%d %s", code, rule)
			}
			if late {
				connect()
			}
			if got := await(t, w.ended); got != device+" failed" {
				t.Error(got)
			}
			if got := await(t, w.moved); got != update.Completed {
				t.Error(got)
			}
		})
	}
}
