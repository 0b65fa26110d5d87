// SPDX-License-Identifier: AGPL-3.0-only

package demo

import (
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/console/browsertest"
)

// rawID is an id of something that has a name. A device's own id stands on its page, beside its serial number.
var rawID = regexp.MustCompile(`\b(per|tok|sta|bat|sol|prd|rev|rel|dpl|cas|sig|asm|ten)_[0-9a-z]{20,}`)

// A person enters with a passkey, looks at a fleet with real agents, and every page that the platform shows is
// accessible, quiet in the browser's log, and says what it is for.
func TestBrowser(t *testing.T) {
	w := &world{cfg: Config{Devices: 8, Binary: builtBinary}, dir: t.TempDir()}
	t.Cleanup(w.close)
	p := newProgress(io.Discard)
	for _, s := range w.steps(t.Context()) {
		if _, err := s.run(t.Context(), p); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
	}
	others := w.enrolOthers(t.Context(), t)
	over, open := w.jobs(t.Context(), t, w.devices[3])
	link, err := w.invite(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := browsertest.Open(t, w.platform.URL)
	b.Authenticator()

	// Join, leave, and come back with the passkey alone.
	b.Go(strings.TrimPrefix(link, w.platform.URL))
	b.Type("input[name=name]", "Bo Lind")
	b.Click("form button[type=submit], form button")
	b.UntilPath("/")
	b.Click("form[action='/sign-out'] button")
	b.UntilPath("/sign-in")
	b.Accessible()
	b.Click("button")
	b.UntilPath("/")

	// The fleet counts itself live: one device is switched off and the number moves without a reload.
	b.Go("/fleet")
	online := `Number(document.querySelector('#fleet-online').textContent.replace(/\D/g, ''))`
	b.Until(online + ` === 6`) // 8, less the one that wiped itself and the one that was deprovisioned
	w.devices[7].switchOff()
	b.Until(online + ` === 5`)
	shown := w.devices[2]
	for path, want := range map[string]string{
		"/": "", "/products": "Street lamp", "/products/" + w.product: "Street lamp", "/enrol": "line 3", "/issuers": "operational", "/fleet": shown.serial, "/devices/" + shown.id: shown.serial,
		"/devices/" + w.devices[0].id: "LMP-00001", "/releases": second, "/releases/" + w.releases[second]: second, "/vulnerabilities": rapidReset,
		"/vulnerabilities/" + rapidReset: first, "/cases": "rapid reset", "/cases/" + w.caseID: "rapid reset", "/evidence": "device.", "/law": "Art", "/access": "Bo Lind",
	} {
		b.Go(path)
		text := b.Text("main")
		if !strings.Contains(text, want) {
			t.Errorf("%s does not say %q:\n%s", path, want, text)
		}
		listsIDs := path == "/access" || strings.HasPrefix(path, "/products/") // for those who call the API
		if raw := rawID.FindString(text); raw != "" && !listsIDs {
			t.Errorf("%s shows people the id %s where a name is known", path, raw)
		}
		b.Accessible()
		name := strings.Trim(strings.NewReplacer("/", "-", shown.id, "shown", w.devices[0].id, "wiped", w.product, "one", w.releases[second], "one", w.caseID, "one").Replace(path), "-")
		if name == "" {
			name = "today"
		}
		b.Shots(name)
	}
	// Every page of enrolment is found from the first one.
	b.Go("/enrol")
	for _, path := range browsertest.Value[[]string](b, `[...document.querySelectorAll('nav.tabs a')].map(a => a.getAttribute('href'))`) {
		b.Go(path)
		if raw := rawID.FindString(b.Text("main")); raw != "" {
			t.Errorf("%s shows people the id %s where a name is known", path, raw)
		}
		b.Accessible()
		b.Shots(strings.ReplaceAll(strings.Trim(path, "/"), "/", "-"))
	}
	for name, page := range map[string]struct{ path, want string }{
		"batch": {"/enrol/batches/" + others.batch, "LMP-30002"}, "station": {"/enrol/stations/" + others.station, "LMP-30001"}, "clone": {"/enrol/quarantine", others.clone},
		"lobby": {"/enrol/lobby", others.guest}, "serials": {"/enrol/serials", "LMP-40001"}, "revocations": {"/revocations", "batch 2026-49"}, "policies": {"/enrol/policies", "45 days"},
		"admission": {"/enrol/admission", "Lumen device CA"}, "hooks": {"/enrol/hooks", "erp.example"},
	} {
		b.Go(page.path)
		if text := b.Text("main"); !strings.Contains(text, page.want) {
			t.Errorf("%s does not say %q:\n%s", page.path, page.want, text)
		}
		b.Accessible()
		b.Shots("others-" + name)
	}
	// An alarm: what is wrong, what is watched, who was told.
	alarm := w.alarmed(t.Context(), t, shown)
	for path, want := range map[string]string{"/alarms": "Uses too much", "/alarms/" + alarm: shown.serial, "/alarms/rules": "nothing on any topic for 1 h", "/notifications": "gone (410)"} {
		b.Go(path)
		text := b.Text("main")
		if !strings.Contains(text, want) {
			t.Errorf("%s does not say %q:\n%s", path, want, text)
		}
		if raw := rawID.FindString(text); raw != "" {
			t.Errorf("%s shows people the id %s where a name is known", path, raw)
		}
		b.Accessible()
		b.Shots("alarm-" + strings.ReplaceAll(strings.Trim(strings.Replace(path, alarm, "one", 1), "/"), "/", "-"))
	}
	// A sheet of labels is made by its form, and printed without what stands around it.
	b.Go("/enrol/labels")
	b.Type("textarea[name=codes]", others.spare.serial+","+others.spare.claim+"\n"+others.spare.claim)
	b.Click("main form button.primary")
	b.Until(`document.querySelectorAll('svg.qr').length === 2`)
	b.Accessible()
	b.Shots("labels-sheet")
	b.Print("labels-print")
	if around := browsertest.Value[int](b, `[...document.querySelectorAll('.side, .heading, .tabs, .hint, button, .said')].filter(e => e.checkVisibility()).length`); around != 0 {
		t.Errorf("%d things beside the labels are printed", around)
	}
	if wide := browsertest.Value[float64](b, `document.querySelector('svg.qr').getBoundingClientRect().width / 96 * 25.4`); wide < 25 {
		t.Errorf("a QR code is %.0f mm wide on paper", wide)
	}
	b.Screen()
	// The label leads to the public page of the device; its claimant sees what runs on it.
	b.Go("/label")
	b.Accessible()
	b.Shots("label-form")
	b.Type("#f-code", shown.claim)
	b.Click("main form button")
	b.Until(`document.querySelector("#runs") !== null`)
	if text := b.Text("body"); !strings.Contains(text, "Security updates") || strings.Contains(text, shown.serial) || rawID.MatchString(text) {
		t.Errorf("the page of a device's label says\n%s", text)
	}
	b.Accessible()
	b.Shots("label-claimant")
	w.lookAtJobs(t, b, over, open, w.devices[3])
	// A deployment is found from its list, and says its devices by name.
	b.Go("/deployments")
	b.Accessible()
	b.Go(browsertest.Value[string](b, `document.querySelector('tbody th a').getAttribute('href')`))
	if text := b.Text("main"); !strings.Contains(text, shown.serial) || !strings.Contains(text, "Wave 1") {
		t.Errorf("the deployment does not say its waves and devices:\n%s", text)
	}
	b.Accessible()
	b.Shots("deployment")
	// On a telephone nothing is wider than the screen.
	b.Size(390, 844)
	narrow := others.narrow(w)
	narrow["alarms"], narrow["alarm"], narrow["alarm-rules"], narrow["notifications"] = "/alarms", "/alarms/"+alarm, "/alarms/rules", "/notifications"
	for name, path := range map[string]string{"today": "/", "fleet": "/fleet", "device": "/devices/" + shown.id, "case": "/cases/" + w.caseID, "enrol": "/enrol", "issuers": "/issuers", "jobs": "/jobs", "job": "/jobs/" + over, "device-state": "/devices/" + w.devices[3].id} {
		narrow[name] = path
	}
	for name, path := range narrow {
		b.Go(path)
		if browsertest.Value[bool](b, `document.documentElement.scrollWidth > innerWidth`) {
			t.Errorf("%s is wider than a telephone", path)
		}
		b.Accessible()
		b.Shots("narrow-" + name)
	}
	b.Size(1280, 860)
	// Charts are drawn by the script; the numbers and a drawing stand there without. Who drags over a part sees it closer, the
	// page is not loaded anew, and the way back is the browser's.
	b.Go("/devices/" + shown.id + "/telemetry?range=5m")
	b.Until(`document.querySelectorAll('canvas').length > 0`)
	b.Accessible()
	b.Shots("telemetry")
	b.Size(390, 844)
	if browsertest.Value[bool](b, `document.documentElement.scrollWidth > innerWidth`) {
		t.Error("the charts are wider than a telephone")
	}
	b.Accessible()
	b.Shots("narrow-telemetry")
	b.Size(1280, 860)
	wide := browsertest.Value[string](b, `window.stays = document.querySelector('[data-view]').dataset.view`)
	browsertest.Value[bool](b, `(() => {
		const over = document.querySelector('.u-over'), box = over.getBoundingClientRect();
		const at = (part) => ({ bubbles: true, button: 0, movementX: 9, clientX: box.left + box.width * part, clientY: box.top + 20 });
		over.dispatchEvent(new MouseEvent('mousemove', at(0.5)));
		over.dispatchEvent(new MouseEvent('mousedown', at(0.5)));
		document.dispatchEvent(new MouseEvent('mousemove', at(0.9)));
		over.dispatchEvent(new MouseEvent('mousemove', at(0.9)));
		document.dispatchEvent(new MouseEvent('mouseup', at(0.9)));
		return true;
	})()`)
	b.Until(`location.search.includes('from=') && document.querySelectorAll('canvas').length > 0`)
	if stays := browsertest.Value[string](b, `window.stays`); stays != wide {
		t.Error("zooming loaded the page anew")
	}
	b.Shots("telemetry-zoom")
	browsertest.Value[bool](b, `(history.back(), true)`)
	b.Until(`location.search === '?range=5m' && document.querySelectorAll('canvas').length > 0`)
	b.QuietLog()
}
