// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/update"
)

// Preview is who would be told if it were sent now.
type Preview struct {
	Query     Query            `json:"query"`
	Contacts  int64            `json:"contacts"`
	Roles     map[string]int64 `json:"roles" doc:"Contacts by role"`
	Channels  map[string]int64 `json:"channels" doc:"Contacts by channel"`
	Languages map[string]int64 `json:"languages" doc:"Contacts by the language that they get"`
	Fallback  int64            `json:"fallback" doc:"Contacts in whose own language there is no text"`
	Devices   int64            `json:"devices" doc:"Devices in service that are meant; 0 unless devices are told"`
	Documents []Document       `json:"documents"`
	Missing   []string         `json:"missing" doc:"What keeps it from reaching everybody, in words"`
}

// query finds out who is meant now.
func (s *Service) query(ctx context.Context, c Campaign) (Query, error) {
	q := Query{Audience: c.Audience, Product: c.Product, Revisions: slices.Clone(c.Revisions), At: s.now()}
	if c.Audience != Impacted || c.Vulnerability == "" {
		return q, nil
	}
	q.Vulnerability = c.Vulnerability
	if s.cfg.Vuln == nil {
		return q, problem.Conflict("No vulnerability is known here.").At("vulnerability").Hint("Name the affected hardware revisions, or tell all users.")
	}
	e, err := s.cfg.Vuln.Affected(ctx, c.tenant, c.Vulnerability, time.Time{})
	if err != nil && !problem.Is(err, problem.KindNotFound) {
		return q, err
	}
	versions := map[string]string{} // by release
	for _, x := range e.Releases {
		if x.Product == c.Product && x.Exposed {
			versions[x.Release] = x.Version
		}
	}
	switch {
	case len(versions) > 0:
		q.Releases = slices.Sorted(maps.Keys(versions))
		for _, r := range q.Releases {
			q.Versions = append(q.Versions, versions[r])
		}
		if len(q.Revisions) == 0 {
			q.Revisions, err = s.hardware(ctx, c, versions)
			return q, err
		}
	case len(q.Revisions) == 0:
		return q, problem.Conflict("No release of the product is known to be affected by %s.", c.Vulnerability).At("vulnerability").
			Hint("Name the affected hardware revisions, or tell all users.")
	}
	return q, nil
}

// hardware are the revisions that one of the releases is made for; none where it is all of them.
func (s *Service) hardware(ctx context.Context, c Campaign, releases map[string]string) (out []string, err error) {
	rs, err := s.releases(ctx, c)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, r := range rs {
		if _, affected := releases[r.ID]; !affected {
			continue
		}
		for _, hw := range r.HW {
			names[hw] = true
		}
	}
	vs, err := s.cfg.Products.Revisions(ctx, c.tenant, c.Product)
	for _, v := range vs {
		if names[v.Name] {
			out = append(out, v.ID)
		}
	}
	if len(out) == len(vs) || len(out) > maxRevisions {
		return nil, err
	}
	slices.Sort(out)
	return out, err
}

func (s *Service) releases(ctx context.Context, c Campaign) ([]update.Release, error) {
	if s.cfg.Update == nil || c.Product == "" {
		return nil, nil
	}
	return s.cfg.Update.List(ctx, c.tenant, c.Product)
}

// devices counts who would show it: devices of the audience that are in service. Of hardware revisions it counts those whose
// software is known; the job that tells them looks for itself.
func (s *Service) devices(ctx context.Context, c Campaign, q Query) (n int64, err error) {
	if !c.Devices || s.cfg.Fleet == nil {
		return 0, nil
	}
	if len(q.Releases) > 0 { // a release is made for its hardware
		by, err := s.cfg.Fleet.CountOf(ctx, c.tenant, q.Releases, time.Time{})
		return sum(by), err
	}
	if len(q.Revisions) == 0 {
		return s.inService(ctx, c)
	}
	var releases []string
	all, err := s.releases(ctx, c)
	for _, r := range all {
		releases = append(releases, r.ID)
	}
	if err != nil || len(releases) == 0 {
		return 0, err
	}
	by, err := s.cfg.Fleet.Breakdown(ctx, c.tenant, releases, time.Time{}, "revision")
	for _, v := range q.Revisions {
		n += by[v]
	}
	return n, err
}

// inService counts the devices of the campaign's product, or of all, that serve somebody.
func (s *Service) inService(ctx context.Context, c Campaign) (n int64, err error) {
	if s.cfg.Identity == nil {
		return 0, nil
	}
	census, err := s.cfg.Identity.Count(ctx, c.tenant)
	for _, x := range census {
		if (c.Product == "" || x.Product == c.Product) && (x.State == identity.Commissioned || x.State == identity.Suspended || x.State == identity.Pending) {
			n += x.Devices
		}
	}
	return n, err
}

func sum(by map[string]int64) (n int64) {
	for _, x := range by {
		n += x
	}
	return n
}

// filters are the devices of the audience in the language of filters. A filter has a bounded length, so many releases are
// several; a device runs one of them at a time.
func (q Query) filters() []string {
	if len(q.Releases) == 0 {
		if len(q.Revisions) == 0 {
			return []string{""}
		}
		return []string{"revision:" + strings.Join(q.Revisions, ",")}
	}
	var out []string
	for part := range slices.Chunk(q.Releases, 50) {
		out = append(out, "release:"+strings.Join(part, ","))
	}
	return out
}

// look counts the contacts that are meant.
func (s *Service) look(tx *store.Tx, c Campaign, q Query, p *Preview) error {
	groups, err := countAudience(tx, c.tenant, q)
	p.Query, p.Roles, p.Channels, p.Languages = q, map[string]int64{}, map[string]int64{}, map[string]int64{}
	for _, g := range groups {
		lang := g.lang
		if _, ok := c.Texts[lang]; !ok {
			lang = c.Language
			p.Fallback += g.n
		}
		p.Contacts += g.n
		p.Roles[g.role] += g.n
		p.Channels[g.channel] += g.n
		p.Languages[lang] += g.n
	}
	return err
}

// words of what a preview misses, for people.
func (s *Service) missing(c Campaign, p Preview) []string {
	out := []string{}
	if p.Contacts == 0 {
		out = append(out, "Nobody in the register has this product: add contacts, or tell users by other ways and record that.")
	}
	if p.Channels[Mail] > 0 && s.cfg.Mailer == nil {
		out = append(out, "This platform knows no mail server: what goes by mail would fail.")
	}
	if p.Fallback > 0 {
		out = append(out, "Some contacts get the text in another language than their own.")
	}
	if c.Vulnerability != "" && !slices.ContainsFunc(p.Documents, func(d Document) bool { return d.Kind == docCSAF }) {
		out = append(out, "No advisory about "+c.Vulnerability+" is published for everybody; none goes with it.")
	}
	return out
}

// productName is what people call the product.
func (s *Service) productName(ctx context.Context, c *Campaign) error {
	if c.Product == "" {
		return nil
	}
	p, err := s.cfg.Products.Get(ctx, c.tenant, c.Product)
	if err == nil {
		c.ProductName = p.Name
	}
	if problem.Is(err, problem.KindNotFound) {
		err = nil
	}
	return err
}

// named checks that the revisions are those of the product.
func (s *Service) named(ctx context.Context, t string, w Words) error {
	if w.Product == "" {
		return nil
	}
	if _, err := s.cfg.Products.Get(ctx, t, w.Product); err != nil || len(w.Revisions) == 0 {
		return err
	}
	vs, err := s.cfg.Products.Revisions(ctx, t, w.Product)
	for _, id := range w.Revisions {
		if err == nil && !slices.ContainsFunc(vs, func(v product.Revision) bool { return v.ID == id }) {
			err = problem.Invalid("The product has no hardware revision %.64q.", id).At("revisions")
		}
	}
	return err
}
