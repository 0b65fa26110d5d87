// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/console/browsertest"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

// desk is a yard with pages, which a browser looks at.
type desk struct {
	*yard
	b       *browsertest.Browser
	product string
}

func newDesk(t *testing.T) (d *desk, end func()) {
	if testing.Short() {
		t.Skip("needs a browser")
	}
	clk := clock.NewHand(t0)
	db := storetest.Open(t, storetest.SQLiteURL(t), yardSchema, func(c *store.Config) { c.Clock = clk })
	y, end := openYard(t, db, clk)
	y.cfg.Product = y.products
	p, err := y.cfg.Product.Create(t.Context(), product.Product{Tenant: "ten", Name: "Harbour lamp", Model: "lamp"}, "per_x")
	y.must(err)
	l, origin := browsertest.Listen(t)
	c := console.New(console.Config{Clock: clk, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Menu: []string{"Today", "Fleet", "Jobs"}, Holds: tenant.Holds,
		Authenticate: func(r *http.Request) (context.Context, error) {
			return tenant.WithActor(r.Context(), tenant.Actor{ID: "per_ann", Kind: tenant.KindPerson, Tenant: "ten", Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: "ten"}}}), nil
		},
		Visitor: func(context.Context) string { return "Ann" },
		Name: func(_ context.Context, id string) string {
			return map[string]string{"per_ann": "Ann", "per_x": "Ben"}[id]
		}})
	y.fleet.Pages(c)
	y.Pages(c)
	browsertest.Serve(t, l, c)
	return &desk{y, browsertest.Open(t, origin), p.ID}, end
}

// looks is what every page must stand: accessible in light and dark, and no wider than a telephone.
func (d *desk) looks(path, shot string) {
	d.t.Helper()
	d.b.Go(path)
	d.b.Accessible()
	d.b.Size(390, 844)
	if wide := browsertest.Value[int](d.b, `document.documentElement.scrollWidth`); wide > 390 {
		d.t.Errorf("%s is %d px wide on a telephone", path, wide)
	}
	d.b.Accessible()
	d.b.Shots(shot + "-narrow")
	d.b.Size(1280, 900)
	d.b.Shots(shot)
}

// turns turns the clock until the page says so by itself.
func (d *desk) turns(expression string) {
	d.t.Helper()
	for range 1000 {
		if browsertest.Value[bool](d.b, `(() => { try { return !!(`+expression+`) } catch { return false } })()`) { // what it names may not be there yet
			return
		}
		d.clk.WaitTimers(1)
		d.clk.Advance(panelLook)
	}
	d.b.Until(expression)
}

// The panel of a device shows how a command gets on without being loaded anew, in the middle of what a person reads.
func TestCommandPanelInABrowser(t *testing.T) {
	d, end := newDesk(t)
	defer end()
	lamp := d.devices[0]
	old := d.send(lamp, "locate", map[string]int{"seconds": 30})
	d.until(old, Received)
	d.must(d.says(lamp, "cmd/"+old+"/res", `{"ok":true,"detail":"blinked 30 times","data":{"battery":87}}`))
	bad := d.send(lamp, "unlock", nil)
	d.until(bad, Received)
	d.must(d.says(lamp, "cmd/"+bad+"/ack", `{"ok":false,"reason":"the door is open already"}`))
	path := "/devices/" + lamp
	d.b.Go(path)
	d.b.Until(fmt.Sprintf(`document.getElementById(%q).textContent.includes("the door is open already")`, bad))
	d.b.Click(`li:has(#` + old + `) summary`)
	// Somebody else asks, and the page shows it.
	id := d.send(lamp, "reboot", map[string]int{"delay": 5})
	state := func(want string) {
		t.Helper()
		d.turns(fmt.Sprintf(`!!document.getElementById(%q)?.querySelector('.badge').textContent.includes(%q)`, id, want))
	}
	state("received")
	d.must(d.says(lamp, "cmd/"+id+"/ack", `{"ok":true}`))
	state("accepted")
	d.b.Click(`li:has(#` + id + `) summary`)
	d.b.Shots("command-accepted")
	d.must(d.says(lamp, "cmd/"+id+"/res", `{"ok":true,"detail":"restarted","data":{"boot":8}}`))
	state("done")
	// Each part arrives by itself; what a person had opened stays open.
	d.b.Until(`document.querySelector('li:has(#` + id + `) details').open && document.getElementById('` + id + `-more').textContent.includes('"boot":8')`)
	d.b.Until(`document.querySelector('#commands-said').textContent === "reboot is done"`)
	d.looks(path, "commands")
	d.b.QuietLog()
}

// The card of notices says how far each has come, and is not there while there is none.
func TestNoticesInABrowser(t *testing.T) {
	d, end := newDesk(t)
	defer end()
	lamp := d.devices[0]
	path := "/devices/" + lamp
	d.b.Go(path)
	if text := d.b.Text("main"); strings.Contains(text, "Notices to the users") {
		t.Errorf("a card of nothing:\n%s", text)
	}
	first := d.send(lamp, wire.CommandNotice, someNotice("n1"))
	d.until(first, Received)
	d.must(d.says(lamp, "cmd/"+first+"/ack", `{"ok":false,"reason":"this agent knows no command \"notice\""}`))
	d.clk.Advance(time.Millisecond) // ids sort by it
	second := d.send(lamp, wire.CommandNotice, someNotice("n2"))
	d.until(second, Received)
	d.must(d.says(lamp, "cmd/"+second+"/res", `{"ok":true,"detail":"stored"}`))
	d.must(d.NoticeReported(t.Context(), gateway.Record{Tenant: "ten", Device: lamp, Topic: wire.TopicNotice, Body: []byte(`{"notice":"n2","state":"shown"}`), At: store.Millis(d.clk.Now())}))
	d.b.Go(path)
	text := d.b.Text("main")
	for _, want := range []string{"Notices to the users", "Support ends", "shown", "failed", "knows no command", "Acknowledged"} {
		if !strings.Contains(text, want) {
			t.Errorf("the card does not say %q:\n%s", want, text)
		}
	}
	d.looks(path, "device-notices")
	d.b.QuietLog()
}

// A job is begun in the form, for a product and at a time, and its page counts and draws while devices end.
func TestJobsInABrowser(t *testing.T) {
	d, end := newDesk(t)
	defer end()
	d.looks("/jobs", "jobs-none")
	d.b.Go("/jobs")
	d.b.Click("details.add summary")
	d.b.Type("#f-name", "reboot")
	d.b.Type("#f-title", "Nightly restart")
	d.b.Type("#f-filter", "serial:SN-0*")
	d.b.Type("#f-abort_count", "3")
	d.b.Accessible()
	d.b.Shots("job-form")
	d.b.Size(390, 844)
	d.b.Shots("job-form-narrow")
	d.b.Size(1280, 900)
	d.b.Click("details.add[open] button.primary")
	d.b.Until(`location.pathname.startsWith("/jobs/job_")`)
	id := strings.TrimPrefix(browsertest.Value[string](d.b, `location.pathname`), "/jobs/")
	if j := d.job(id); j.AbortCount != 3 || j.Title != "Nightly restart" {
		t.Errorf("begun as %+v", j)
	}
	d.turn()
	d.answer(id, true, d.devices[:4]...)
	d.answer(id, false, d.devices[4])
	d.turns(`document.querySelector('#job-progress').textContent.includes('4') && !!document.querySelector('#job-ends .uplot')`)
	d.looks("/jobs/"+id, "job")
	d.looks("/jobs", "jobs")
	// For one product, in the night.
	d.b.Go("/jobs")
	d.b.Click("details.add summary")
	d.b.Type("#f-name", "reboot")
	browsertest.Value[bool](d.b, `(document.querySelector('#f-not_before').value = '2026-11-22T03:00', document.querySelector('#f-product').value = '`+d.product+`', true)`)
	d.b.Click("details.add[open] button.primary")
	d.b.Until(`location.pathname.startsWith("/jobs/job_")`)
	id = strings.TrimPrefix(browsertest.Value[string](d.b, `location.pathname`), "/jobs/")
	if j := d.job(id); j.Product != d.product || !j.NotBefore.Equal(time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)) || j.State != Scheduled {
		t.Errorf("begun as %+v", j)
	}
	d.b.QuietLog()
}
