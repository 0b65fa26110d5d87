// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln"
)

// listener is the name under which events are delivered to this stage, and its name as an author.
const listener = "conform"

// jobLaw looks once a day how old the comparison of the rules with their sources is.
const jobLaw = "conform.law"

// TopicStale is the topic of the event that rules of the law were not compared with their source for too long.
const TopicStale = "law.stale"

// Stale is the data of the event law.stale.
type Stale struct {
	Rules  int    `json:"rules"`
	Oldest string `json:"oldest" doc:"The day of the comparison that is longest ago"`
}

func (s *Service) listen() {
	s.cfg.DB.Handle(jobLaw, s.watchLaw)
	s.cfg.DB.On("sbom.attached", listener, func(ctx context.Context, e store.Event) error {
		err := s.readBill(ctx, e.Tenant, e.Subject, e.ID)
		if problem.Is(err, problem.KindNotFound) {
			return nil // the release is gone again
		}
		return err
	})
	s.cfg.DB.On("vuln.exploited", listener, func(ctx context.Context, e store.Event) error {
		var x vuln.Exploited
		if err := e.Decode(&x); err != nil {
			return err
		}
		return s.review(ctx, e.Tenant, x.Product, Due{Cause: "vulnerability:" + x.Group, Text: x.Group + " is known to be exploited and in version " + x.Version + ".", Href: "/vulnerabilities/" + x.ID})
	})
	s.cfg.DB.On("case.opened", listener, func(ctx context.Context, e store.Event) error {
		var x struct{ Product, Kind, Ref string }
		if err := e.Decode(&x); err != nil {
			return err
		}
		return s.review(ctx, e.Tenant, x.Product, Due{Cause: "case:" + e.Subject, Text: strings.TrimSpace("A case was opened. " + x.Ref), Href: "/cases/" + e.Subject})
	})
}

// Work starts the daily look at the law.
func (s *Service) Work(ctx context.Context) error {
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.cfg.DB.Enqueue(tx, jobLaw, "all", s.now(), nil) })
	if err != nil && ctx.Err() == nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// review notes a reason to review the assessment of a product.
func (s *Service) review(ctx context.Context, tenant, product string, d Due) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.due(tx, tenant, product, d) })
}

// due notes a reason for review once; a product that was never assessed owes the assessment itself.
func (s *Service) due(tx *store.Tx, tenant, product string, d Due) error {
	sealed, err := newest(tx, place{tenant, product, kindSealed, ""}, &Assessment{})
	if err != nil || sealed.Version == 0 {
		return err
	}
	p := place{tenant, product, kindDue, d.Cause}
	before, err := newest(tx, p, &Due{})
	if err != nil || before.Version > 0 && before.seq > sealed.seq {
		return err
	}
	if before.Version > 0 && !strings.HasPrefix(d.Cause, "modification:") {
		return nil // it was reviewed for this already; events may come twice
	}
	d.At = s.now()
	_, err = put(tx, p, d, listener, d.At)
	return err
}

// readBill notes which components the bill of a release names, and asks for a review when some are new to the product.
func (s *Service) readBill(ctx context.Context, tenant, release, seen string) error {
	product, err := s.cfg.Update.ProductOf(ctx, tenant, release)
	if err != nil {
		return err
	}
	listed, err := s.cfg.SBOM.Components(ctx, tenant, release, "", sbom.MaxComponents+1)
	if err != nil {
		return err
	}
	things := map[string]part{}
	for _, p := range listed {
		if t := p.Thing(); things[t].thing == "" || things[t].version < p.Version {
			things[t] = part{thing: t, name: p.Name, version: p.Version, supplier: p.Supplier, licence: p.Licence}
		}
	}
	all := make([]part, 0, len(things))
	for _, x := range things {
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b part) int { return strings.Compare(a.thing, b.thing) })
	for chunk := range slices.Chunk(all, 1000) {
		if err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error { return putParts(tx, tenant, product, release, seen, chunk) }); err != nil {
			return err
		}
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := dropParts(tx, tenant, product, release, seen); err != nil {
			return err
		}
		names, err := firstSeen(tx, tenant, product, release)
		if err != nil || len(names) == 0 {
			return err
		}
		text := fmt.Sprintf("A release has components that no earlier one had: %s.", strings.Join(names[:min(len(names), 5)], ", "))
		if n := len(names) - 5; n > 0 {
			text = fmt.Sprintf("%s and %d more.", strings.TrimSuffix(text, "."), n)
		}
		return s.due(tx, tenant, product, Due{Cause: "release:" + release, Text: text, Href: "/releases/" + release})
	})
}

// watchLaw announces to each tenant, once per day of comparison, that rules are stale.
func (s *Service) watchLaw(ctx context.Context, j store.Job) error {
	now := s.now()
	stale := slices.DeleteFunc(slices.Clone(law.Rules()), func(r law.Rule) bool { return !r.Stale(now) })
	var tenants []string
	if len(stale) > 0 {
		var err error
		if tenants, err = s.cfg.Tenants(ctx); err != nil {
			return err
		}
	}
	for _, t := range tenants {
		x := Stale{Rules: len(stale), Oldest: oldest(stale).String()}
		if err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			p := place{tenant: t, kind: kindNag, key: x.Oldest}
			before, err := newest(tx, p, &Stale{})
			if err != nil || before.Version > 0 {
				return err
			}
			if _, err := put(tx, p, x, listener, now); err != nil {
				return err
			}
			return s.cfg.DB.Emit(tx, TopicStale, t, x.Oldest, x)
		}); err != nil {
			return err
		}
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.cfg.DB.Enqueue(tx, jobLaw, j.Key, now.Add(24*time.Hour), nil) })
}
