// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/tenant"
)

type cohortIn struct {
	ID   string `path:"id" doc:"Hardware revision"`
	Body struct {
		Name        string      `json:"name" maxLength:"480"`
		Declaration Declaration `json:"declaration"`
	}
}

type declarationIn struct {
	ID   string `path:"id" doc:"Placement cohort"`
	Body Declaration
}

type endDecisionIn struct {
	ID   string `path:"id" doc:"Placement cohort"`
	Body struct {
		Kind      string `json:"kind" enum:"extend,successor,restrict,isolate"`
		Successor string `json:"successor,omitempty" required:"false" doc:"Hardware revision that follows; of the decision for a successor"`
		Reason    string `json:"reason" maxLength:"2000"`
	}
}

type leaveIn struct {
	ID   string `path:"id" doc:"Hardware revision"`
	Body struct {
		Reason string    `json:"reason" maxLength:"2000"`
		Until  time.Time `json:"until" doc:"At most 90 days from now"`
	}
}

// CohortOut is a cohort with what is on record about it.
type CohortOut struct {
	Cohort
	PlaceUntil Day           `json:"place_until" doc:"Last day on which a unit may still be placed under this end of support"`
	Months     int           `json:"months_left" doc:"Months that are left of the support as published, or as drafted while nothing is"`
	Versions   []Published   `json:"versions"`
	Decisions  []EndDecision `json:"decisions"`
}

// EndDate is one line of the calendar of ends.
type EndDate struct {
	Day       Day    `json:"day"`
	What      string `json:"what" doc:"support-end, feature-end, sales-end, service-end, place-until, or the word of another stage"`
	Text      string `json:"text"`
	Product   string `json:"product,omitempty"`
	Revision  string `json:"revision,omitempty"`
	Cohort    string `json:"cohort,omitempty"`
	Published bool   `json:"published" doc:"Buyers were told of it"`
	Href      string `json:"-"`
}

func (s *Service) cohortRoutes(a *api.API) {
	const stage, read, write = "product", string(tenant.ProductRead), string(tenant.ProductWrite)
	api.Handle(a, api.Op{ID: "list-cohorts", Method: "GET", Path: "/v1/products/{id}/cohorts", Verb: read, Stage: stage,
		Summary: "List a product's placement cohorts with their support, those placed last first"}, func(ctx context.Context, in *byID) (*api.List[CohortOut], error) {
		p, err := s.read(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		cs, err := s.Cohorts(ctx, p.Tenant, p.ID)
		out := make([]CohortOut, len(cs))
		for i, c := range cs {
			out[i] = s.outline(c)
		}
		return api.Items(out), err
	})
	api.Handle(a, api.Op{ID: "create-cohort", Method: "POST", Path: "/v1/revisions/{id}/cohorts", Verb: write, Stage: stage, Status: 201,
		Summary: "Add a placement cohort to a hardware revision, as a draft"}, func(ctx context.Context, in *cohortIn) (*api.Out[Cohort], error) {
		c, err := s.addCohort(ctx, in.ID, in.Body.Name, in.Body.Declaration)
		return api.One(c), err
	})
	api.Handle(a, api.Op{ID: "get-cohort", Method: "GET", Path: "/v1/cohorts/{id}", Verb: read, Stage: stage,
		Summary: "Read a placement cohort: draft, everything published, decisions about its end"}, func(ctx context.Context, in *byID) (*api.Out[CohortOut], error) {
		c, err := s.readCohort(ctx, in.ID)
		return api.One(c), err
	})
	api.Handle(a, api.Op{ID: "prepare-cohort", Method: "PUT", Path: "/v1/cohorts/{id}", Verb: write, Stage: stage,
		Summary: "Replace the draft of a placement cohort", Doc: "What was published stays until the draft is. A draft that ends earlier than what was published is refused with the rule " + RuleShortened + ", and the attempt goes into the audit log."},
		func(ctx context.Context, in *declarationIn) (*api.Out[Cohort], error) {
			c, err := s.prepare(ctx, in.ID, in.Body)
			return api.One(c), err
		})
	api.Handle(a, api.Op{ID: "publish-cohort", Method: "POST", Path: "/v1/cohorts/{id}/publish", Verb: write, Stage: stage,
		Summary: "Publish the draft of a placement cohort as its next version"}, func(ctx context.Context, in *byID) (*api.Out[Cohort], error) {
		c, err := s.publish(ctx, in.ID)
		return api.One(c), err
	})
	api.Handle(a, api.Op{ID: "decide-end", Method: "POST", Path: "/v1/cohorts/{id}/decisions", Verb: write, Stage: stage, Status: 201,
		Summary: "Record what is decided about the end of a cohort's support"}, func(ctx context.Context, in *endDecisionIn) (*api.Out[EndDecision], error) {
		d, err := s.decideEnd(ctx, EndDecision{Cohort: in.ID, Kind: in.Body.Kind, Successor: in.Body.Successor, Reason: in.Body.Reason})
		return api.One(d), err
	})
	api.Handle(a, api.Op{ID: "allow-enrol", Method: "POST", Path: "/v1/revisions/{id}/enrol-leave", Verb: write, Stage: stage, Status: 201,
		Summary: "Let new units of a hardware revision get identities although its support has ended"}, func(ctx context.Context, in *leaveIn) (*api.Out[Leave], error) {
		l, err := s.allowEnrol(ctx, Leave{Revision: in.ID, Reason: in.Body.Reason, Until: in.Body.Until})
		return api.One(l), err
	})
	api.Handle(a, api.Op{ID: "list-ends", Method: "GET", Path: "/v1/ends", Verb: read, Stage: stage,
		Summary: "List every end that is declared: of support, functions, sale, services and placing, by day"}, func(ctx context.Context, _ *struct{}) (*api.List[EndDate], error) {
		es, err := s.ends(ctx)
		return api.Items(es), err
	})
}

// Own says that it is an end of a product that its maker declares: it is a draft until it is published.
func (e EndDate) Own() bool { return endWords[e.What] != "" }

// outline is a cohort with what follows from it.
func (s *Service) outline(c Cohort) CohortOut {
	d := c.Declared()
	return CohortOut{Cohort: c, PlaceUntil: d.PlaceUntil(), Months: monthsLeft(d.SupportEnd, d.Location(), s.now()), Versions: []Published{}, Decisions: []EndDecision{}}
}

// readCohort returns a cohort that whoever asks may read.
func (s *Service) readCohort(ctx context.Context, id string) (CohortOut, error) {
	t := tenant.MustTenant(ctx)
	c, err := s.Cohort(ctx, t, id)
	if err == nil {
		err = tenant.Require(ctx, tenant.ProductRead, tenant.Thing{Tenant: t, Product: c.Product})
	}
	if err != nil {
		return CohortOut{}, err
	}
	out := s.outline(c)
	if out.Versions, err = s.Versions(ctx, t, id); err != nil {
		return CohortOut{}, err
	}
	out.Decisions, err = s.EndDecisions(ctx, t, id)
	return out, err
}

// writeCohort says in whose name whoever asks may change a cohort of the own tenant.
func (s *Service) writeCohort(ctx context.Context, id string) (ten, actor string, err error) {
	c, err := s.Cohort(ctx, tenant.MustTenant(ctx), id)
	if err != nil {
		return "", "", err
	}
	return s.mayWrite(ctx, c.Product)
}

// writeRevision says the same of a hardware revision.
func (s *Service) writeRevision(ctx context.Context, id string) (ten, actor string, err error) {
	v, err := s.Revision(ctx, tenant.MustTenant(ctx), id)
	if err != nil {
		return "", "", err
	}
	return s.mayWrite(ctx, v.Product)
}

func (s *Service) addCohort(ctx context.Context, revision, name string, d Declaration) (Cohort, error) {
	t, actor, err := s.writeRevision(ctx, revision)
	if err != nil {
		return Cohort{}, err
	}
	return s.AddCohort(ctx, t, revision, name, d, actor)
}

func (s *Service) prepare(ctx context.Context, cohort string, d Declaration) (Cohort, error) {
	t, actor, err := s.writeCohort(ctx, cohort)
	if err != nil {
		return Cohort{}, err
	}
	return s.Prepare(ctx, t, cohort, d, actor)
}

func (s *Service) publish(ctx context.Context, cohort string) (Cohort, error) {
	t, _, err := s.writeCohort(ctx, cohort)
	if err != nil {
		return Cohort{}, err
	}
	who, _ := tenant.ActorFrom(ctx)
	return s.Publish(ctx, t, cohort, who)
}

func (s *Service) decideEnd(ctx context.Context, d EndDecision) (EndDecision, error) {
	t, actor, err := s.writeCohort(ctx, d.Cohort)
	if err != nil {
		return EndDecision{}, err
	}
	d.Actor = actor
	return s.DecideEnd(ctx, t, d)
}

func (s *Service) allowEnrol(ctx context.Context, l Leave) (Leave, error) {
	t, actor, err := s.writeRevision(ctx, l.Revision)
	if err != nil {
		return Leave{}, err
	}
	l.Actor = actor
	return s.AllowEnrol(ctx, t, l)
}

// The kinds of ends, with their words.
const (
	endSupport = "support-end"
	endFeature = "feature-end"
	endSales   = "sales-end"
	endService = "service-end"
	endPlacing = "place-until"
)

var endWords = map[string]string{
	endSupport: "security support ends", endFeature: "updates with functions end", endSales: "sale ends", endService: "services end",
	endPlacing: "last day to place units under the declared end of support",
}

// ends are all days of the products that whoever asks may read, and those that other stages add, in order.
func (s *Service) ends(ctx context.Context) ([]EndDate, error) {
	ps, err := s.readable(ctx)
	if err != nil {
		return nil, err
	}
	var out []EndDate
	for _, p := range ps {
		cs, err := s.Cohorts(ctx, p.Tenant, p.ID)
		if err != nil {
			return nil, err
		}
		vs, err := s.Revisions(ctx, p.Tenant, p.ID)
		if err != nil {
			return nil, err
		}
		for _, c := range cs {
			at := slices.IndexFunc(vs, func(v Revision) bool { return v.ID == c.Revision })
			if at < 0 {
				continue
			}
			out = append(out, c.ends(p, vs[at])...)
		}
	}
	for _, more := range s.cfg.Ends {
		es, err := more(ctx)
		if err != nil {
			return nil, err
		}
		out = append(out, es...)
	}
	slices.SortStableFunc(out, func(a, b EndDate) int { return strings.Compare(string(a.Day), string(b.Day)) })
	return out, nil
}

// ends are the days of one cohort.
func (c Cohort) ends(p Product, v Revision) (out []EndDate) {
	d := c.Declared()
	add := func(what string, day Day) {
		if day != "" {
			out = append(out, EndDate{Day: day, What: what, Text: p.Name + " " + v.Name + ", " + c.Name + ": " + endWords[what], Product: p.ID, Revision: v.ID, Cohort: c.ID,
				Published: c.Public != nil, Href: "/products/" + p.ID + "/support"})
		}
	}
	add(endSupport, dayOf(d.SupportEnd.lastDay()))
	add(endFeature, d.FeatureEnd)
	add(endSales, d.SalesEnd)
	add(endService, d.ServiceEnd)
	if d.LastPlaced == "" {
		add(endPlacing, d.PlaceUntil())
	}
	return out
}
