// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/update"
)

// factory is a house that makes units and deploys releases.
type factory struct {
	*house
	product string
	told    []string // topics and vulnerabilities of events
}

func eachFactory(t *testing.T, fn func(f *factory)) {
	t.Parallel()
	hand := clock.NewHand(day0)
	schema := []store.Migrations{audit.Schema, tenant.Schema, product.Schema, identity.Schema, enroll.Schema, sbom.Schema, fleet.Schema, update.Schema, Schema}
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		hand.Set(day0)
		devices := register(t, db, hand)
		h := furnish(t, db, hand, devices)
		products := product.New(product.Config{DB: db, Clock: hand})
		h.vuln.cfg.Enroll = enroll.New(enroll.Config{DB: db, Identity: devices, Products: products, Clock: hand})
		h.vuln.cfg.Update = update.New(update.Config{DB: db, Clock: hand})
		f := &factory{house: h}
		for _, topic := range []string{TopicStopped, TopicResumed} {
			db.On(topic, "test", func(_ context.Context, e store.Event) error {
				var x StopTold
				h.mu.Lock()
				defer h.mu.Unlock()
				defer func() { f.told = append(f.told, topic+" "+x.Vulnerability+" "+x.By) }()
				return e.Decode(&x)
			})
		}
		p, err := products.Create(t.Context(), product.Product{Tenant: "ten_a", Name: "Lamp", Model: "lamp"}, "per_1")
		h.must(err)
		f.product = p.ID
		fn(f)
	}, func(c *store.Config) { c.Clock = hand })
}

func register(t *testing.T, db *store.DB, hand *clock.Hand) *identity.Service {
	dir := t.TempDir()
	keys, err := seal.Open(filepath.Join(dir, "keys"), hand)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := embedded.Open(embedded.Config{Dir: filepath.Join(dir, "ca"), Keys: keys, Name: "Test", Clock: hand})
	if err != nil {
		t.Fatal(err)
	}
	devices, err := identity.New(identity.Config{DB: db, Issuer: issuer, Clock: hand})
	if err != nil {
		t.Fatal(err)
	}
	return devices
}

func image(n int) string { return "sha256:" + strings.Repeat(fmt.Sprintf("%x", n), 64)[:64] }

// make uploads a release with an image of its own, of Go modules.
func (f *factory) make(n int, modules ...string) string {
	f.Helper()
	id := fmt.Sprintf("rel_%02d", n)
	f.images = map[string]string{id: image(n)}
	f.release("ten_a", id, f.product, fmt.Sprintf("1.%d.0", n), modules...)
	return id
}

// stops are the versions that are held, by stop.
func (f *factory) stops() (out []string) {
	f.Helper()
	list, err := f.vuln.Stops(f.Context(), "ten_a", enroll.HoldFilter{Standing: true}, func(string) bool { return true })
	f.must(err)
	for _, x := range list {
		out = append(out, strings.TrimSpace(x.Cause+" "+strings.Join(x.Versions, ",")))
	}
	return out
}

func (f *factory) wantStops(what string, want ...string) {
	f.Helper()
	f.want(what, strings.Join(f.stops(), "; "), strings.Join(want, "; "))
}

func (f *factory) policy(p StopPolicy) {
	f.Helper()
	_, err := f.vuln.SetStopPolicy(f.Context(), "ten_a", "per_1", f.product, p)
	f.must(err)
	f.run()
}

func (f *factory) lift() {
	f.Helper()
	list, err := f.vuln.Stops(f.Context(), "ten_a", enroll.HoldFilter{Standing: true}, func(string) bool { return true })
	f.must(err)
	for _, x := range list {
		_, err := f.vuln.Resume(f.Context(), "ten_a", "per_1", x.ID, "the line flashes the fix")
		f.must(err)
	}
	f.run()
}

const (
	badNet  = "golang.org/x/net@v0.10.0"
	goodNet = "golang.org/x/net@v0.62.0"
)

func (f *factory) exploited() {
	f.Helper()
	_, err := f.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", ""), kevRapidReset)
	f.must(err)
}

// TestStopFollowsThePolicy: nothing by default, a question where it was asked for, a stop at once where it was ordered.
func TestStopFollowsThePolicy(t *testing.T) {
	eachFactory(t, func(f *factory) {
		f.make(1, badNet)
		f.make(2, goodNet)
		f.exploited()
		f.wantStops("off")
		f.policy(StopAsk)
		f.wantStops("ask")
		asked, err := f.vuln.AskedStops(f.Context(), "ten_a", func(string) bool { return true })
		f.must(err)
		if len(asked) != 1 || asked[0].Vulnerability != "CVE-2023-44487" || len(asked[0].Versions) != 1 || asked[0].Versions[0] != "1.1.0" {
			t.Errorf("asked: %+v", asked)
		}
		f.policy(StopAutomatic) // what is exploited already counts
		f.wantStops("automatic", "CVE-2023-44487 1.1.0")
		f.want("events", strings.Join(f.told, "; "), "vuln.stopped CVE-2023-44487 system")
	})
}

// TestStopIsLiftedByAPersonAlone: neither the catalogue again, nor a decision, nor a fix, nor another policy lifts it; and
// what a person has lifted is not stopped again for the same finding.
func TestStopIsLiftedByAPersonAlone(t *testing.T) {
	eachFactory(t, func(f *factory) {
		f.policy(StopAutomatic)
		f.make(1, badNet)
		f.exploited()
		f.wantStops("exploited", "CVE-2023-44487 1.1.0")
		f.make(2, badNet) // the same fault in another release: the same stop
		f.make(3, goodNet)
		f.wantStops("widened", "CVE-2023-44487 1.1.0,1.2.0")
		_, err := f.feed("ten_a", kevRapidReset, xnet("OTHER-1", "CVE-2023-44487", "0.17.0", "")) // a second source of the same
		f.must(err)
		f.wantStops("a second source", "CVE-2023-44487 1.1.0,1.2.0")
		f.clock.Advance(time.Hour)
		_, err = f.vuln.Decide(f.Context(), "ten_a", "per_1", "CVE-2023-44487", Deciding{Product: f.product, Status: NotAffected,
			Justification: "vulnerable_code_not_in_execute_path", Evidence: "No HTTP/2 server is started."})
		f.must(err)
		f.run()
		f.policy(StopOff)
		f.wantStops("decided to be harmless, and switched off", "CVE-2023-44487 1.1.0,1.2.0")
		f.lift()
		f.wantStops("lifted")
		f.clock.Advance(time.Hour)
		_, err = f.vuln.Decide(f.Context(), "ten_a", "per_1", "CVE-2023-44487", Deciding{Product: f.product, Status: DecidedAffected})
		f.must(err)
		f.policy(StopAutomatic)
		f.run()
		f.wantStops("lifted, and affected all the same")
		f.make(4, badNet) // a release that nobody has looked at
		f.wantStops("a new release", "CVE-2023-44487 1.4.0")
		f.want("events", strings.Join(f.told, "; "), "vuln.stopped CVE-2023-44487 system; vuln.resumed CVE-2023-44487 per_1; vuln.stopped CVE-2023-44487 system")
		var n int64
		f.must(f.db.QueryRow(t.Context(), `SELECT count(*) FROM audit_entry WHERE kind IN ('hold.opened', 'hold.widened', 'hold.lifted')`).Scan(&n))
		if n != 4 {
			t.Errorf("%d leaves, want 4", n)
		}
	})
}

// TestStopWhatWasDecidedHarmless stops nothing.
func TestStopWhatWasDecidedHarmless(t *testing.T) {
	eachFactory(t, func(f *factory) {
		f.policy(StopAutomatic)
		f.make(1, badNet)
		_, err := f.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", ""))
		f.must(err)
		f.clock.Advance(time.Hour)
		_, err = f.vuln.Decide(f.Context(), "ten_a", "per_1", "CVE-2023-44487", Deciding{Product: f.product, Release: "rel_01", Status: Fixed, Evidence: "patched"})
		f.must(err)
		_, err = f.feed("ten_a", kevRapidReset)
		f.must(err)
		f.wantStops("patched")
	})
}

// TestStopByHand stops what a person names, once, and refuses what is not there.
func TestStopByHand(t *testing.T) {
	eachFactory(t, func(f *factory) {
		one := f.make(1, badNet)
		f.make(2, goodNet)
		f.exploited()
		stop := func(in Stopping) error {
			in.Product = cmp.Or(in.Product, f.product)
			_, err := f.vuln.StopUnits(f.Context(), "ten_a", "per_1", in)
			return err
		}
		for what, c := range map[string]struct {
			in   Stopping
			kind problem.Kind
		}{
			"no reason":            {Stopping{}, problem.KindInvalid},
			"another product":      {Stopping{Product: "prd_x", Reason: "x"}, problem.KindNotFound},
			"another's release":    {Stopping{Releases: []string{"rel_99"}, Reason: "x"}, problem.KindNotFound},
			"no such batch":        {Stopping{Batch: "bat_1", Reason: "x"}, problem.KindNotFound},
			"no such line":         {Stopping{Origin: "sta_1", Reason: "x"}, problem.KindNotFound},
			"unknown":              {Stopping{Vulnerability: "CVE-1", Reason: "x"}, problem.KindNotFound},
			"both":                 {Stopping{Vulnerability: "CVE-2023-44487", Releases: []string{one}, Reason: "x"}, problem.KindInvalid},
			"a longer reason than": {Stopping{Reason: strings.Repeat("x", 501)}, problem.KindInvalid},
		} {
			if err := stop(c.in); !problem.Is(err, c.kind) {
				t.Errorf("%s: %v", what, err)
			}
		}
		f.must(stop(Stopping{Vulnerability: "GO-1", Reason: "being exploited"}))
		f.must(stop(Stopping{Vulnerability: "CVE-2023-44487", Reason: "pressed twice"}))
		f.wantStops("one stop", "CVE-2023-44487 1.1.0")
		f.policy(StopAutomatic)
		f.wantStops("the policy finds it done", "CVE-2023-44487 1.1.0")
		f.lift()
		f.must(stop(Stopping{Releases: []string{one}, Reason: "wrong image"}))
		f.wantStops("a release", "1.1.0")
	})
}

// published makes an uploaded release one that was published, for hardware, with a security version.
func (f *factory) published(id string, security int64, hw ...string) {
	f.Helper()
	f.clock.Advance(time.Hour)
	r := f.releases["ten_a "+id]
	f.must(f.db.Write(f.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO release(id, tenant, product, version, security_version, data_floor, min_from, class, path, hw, image, length, sbom, targets, signers, state, actor, created, published, withdrawn)
			VALUES ($1, 'ten_a', $2, $3, $4, 0, 0, 'feature', $1, $5, $6, 1, '', 1, '[]', 'published', 'per_1', $7, $7, 0)`,
			id, r.Product, r.Version, security, `["`+strings.Join(hw, `","`)+`"]`, r.Image, store.Millis(f.clock.Now()))
		if err != nil {
			return err
		}
		return f.db.Emit(tx, "release.published", "ten_a", id, nil)
	}))
	f.run()
}

// safe is the answer as "hw:floor@version because | clean@version".
func (f *factory) safe() string {
	f.Helper()
	list, err := f.vuln.SafeVersions(f.Context(), "ten_a", f.product)
	f.must(err)
	var out []string
	for _, x := range list {
		out = append(out, fmt.Sprintf("%s:%d@%s %v %s|%d@%s", x.HW, x.Safe.SecurityVersion, x.Safe.Version, x.Safe.Firm, strings.Join(x.Safe.Because, ";"), x.Clean.SecurityVersion, x.Clean.Version))
	}
	return strings.Join(out, " / ")
}

// deploy says by which rule a deployment of the release is refused, "" if it starts.
func (f *factory) deploy(release, override string) string {
	f.Helper()
	_, err := f.vuln.cfg.Update.Deploy(f.Context(), update.Deployment{Tenant: "ten_a", Release: release, Product: f.product, Actor: "per_1", Override: override}, []int64{100})
	if err == nil {
		return ""
	}
	return problem.Of(err).Rule
}

// TestSafeFloorFollowsWhatIsExploited: the floor rises above the last release that is not safe, names why, holds
// deployments to it, and falls again when a person decides that it does no harm.
func TestSafeFloorFollowsWhatIsExploited(t *testing.T) {
	eachFactory(t, func(f *factory) {
		f.published(f.make(1, goodNet), 1, "A", "B")
		f.published(f.make(2, badNet), 2, "A")
		f.published(f.make(3, goodNet), 2, "A") // the fix, signed without raising the version
		f.published(f.make(4, goodNet), 3, "A")
		f.want("nothing known", f.safe(), "A:1@1.1.0 true |1@1.1.0 / B:1@1.1.0 true |1@1.1.0")
		_, err := f.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", ""))
		f.must(err)
		f.want("found, not exploited", f.safe(), "A:1@1.1.0 true |3@1.3.0 / B:1@1.1.0 true |1@1.1.0")
		f.want("found, not exploited: deployed", f.deploy("rel_02", ""), "")
		_, err = f.feed("ten_a", kevRapidReset)
		f.must(err)
		f.want("exploited", f.safe(), "A:3@1.3.0 false CVE-2023-44487 in 1.2.0 (security version 2)|3@1.3.0 / B:1@1.1.0 true |1@1.1.0")
		for release, want := range map[string]string{"rel_01": update.RuleAdvised, "rel_02": update.RuleAdvised, "rel_03": "", "rel_04": ""} {
			f.want("deploy "+release, f.deploy(release, ""), want)
		}
		f.want("a person says why", f.deploy("rel_02", "the bench has no network"), "")
		f.must(f.db.Write(t.Context(), func(tx *store.Tx) error { // its signature stays good
			_, err := tx.Exec(`UPDATE release SET state = 'withdrawn' WHERE id = 'rel_02'`)
			return err
		}))
		f.want("withdrawn", f.safe(), "A:3@1.3.0 false CVE-2023-44487 in 1.2.0 (security version 2)|3@1.3.0 / B:1@1.1.0 true |1@1.1.0")
		before := f.leaves("floor.advised")
		f.must(f.db.Write(t.Context(), func(tx *store.Tx) error { return stir(tx, "ten_a", []string{"rel_01", "rel_02"}) }))
		f.must(f.vuln.settleStirred(t.Context(), "ten_a"))
		f.want("told again", fmt.Sprint(f.leaves("floor.advised")-before), "0")
		f.clock.Advance(time.Hour)
		_, err = f.vuln.Decide(f.Context(), "ten_a", "per_1", "CVE-2023-44487", Deciding{Product: f.product, Status: NotAffected,
			Justification: "vulnerable_code_not_in_execute_path", Evidence: "No HTTP/2 server is started."})
		f.must(err)
		f.want("decided", f.safe(), "A:1@1.1.0 true |1@1.1.0 / B:1@1.1.0 true |1@1.1.0")
		f.want("decided: deployed", f.deploy("rel_01", ""), "")
		_, err = f.feed("ten_a", xnet("GO-2", "CVE-2026-7", "0.99.0", ""), `{"catalogVersion":"2","count":1,"vulnerabilities":[{"cveID":"CVE-2026-7","dateAdded":"2026-10-10"}]}`)
		f.must(err)
		f.want("all exploited", f.safe(), "A:4@ false CVE-2026-7 in 1.4.0 (security version 3)|4@ / B:2@ false CVE-2026-7 in 1.1.0 (security version 1)|2@")
	})
}

func (f *factory) leaves(kind string) (n int64) {
	f.Helper()
	f.must(f.db.QueryRow(f.Context(), `SELECT count(*) FROM audit_entry WHERE kind = $1`, kind).Scan(&n))
	return n
}

// TestSafeFloorOfFew names the first of many reasons, and nothing where there is no release.
func TestSafeFloorOfFew(t *testing.T) {
	releases := []update.Release{{ID: "a", Version: "1", SecurityVersion: 1}, {ID: "b", Version: "2", SecurityVersion: 2}}
	if f := lowest(releases, map[string][]string{"a": {"CVE-4", "CVE-1", "CVE-2", "CVE-3", "CVE-1"}}); f.SecurityVersion != 2 || f.Release != "b" || !f.Firm || f.Because[0] != "CVE-1, CVE-2, CVE-3 and 1 more in 1 (security version 1)" {
		t.Errorf("%+v", f)
	}
	if f := lowest(nil, nil); f.SecurityVersion != 0 || f.Release != "" {
		t.Errorf("without a release: %+v", f)
	}
}
