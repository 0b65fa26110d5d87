// SPDX-License-Identifier: AGPL-3.0-only

package evidence

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/openthings-platform/openthings/conform"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/evidence/verify"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/respond/disclosure"
	"github.com/openthings-platform/openthings/tenant"
)

// inspectPage is the hour with an auditor: fifteen questions, what shows each, what proves each.
type inspectPage struct {
	Answers   []answerRow
	Product   string
	Name      string
	Products  []console.Option
	MayExport bool
	LogKey    string
}

type answerRow struct {
	AuditQuestion
	Href string // of the screen
}

// answerPage is the screen of one question.
type answerPage struct {
	AuditQuestion
	Product   string
	Name      string
	MayExport bool
	Names     *console.Names

	Cases      []inspected             // 4, 5, 7, 12
	Negatives  []respond.Judged        // 6
	Support    []product.SupportRecord // 10
	Pages      []product.Page          // 10
	Endings    []conform.Ending        // 10, 12
	Reports    []disclosure.Record     // 11
	Components []conform.Entry         // 12
	File       *conform.File           // 15
}

// Heading is the title of the page.
func (p answerPage) Heading() string { return "Question " + strconv.Itoa(p.Number) }

// inspected is a case with its deadlines as the verifier recomputes them, here and now.
type inspected struct {
	respond.Record
	Deadlines []verify.Deadline
	Told      bool
	Upstream  []respond.Upstream
}

// shownCases and shownReports bound a page; the file holds more.
const (
	shownCases   = 20
	shownReports = 10
)

func (s *Service) inspectPages(c *console.Console) {
	read := string(tenant.EvidenceRead)
	c.Page(console.Page{Path: "/inspect", Title: "One hour with an auditor", Menu: "Evidence", Tab: "Auditor", TabOrder: 20, Verb: read, FS: pagesFS, Template: "pages/inspect.html",
		Load: func(r *http.Request) (any, error) { return s.inspectPage(r) }})
	c.Page(console.Page{Path: "/inspect/{n}", Title: "Question", Menu: "Evidence", Verb: read, FS: pagesFS, Template: "pages/answer.html",
		Load: func(r *http.Request) (any, error) {
			p, err := s.answerPage(r)
			p.Names = c.Names(r.Context())
			return p, err
		}})
	c.Handle("POST /evidence/log", string(tenant.EvidenceExport), func(w http.ResponseWriter, r *http.Request) error {
		r.Body = http.MaxBytesReader(w, r.Body, 4096)
		if err := r.ParseForm(); err != nil {
			return problem.Invalid("The form cannot be read.").Because(err)
		}
		r.URL.RawQuery = url.Values{"from": r.PostForm["from"], "to": r.PostForm["to"], "product": r.PostForm["product"]}.Encode()
		return s.downloadLog(w, r)
	})
}

func (s *Service) inspectPage(r *http.Request) (inspectPage, error) {
	who, _ := tenant.ActorFrom(r.Context())
	p := inspectPage{Product: r.URL.Query().Get("product"), LogKey: s.cfg.Audit.VerifierKey()}
	options, err := s.productOptions(r.Context())
	if err != nil {
		return p, err
	}
	if p.Product == "" && len(options) > 0 {
		p.Product = options[0].Value
	}
	p.Products = options
	for _, o := range options {
		if o.Value == p.Product {
			p.Name = o.Word
		}
	}
	if p.Name == "" {
		p.Product = ""
	}
	p.MayExport = tenant.Can(who, tenant.EvidenceExport, tenant.Thing{Tenant: who.Tenant, Product: p.Product})
	for _, a := range Answers {
		p.Answers = append(p.Answers, answerRow{a, a.At(p.Product)})
	}
	return p, nil
}

// productOptions are the products whose evidence the visitor may read.
func (s *Service) productOptions(ctx context.Context) (out []console.Option, err error) {
	who, _ := tenant.ActorFrom(ctx)
	list, err := s.cfg.Products.List(ctx, who.Tenant)
	for _, p := range list {
		if tenant.Can(who, tenant.EvidenceRead, tenant.Thing{Tenant: who.Tenant, Product: p.ID}) {
			out = append(out, console.Option{Value: p.ID, Word: p.Name})
		}
	}
	return out, err
}

// answerPage computes the screen of a question about a product, from its events, now.
func (s *Service) answerPage(r *http.Request) (p answerPage, err error) {
	ctx := r.Context()
	n, err := number(r.PathValue("n"))
	if err != nil {
		return p, err
	}
	a, ok := answerTo(n)
	if !ok || a.Screen[:min(len(a.Screen), 9)] != "/inspect/" {
		return p, problem.NotFound("There is no such page.").Hint("The fifteen questions are on the page One hour with an auditor.")
	}
	who, _ := tenant.ActorFrom(ctx)
	p.AuditQuestion, p.Product = a, r.URL.Query().Get("product")
	x, err := s.cfg.Products.Get(ctx, who.Tenant, p.Product)
	if err != nil {
		return p, err
	}
	thing := tenant.Thing{Tenant: who.Tenant, Product: p.Product}
	for _, v := range []tenant.Verb{tenant.EvidenceRead, tenant.CaseRead} {
		if err := tenant.Require(ctx, v, thing); err != nil {
			return p, err
		}
	}
	p.Name, p.MayExport = x.Name, tenant.Can(who, tenant.EvidenceExport, thing)
	return p, s.answer(ctx, who.Tenant, &p)
}

// answer fills in what the question asks for.
func (s *Service) answer(ctx context.Context, t string, p *answerPage) (err error) {
	switch p.Number {
	case 4, 5, 7:
		p.Cases, err = s.inspected(ctx, t, p.Product)
	case 6:
		p.Negatives, err = s.cfg.Cases.Negatives(ctx, t, p.Product, shownCases)
	case 10:
		if p.Support, err = s.cfg.Products.SupportRecords(ctx, t, p.Product); err != nil {
			return err
		}
		if p.Pages, err = s.cfg.Products.PageVersions(ctx, t, p.Product, shownCases); err != nil {
			return err
		}
		p.Endings, err = s.cfg.Conform.Endings(ctx, t, p.Product)
	case 11:
		p.Reports, err = s.cfg.Reports.Records(ctx, t, p.Product, shownReports)
	case 12:
		if p.Components, err = s.cfg.Conform.Components(ctx, t, p.Product, maxComponents); err != nil {
			return err
		}
		if p.Endings, err = s.cfg.Conform.Endings(ctx, t, p.Product); err != nil {
			return err
		}
		p.Cases, err = s.inspected(ctx, t, p.Product)
	case 15:
		var f conform.File
		f, err = s.cfg.Conform.File(ctx, t, p.Product)
		p.File = &f
	}
	return err
}

// inspected are the newest cases of a product, their deadlines recomputed from their events by the verifier's own rules.
func (s *Service) inspected(ctx context.Context, t, productID string) (out []inspected, err error) {
	ids, err := s.cfg.Cases.RecordsOf(ctx, respond.WhatCases, t, productID, shownCases)
	for _, id := range ids {
		if err != nil {
			return nil, err
		}
		var r respond.Record
		if r, err = s.cfg.Cases.Record(ctx, t, id, 0); err != nil {
			return nil, err
		}
		told, _, err := s.informed(ctx, t, []string{id})
		if err != nil {
			return nil, err
		}
		out = append(out, inspected{Record: r, Deadlines: verify.Deadlines(string(r.Case.Kind), raw(r.Case.Events), limitsOf(r.Limits), s.cfg.Clock.Now()),
			Told: len(told) > 0, Upstream: r.Case.Regions.Upstream})
	}
	return out, err
}

// raw is the events as the verifier reads them.
func raw(events []respond.Event) []verify.Event {
	out := make([]verify.Event, len(events))
	for i, e := range events {
		d := e.Data
		out[i] = verify.Event{Seq: e.Seq, Kind: string(e.Kind), Actor: e.Actor, Data: verify.EventData{At: d.At, Due: d.Due, Stage: string(d.Stage), Attempt: d.Attempt, Request: d.Request,
			Coordinator: d.Coordinator, Of: string(d.Of), Product: d.Product, Pack: d.Pack, File: d.File, SHA256: d.SHA256, Note: d.Note}}
	}
	return out
}

// label is the name of a duty for people.
func label(stage string) string {
	switch stage {
	case "early_warning":
		return "Early warning, 24 hours"
	case "notification":
		return "Notification, 72 hours"
	case "final":
		return "Final report"
	case "users":
		return "Users told (the house's own limit)"
	default:
		return "Intermediate report"
	}
}

// Duties are the deadlines of the case for the page.
func (x inspected) Duties() (out []duty) {
	for _, d := range x.Deadlines {
		out = append(out, duty{d, label(d.Stage), x.why(d)})
	}
	return out
}

type duty struct {
	verify.Deadline
	Label string
	Why   string
}

// why says what is on record about what was late: the words with which it was submitted, or an outage at that time.
func (x inspected) why(d verify.Deadline) string {
	if d.Verdict != verify.Late {
		return d.Undetermined
	}
	if d.Reason != "" {
		return d.Reason
	}
	for _, o := range x.Case.Regions.Availability {
		if o.From.Before(d.Due) && (o.Until.IsZero() || o.Until.After(d.Due)) {
			return "the reporting platform was out since " + o.From.Format(time.RFC3339) + "; that pauses no clock"
		}
	}
	return "no reason is on record"
}
