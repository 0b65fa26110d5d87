// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// StopPolicy says what happens to the making of a product's units when one of its releases has an open finding that is
// known as exploited and that nobody has decided to be harmless.
type StopPolicy string

// The policies.
const (
	StopOff       StopPolicy = "off"       // nothing
	StopAsk       StopPolicy = "ask"       // a person is asked
	StopAutomatic StopPolicy = "automatic" // it is stopped at once
)

// StopSetting is the policy of a product, and who has set it.
type StopSetting struct {
	Product string     `json:"product"`
	Policy  StopPolicy `json:"policy" enum:"off,ask,automatic"`
	By      string     `json:"by,omitempty" doc:"Absent: nobody has set it"`
	At      time.Time  `json:"at,omitzero"`
}

// Stop is a hold on the making of units. Nothing but a person lifts it: neither a decision nor a new release does.
type Stop struct {
	enroll.Hold
	Versions []string `json:"versions,omitempty" doc:"Of the releases whose images are held"`
}

// Stopping is the input of a stop. Without a vulnerability and releases it is about every unit of the product.
type Stopping struct {
	Product       string   `json:"product" maxLength:"64" doc:"Id of the product"`
	Vulnerability string   `json:"vulnerability,omitempty" maxLength:"128" doc:"Units with the releases that have an open finding of it"`
	Releases      []string `json:"releases,omitempty" maxItems:"1000" doc:"Ids of releases: units with their images"`
	Batch         string   `json:"batch,omitempty" maxLength:"64" doc:"Only units of this batch"`
	Origin        string   `json:"origin,omitempty" maxLength:"64" doc:"Only units of this line station, trusted CA or token"`
	Reason        string   `json:"reason" maxLength:"500"`
}

// StopTold is the data of the events vuln.stopped and vuln.resumed. Their subject is the hold.
type StopTold struct {
	Hold          string `json:"hold"`
	Product       string `json:"product"`
	Vulnerability string `json:"vulnerability,omitempty"`
	Reason        string `json:"reason"` // of the stop, or why it was lifted
	By            string `json:"by"`
}

// Topics of the events.
const (
	TopicStopped = "vuln.stopped"
	TopicResumed = "vuln.resumed"
)

// undecided is a vulnerability, known as exploited, of a product.
type undecided struct{ product, group, listed, name string }

// stopShip stops the making of units with the releases, where the product's policy says so. What it was told of before
// changes nothing, so it does not matter how often it is told.
func (s *Service) stopShip(tx *store.Tx, tenant string, found map[undecided][]string) error {
	if s.cfg.Enroll == nil {
		return nil
	}
	keys := make([]undecided, 0, len(found))
	for k := range found {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b undecided) int {
		return cmp.Or(cmp.Compare(a.product, b.product), cmp.Compare(a.name, b.name))
	})
	for _, o := range keys {
		set, err := stopPolicy(tx, tenant, o.product)
		if err != nil {
			return err
		}
		if set.Policy != StopAutomatic {
			continue
		}
		fresh, err := notStopped(tx, tenant, o.group, slices.Compact(found[o]))
		if err != nil {
			return err
		}
		if len(fresh) == 0 {
			continue
		}
		if _, err := s.stopReleases(tx, tenant, o, fresh, enroll.Hold{Reason: "it is known to be exploited, and nobody has decided that it does no harm", By: system}); err != nil {
			return err
		}
	}
	return nil
}

// stopReleases holds the releases' images because of a vulnerability: in the hold that stands already for it, or in a
// new one. h brings who, why and what else narrows it.
func (s *Service) stopReleases(tx *store.Tx, tenant string, o undecided, releases []string, h enroll.Hold) (enroll.Hold, error) {
	about, err := s.releases(tx, tenant, releases)
	if err != nil {
		return h, err
	}
	h.Tenant, h.Product, h.Cause, h.Firmware = tenant, o.product, o.name, images(about)
	standing, err := s.standing(tx, tenant, o)
	if err != nil {
		return h, err
	}
	i := slices.IndexFunc(standing, func(x enroll.Hold) bool {
		return x.Batch == h.Batch && x.Origin == h.Origin && (len(x.Firmware) == 0 || len(h.Firmware) > 0)
	})
	if i >= 0 {
		if err := s.cfg.Enroll.WidenHold(tx, standing[i], h.Firmware, h.By); err != nil {
			return h, err
		}
		h = standing[i]
	} else if h, err = s.openStop(tx, h); err != nil {
		return h, err
	}
	for _, r := range releases {
		if _, err := tx.Exec(`INSERT INTO vuln_stopped (tenant, release_id, ident, product, hold, at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
			tenant, r, cmp.Or(o.listed, o.name), o.product, h.ID, s.now()); err != nil {
			return h, err
		}
	}
	return h, nil
}

// images are the digests of the releases; nil, which is every unit, if the one of any of them is not known.
func images(about map[string]Release) (digests []string) {
	for _, id := range sortedKeys(about) {
		if about[id].Image == "" {
			return nil
		}
		digests = append(digests, about[id].Image)
	}
	return digests
}

func (s *Service) openStop(tx *store.Tx, h enroll.Hold) (enroll.Hold, error) {
	h, err := s.cfg.Enroll.OpenHold(tx, h)
	if err != nil {
		return h, err
	}
	return h, s.cfg.DB.Emit(tx, TopicStopped, h.Tenant, h.ID, StopTold{Hold: h.ID, Product: h.Product, Vulnerability: h.Cause, Reason: h.Reason, By: h.By})
}

// standing are the holds that stand on the product because of the vulnerability, by any of its names.
func (s *Service) standing(tx *store.Tx, tenant string, o undecided) ([]enroll.Hold, error) {
	list, err := s.cfg.Enroll.HoldsTx(tx, tenant, enroll.HoldFilter{Product: o.product, Standing: true})
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Cause == "" {
			continue
		}
		group, err := groupOf(tx, tenant, list[i].Cause)
		if err != nil {
			return nil, err
		}
		if group != o.group {
			list[i].Cause = ""
		}
	}
	return slices.DeleteFunc(list, func(h enroll.Hold) bool { return h.Cause == "" }), nil
}

var errNothingToStop = problem.Unavailable("This platform gives no identities to units, so there is nothing to stop.")

// StopUnits stops the making of units, as a person says.
func (s *Service) StopUnits(ctx context.Context, tenant, actor string, in Stopping) (Stop, error) {
	if s.cfg.Enroll == nil {
		return Stop{}, errNothingToStop
	}
	h := enroll.Hold{Tenant: tenant, Product: in.Product, Batch: in.Batch, Origin: in.Origin, Reason: strings.TrimSpace(in.Reason), By: actor}
	if err := s.cfg.Enroll.CheckHold(ctx, h); err != nil {
		return Stop{}, err
	}
	if in.Vulnerability != "" && len(in.Releases) > 0 {
		return Stop{}, problem.Invalid("Name a vulnerability or releases, not both.").At("releases")
	}
	var out Stop
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) (err error) {
		h := h
		if in.Vulnerability != "" {
			h, err = s.stopVulnerability(tx, tenant, in, h)
		} else {
			h, err = s.stopNamed(tx, tenant, in, h)
		}
		if err != nil {
			return err
		}
		out, err = s.stop(tx, h.ID, tenant)
		return err
	})
	return out, err
}

// stopVulnerability holds the releases of the product that have an open finding.
func (s *Service) stopVulnerability(tx *store.Tx, tenant string, in Stopping, h enroll.Hold) (enroll.Hold, error) {
	g, err := s.group(tx, tenant, in.Vulnerability)
	if err != nil {
		return h, err
	}
	c, err := s.concerned(tx, tenant, g.ID, Deciding{Product: in.Product})
	if err != nil {
		return h, err
	}
	return s.stopReleases(tx, tenant, undecided{product: in.Product, group: g.ID, name: g.Name}, c.releases, h)
}

// stopNamed holds the releases that were named, or every unit of the product.
func (s *Service) stopNamed(tx *store.Tx, tenant string, in Stopping, h enroll.Hold) (enroll.Hold, error) {
	about, err := s.releases(tx, tenant, in.Releases)
	if err != nil {
		return h, err
	}
	for _, id := range in.Releases {
		if r := about[id]; r.Product != in.Product || r.Image == "" {
			return h, problem.NotFound("The product has no release %.64q.", id).At("releases")
		}
	}
	h.Firmware = images(about)
	return s.openStop(tx, h)
}

// Resume lifts a stop: units get identities again.
func (s *Service) Resume(ctx context.Context, tenant, actor, id, why string) (out Stop, err error) {
	if s.cfg.Enroll == nil {
		return out, errNothingToStop
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		h, err := s.cfg.Enroll.LiftHold(tx, tenant, id, actor, strings.TrimSpace(why))
		if err != nil {
			return err
		}
		if out, err = s.stop(tx, id, tenant); err != nil {
			return err
		}
		return s.cfg.DB.Emit(tx, TopicResumed, tenant, id, StopTold{Hold: id, Product: h.Product, Vulnerability: h.Cause, Reason: h.Why, By: actor})
	})
	return out, err
}

// Stops lists what is stopped, or was, in visible products; the newest first.
func (s *Service) Stops(ctx context.Context, tenant string, f enroll.HoldFilter, visible func(product string) bool) ([]Stop, error) {
	out := []Stop{}
	if s.cfg.Enroll == nil {
		return out, nil
	}
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		list, err := s.cfg.Enroll.HoldsTx(tx, tenant, f)
		if err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(h enroll.Hold) bool { return !visible(h.Product) })
		out, err = s.versioned(tx, tenant, list)
		return err
	})
	return out, err
}

// stop reads one of the tenant's stops.
func (s *Service) stop(tx *store.Tx, id, tenant string) (Stop, error) {
	h, err := s.cfg.Enroll.HoldTx(tx, tenant, id)
	if err != nil {
		return Stop{}, err
	}
	list, err := s.versioned(tx, tenant, []enroll.Hold{h})
	if err != nil {
		return Stop{}, err
	}
	return list[0], nil
}

// SetStopPolicy says what happens from now on, and to what is exploited already.
func (s *Service) SetStopPolicy(ctx context.Context, tenant, actor, product string, policy StopPolicy) (out StopSetting, err error) {
	if !slices.Contains([]StopPolicy{StopOff, StopAsk, StopAutomatic}, policy) {
		return out, problem.Invalid("%.40q is no policy.", policy).At("policy").Hint("use off, ask or automatic")
	}
	if s.cfg.Enroll == nil {
		return out, errNothingToStop
	}
	if err := s.cfg.Enroll.CheckHold(ctx, enroll.Hold{Tenant: tenant, Product: product}); err != nil {
		return out, err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if out, err = stopPolicy(tx, tenant, product); err != nil || out.Policy == policy && out.By != "" {
			return err
		}
		before := out.Policy
		out = StopSetting{Product: product, Policy: policy, By: actor, At: store.Time(s.now())}
		if err := putStopPolicy(tx, tenant, out); err != nil {
			return err
		}
		if err := audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "vulnerability.stop-policy-set", Subject: product, Data: map[string]any{"policy": policy, "before": before}}); err != nil {
			return err
		}
		releases, err := releasesOf(tx, tenant, product)
		if err != nil {
			return err
		}
		return stir(tx, tenant, releases)
	})
	if err != nil {
		return out, err
	}
	return out, s.settleStirred(ctx, tenant)
}

// StopPolicyOf returns the policy of a product.
func (s *Service) StopPolicyOf(ctx context.Context, tenant, product string) (out StopSetting, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		out, err = stopPolicy(tx, tenant, product)
		return err
	})
	return out, err
}

// Asked is a stop that a person is asked about.
type Asked struct {
	Product       string   `json:"product"`
	Vulnerability string   `json:"vulnerability"`
	Group         string   `json:"-"`
	Versions      []string `json:"versions"` // of the releases that would be held
}

// AskedStops lists what people are asked to stop: products whose policy says so, with releases that have an open finding
// known as exploited, for which nobody has stopped anything yet.
func (s *Service) AskedStops(ctx context.Context, tenant string, visible func(product string) bool) ([]Asked, error) {
	return s.stoppable(ctx, tenant, visible, func(tx *store.Tx) ([]string, error) { return productsThatAsk(tx, tenant) })
}

// StoppableIn lists what a person may stop in products, whatever their policy says.
func (s *Service) StoppableIn(ctx context.Context, tenant string, products []string, visible func(product string) bool) ([]Asked, error) {
	return s.stoppable(ctx, tenant, visible, func(*store.Tx) ([]string, error) { return products, nil })
}

// stoppable finds the releases with something exploited in them whose making nobody has stopped. A release that a stop
// holds for another reason is not made either, so nobody is asked about it.
func (s *Service) stoppable(ctx context.Context, tenant string, visible func(product string) bool, in func(tx *store.Tx) ([]string, error)) (out []Asked, err error) {
	if s.cfg.Enroll == nil {
		return nil, nil
	}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		out = nil
		products, err := in(tx)
		if err != nil {
			return err
		}
		for _, product := range products {
			if !visible(product) {
				continue
			}
			holds, err := s.cfg.Enroll.HoldsTx(tx, tenant, enroll.HoldFilter{Product: product, Standing: true})
			if err != nil {
				return err
			}
			releases, err := releasesOf(tx, tenant, product)
			if err != nil {
				return err
			}
			found, err := s.openExploited(tx, tenant, releases)
			if err != nil {
				return err
			}
			for o, releases := range found {
				fresh, err := notStopped(tx, tenant, o.group, releases)
				if err != nil {
					return err
				}
				about, err := s.releases(tx, tenant, fresh)
				if err != nil {
					return err
				}
				a := Asked{Product: product, Vulnerability: o.name, Group: o.group}
				for _, id := range fresh {
					if !slices.ContainsFunc(holds, func(h enroll.Hold) bool { return holdsWhole(h, about[id].Image) }) {
						a.Versions = append(a.Versions, about[id].Version)
					}
				}
				if len(a.Versions) > 0 {
					out = append(out, a)
				}
			}
		}
		slices.SortFunc(out, func(a, b Asked) int {
			return cmp.Or(cmp.Compare(a.Product, b.Product), cmp.Compare(a.Vulnerability, b.Vulnerability))
		})
		return nil
	})
	return out, err
}

// holdsWhole says that no unit with the image is made while the hold stands.
func holdsWhole(h enroll.Hold, image string) bool {
	return h.Batch == "" && h.Origin == "" && (len(h.Firmware) == 0 || slices.Contains(h.Firmware, image))
}

// openExploited finds what is open, known as exploited and not decided to be harmless, by product and vulnerability.
func (s *Service) openExploited(tx *store.Tx, tenant string, releases []string) (map[undecided][]string, error) {
	exploited, err := s.exploitedIn(tx, tenant, releases)
	if err != nil {
		return nil, err
	}
	decisions := s.book(tx, tenant)
	out := map[undecided][]string{}
	for _, release := range sortedKeys(exploited) {
		for _, x := range exploited[release] {
			decided, err := decisions.on(x.group, x.product)
			if err != nil {
				return nil, err
			}
			if d := decided.at(x.product, x.component, release, s.now()); d == nil || !d.harmless() {
				out[x.undecided()] = append(out[x.undecided()], release)
			}
		}
	}
	for o := range out {
		out[o] = slices.Compact(out[o])
	}
	return out, nil
}

func (x exploitedHit) undecided() undecided { return undecided{x.product, x.group, x.listed, x.name} }

// versioned says which releases the images of holds are.
func (s *Service) versioned(tx *store.Tx, tenant string, list []enroll.Hold) ([]Stop, error) {
	out := make([]Stop, len(list))
	names := map[string]map[string]string{} // by product and image
	for i, h := range list {
		out[i].Hold = h
		if names[h.Product] == nil {
			var err error
			if names[h.Product], err = versionsByImage(tx, tenant, h.Product); err != nil {
				return nil, err
			}
		}
		for _, image := range h.Firmware {
			out[i].Versions = append(out[i].Versions, cmp.Or(names[h.Product][image], image))
		}
	}
	return out, nil
}

// Words says what is held, for people.
func (x Stop) Words() string {
	var w []string
	switch {
	case len(x.Versions) > 0:
		w = append(w, "units with "+strings.Join(x.Versions, ", ")+", and those that do not say what they run")
	default:
		w = append(w, "every unit")
	}
	if x.Batch != "" {
		w = append(w, fmt.Sprintf("of the batch %s", x.Batch))
	}
	if x.Origin != "" {
		w = append(w, fmt.Sprintf("of %s", x.Origin))
	}
	return strings.Join(w, " ")
}
