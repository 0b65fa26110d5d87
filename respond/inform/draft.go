// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"context"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/command"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/vuln/vex"
)

// TopicSent is announced when a campaign was sent, TopicFinished when none of its deliveries waits any more. Their data is
// Told, their subject the campaign.
const (
	TopicSent     = "campaign.sent"
	TopicFinished = "campaign.finished"
)

// Told is the data of the room's events.
type Told struct {
	Subject string           `json:"subject"`
	Kind    string           `json:"kind"`
	Product string           `json:"product,omitempty"`
	By      string           `json:"by"`
	States  map[string]int64 `json:"states" doc:"Deliveries by state"`
}

// Documents of a campaign.
const (
	docCSAF = "csaf"
	docVEX  = "vex"
)

// maxEnclosed is how large a document may be that goes into a mail; a larger one is linked.
const maxEnclosed = 256 << 10

// Draft begins a campaign. Nothing is told before a person sends it.
func (s *Service) Draft(ctx context.Context, w Words) (Campaign, error) {
	a, err := who(ctx, tenant.CaseWrite, w.Product)
	if err != nil {
		return Campaign{}, err
	}
	if err := s.fit(ctx, a.Tenant, &w); err != nil {
		return Campaign{}, err
	}
	c := Campaign{ID: store.NewID("cpn"), Words: w, State: Draft, Version: 1, Created: s.now(), Actor: a.ID, tenant: a.Tenant}
	c.source = c.ID
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := insertCampaign(tx, c); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "campaign.drafted", Subject: c.ID, Data: c.outline()})
	})
	if err != nil {
		return Campaign{}, err
	}
	return c, s.productName(ctx, &c)
}

// fit checks words against what there is.
func (s *Service) fit(ctx context.Context, t string, w *Words) error {
	if err := w.check(); err != nil {
		return err
	}
	if err := s.named(ctx, t, *w); err != nil {
		return err
	}
	if w.Case == "" {
		return nil
	}
	of, err := s.cfg.Cases.Case(ctx, w.Case)
	if err == nil && of.Product != w.Product {
		err = problem.Invalid("The case is about another product.").At("product")
	}
	return err
}

// outline is what the log says of a campaign: whom it means, and digests of what it says.
func (c Campaign) outline() map[string]any {
	texts := map[string]string{}
	for lang, t := range c.Texts {
		texts[lang] = t.digest()
	}
	return map[string]any{"kind": c.Kind, "product": c.Product, "case": c.Case, "vulnerability": c.Vulnerability, "subject": c.Subject, "audience": c.Audience,
		"revisions": c.Revisions, "devices": c.Devices, "texts": texts, "template": c.Template, "replaces": c.Replaces}
}

// Campaign reads one.
func (s *Service) Campaign(ctx context.Context, id string) (Campaign, error) {
	c, _, err := s.campaign(ctx, tenant.CaseRead, id)
	return c, err
}

// campaign reads one that the caller may do v to.
func (s *Service) campaign(ctx context.Context, v tenant.Verb, id string) (c Campaign, a tenant.Actor, err error) {
	t := tenant.MustTenant(ctx)
	if err = s.cfg.DB.View(ctx, func(tx *store.Tx) error { c, err = campaignByID(tx, t, id); return err }); err != nil {
		return c, a, err
	}
	if a, err = who(ctx, v, c.Product); err != nil {
		return Campaign{}, a, err
	}
	return c, a, s.productName(ctx, &c)
}

// Title is what people call a campaign of the tenant.
func (s *Service) Title(ctx context.Context, tenant, id string) (title string, err error) {
	err = s.cfg.DB.QueryRow(ctx, `SELECT subject FROM inform_campaign WHERE tenant = $1 AND id = $2`, tenant, id).Scan(&title)
	return title, missing(err, "campaign")
}

// Campaigns lists those of a case (all if empty) that the caller may read, the newest first.
func (s *Service) Campaigns(ctx context.Context, ofCase, before string, limit int) (cs []Campaign, err error) {
	a, _ := tenant.ActorFrom(ctx)
	whole, products, _ := tenant.Scope(a, tenant.CaseRead)
	if !whole && len(products) == 0 {
		return nil, nil
	}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		cs, err = campaigns(tx, a.Tenant, list{Before: before, Limit: limit, Case: ofCase, Whole: whole, Products: products})
		return err
	})
	for i := range cs {
		if err == nil {
			err = s.productName(ctx, &cs[i])
		}
	}
	return cs, err
}

// Unfinished counts, of the campaigns that the caller may read, the drafts that nobody has sent and those that are on their way.
func (s *Service) Unfinished(ctx context.Context) (drafts, sending int64, err error) {
	a, _ := tenant.ActorFrom(ctx)
	whole, products, _ := tenant.Scope(a, tenant.CaseRead)
	if !whole && len(products) == 0 {
		return 0, 0, nil
	}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		drafts, sending, err = unfinished(tx, a.Tenant, whole, products)
		return err
	})
	return drafts, sending, err
}

// Change replaces the words of a draft that is still in the version that the caller read.
func (s *Service) Change(ctx context.Context, id string, version int64, w Words) (Campaign, error) {
	c, a, err := s.campaign(ctx, tenant.CaseWrite, id)
	if err != nil {
		return Campaign{}, err
	}
	if err := tenant.Require(ctx, tenant.CaseWrite, tenant.Thing{Tenant: a.Tenant, Product: w.Product}); err != nil {
		return Campaign{}, err
	}
	if err := s.fit(ctx, a.Tenant, &w); err != nil {
		return Campaign{}, err
	}
	c.Words, c.Version = w, version
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := updateDraft(tx, c); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "campaign.changed", Subject: c.ID, Data: c.outline()})
	})
	if err != nil {
		return Campaign{}, err
	}
	return s.Campaign(ctx, id)
}

// Discard ends a draft that nobody is to be told.
func (s *Service) Discard(ctx context.Context, id string) error {
	c, a, err := s.campaign(ctx, tenant.CaseWrite, id)
	if err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := moveDraft(tx, c, Discarded, "", time.Time{}, nil); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "campaign.discarded", Subject: c.ID})
	})
}

// Preview says who would be told if it were sent now, and what would go with it.
func (s *Service) Preview(ctx context.Context, id string) (Preview, error) {
	c, _, err := s.campaign(ctx, tenant.CaseRead, id)
	if err != nil {
		return Preview{}, err
	}
	return s.preview(ctx, c)
}

func (s *Service) preview(ctx context.Context, c Campaign) (p Preview, err error) {
	q, err := s.query(ctx, c)
	if err != nil {
		return p, err
	}
	if err = s.cfg.DB.View(ctx, func(tx *store.Tx) error { return s.look(tx, c, q, &p) }); err != nil {
		return p, err
	}
	if p.Devices, err = s.devices(ctx, c, q); err != nil {
		return p, err
	}
	if p.Documents, err = s.enclose(ctx, c); err != nil {
		return p, err
	}
	p.Missing = s.missing(c, p)
	return p, nil
}

// enclose collects the documents about the vulnerability: the published advisory and the statements about the product.
func (s *Service) enclose(ctx context.Context, c Campaign) ([]Document, error) {
	docs := []Document{}
	if c.Vulnerability == "" || c.Product == "" {
		return docs, nil
	}
	add := func(kind, name, url string, body []byte) {
		d := Document{Kind: kind, Name: name, URL: url, SHA256: digest(body), Size: int64(len(body)), Body: body}
		if len(body) > maxEnclosed {
			d.Body = nil
		}
		if url != "" || d.Body != nil {
			docs = append(docs, d)
		}
	}
	if s.cfg.Advisory != nil {
		name, url, body, err := s.cfg.Advisory(ctx, c.tenant, c.Product, c.Vulnerability)
		if err != nil {
			return nil, err
		}
		if body != nil {
			add(docCSAF, name, url, body)
		}
	}
	if s.cfg.Vuln != nil {
		body, err := s.cfg.Vuln.ProductVEX(ctx, c.tenant, c.Product, vex.OpenVEX)
		switch {
		case problem.Is(err, problem.KindNotFound): // nothing was decided yet
		case err != nil:
			return nil, err
		default:
			add(docVEX, "openvex.json", "", body)
		}
	}
	return docs, nil
}

// Send sends the version of a draft that the person has read, once: from then on it is frozen, with whom it is for.
func (s *Service) Send(ctx context.Context, id string, version int64) (Campaign, error) {
	c, a, err := s.campaign(ctx, tenant.CaseDeclare, id)
	switch {
	case err != nil:
		return Campaign{}, err
	case a.Kind != tenant.KindPerson:
		return Campaign{}, problem.Forbidden(RulePerson, "Only a person who signed in can send a campaign.").Hint("Programs may draft it, and read who would be told.")
	}
	c.Version = version
	out, err := s.prepare(ctx, c)
	if err != nil {
		return Campaign{}, err
	}
	if out.preview.Contacts+out.preview.Devices == 0 {
		return Campaign{}, problem.Conflict("Nobody would be told: no contact has this product.").Hint("Add contacts, or record at the case how users were told.")
	}
	write := func(tx *store.Tx) error { return s.send(tx, a, out) }
	if c.Case != "" {
		err = s.cfg.Cases.Insist(ctx, write)
	} else {
		err = s.cfg.DB.Write(ctx, write)
	}
	if err != nil {
		return Campaign{}, err
	}
	return s.Campaign(ctx, id)
}

// outgoing is a campaign with all that is found out before its transaction.
type outgoing struct {
	Campaign
	preview Preview
	jobs    []command.Job
}

// prepare finds out who is meant and what goes with it.
func (s *Service) prepare(ctx context.Context, c Campaign) (o outgoing, err error) {
	o.Campaign = c
	if o.preview, err = s.preview(ctx, c); err != nil || !c.Devices || s.cfg.Command == nil {
		return o, err
	}
	if n, err := s.inService(ctx, c); err != nil || n == 0 {
		return o, err // nobody to ask, and nothing that people have to look at
	}
	o.jobs, err = s.deviceJobs(ctx, c, o.preview.Query)
	return o, err
}

// send is the sending: all of it is one transaction.
func (s *Service) send(tx *store.Tx, a tenant.Actor, o outgoing) error {
	c, now := o.Campaign, s.now()
	if err := moveDraft(tx, c, Sent, a.ID, now, &o.preview.Query); err != nil {
		return err
	}
	if err := insertDocuments(tx, c, o.preview.Documents); err != nil {
		return err
	}
	recipients, err := insertDeliveries(tx, c, o.preview.Query, now)
	if err != nil {
		return err
	}
	for _, j := range o.jobs {
		if err := s.cfg.Command.AddJob(tx, j); err != nil {
			return err
		}
		if err := insertJob(tx, c, j.ID); err != nil {
			return err
		}
	}
	if c.Case != "" {
		d := respond.Data{At: now, Audience: c.Audience, Campaign: c.ID, Note: "Campaign “" + c.Subject + "” was sent; who got it stands in its proof."}
		if err := s.cfg.Cases.UsersInformed(tx, c.tenant, c.Case, a, d); err != nil {
			return err
		}
	}
	data := c.outline()
	data["query"], data["documents"], data["recipients"], data["jobs"] = o.preview.Query, o.preview.Documents, recipients, len(o.jobs)
	if err := audit.Append(tx, audit.Entry{Tenant: c.tenant, Actor: a.ID, Kind: TopicSent, Subject: c.ID, Data: data}); err != nil {
		return err
	}
	tx.After(s.kick)
	return s.cfg.DB.Emit(tx, TopicSent, c.tenant, c.ID, Told{Subject: c.Subject, Kind: c.Kind, Product: c.Product, By: a.ID, States: map[string]int64{string(Waiting): recipients}})
}
