// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"context"
	"net/http"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/tenant"
)

// Entry is a report as a person enters it who got it by mail, by phone or through a CSIRT.
type Entry struct {
	Channel   string    `json:"channel" enum:"mail,phone,csirt"`
	At        time.Time `json:"at,omitzero" doc:"When it came, with an offset; default now"`
	Subject   string    `json:"subject,omitempty" maxLength:"500" doc:"Shown in lists"`
	Text      string    `json:"text" minLength:"1" maxLength:"200000" doc:"What was written, in the clear or as an armored PGP or age message"`
	Product   string    `json:"product,omitempty" maxLength:"64" doc:"Id of the product, once it is known"`
	Exploited string    `json:"exploited" enum:"yes,no,unknown" doc:"Has the finder seen it exploited?"`
	Where     string    `json:"where,omitempty" maxLength:"500"`
	When      string    `json:"when,omitempty" maxLength:"500"`
	Evidence  string    `json:"evidence,omitempty" maxLength:"4000"`
	Language  string    `json:"language,omitempty" maxLength:"35"`
	Finder
}

func (e Entry) intake() Intake {
	return Intake{Sending: Sending{Subject: e.Subject, Exploited: e.Exploited, Words: Words{Text: e.Text, Where: e.Where, When: e.When, Evidence: e.Evidence}},
		Finder: e.Finder, Channel: e.Channel, Language: e.Language, Product: e.Product, At: e.At}
}

// Routes registers the operations of the room.
func (s *Service) Routes(a *api.API) {
	read, write, declare := string(tenant.CaseRead), string(tenant.CaseWrite), string(tenant.CaseDeclare)
	type none struct{}
	type byID struct {
		ID string `path:"id" maxLength:"64"`
	}
	op := func(id, method, path, verb, summary string) api.Op {
		o := api.Op{ID: id, Method: method, Path: "/v1/disclosure" + path, Verb: verb, Summary: summary, Stage: "disclosure"}
		if method == http.MethodPost {
			o.Status = http.StatusCreated
		}
		return o
	}

	api.Handle(a, op("get-contact", "GET", "", read, "Where vulnerabilities are reported to the tenant"), func(ctx context.Context, _ *none) (*api.Out[Contact], error) {
		c, _, err := s.Contact(ctx)
		return api.Answer(c, err)
	})
	type contactIn struct{ Body Contact }
	api.Handle(a, op("set-contact", "PUT", "", declare, "Say where vulnerabilities are reported; it is published as security.txt"), func(ctx context.Context, in *contactIn) (*api.Out[Contact], error) {
		return api.Answer(in.Body, s.SetContact(ctx, in.Body))
	})
	api.Handle(a, op("list-security-txt", "GET", "/securitytxt", read, "The signed files: the one that is served, and those made for sites of the manufacturer's own"),
		func(ctx context.Context, _ *none) (*api.List[Signed], error) {
			xs, err := s.SecurityTxts(ctx)
			return api.Items(xs), err
		})
	type securityTxtIn struct {
		Body struct {
			Host string `json:"host" maxLength:"253" doc:"The site that the file will lie on"`
		}
	}
	api.Handle(a, op("make-security-txt", "POST", "/securitytxt", declare, "Sign a security.txt for a site of the manufacturer's own; people are told 30 days before it ends"),
		func(ctx context.Context, in *securityTxtIn) (*api.Out[Signed], error) {
			return api.Answer(s.MakeSecurityTxt(ctx, in.Body.Host))
		})

	api.Handle(a, op("get-disclosure-policy", "GET", "/policy", read, "The policy in force"), func(ctx context.Context, _ *none) (*api.Out[Policy], error) { return api.Answer(s.Policy(ctx)) })
	type policyIn struct{ Body Policy }
	api.Handle(a, op("set-disclosure-policy", "PUT", "/policy", declare, "Publish the next version of the policy; reports keep theirs"), func(ctx context.Context, in *policyIn) (*api.Out[Policy], error) {
		return api.Answer(s.SetPolicy(ctx, in.Body))
	})
	type yearIn struct {
		Year int `query:"year" doc:"Default: this one"`
	}
	api.Handle(a, op("get-disclosure-figures", "GET", "/figures", read, "How many reports came in a year, and how long answers took"), func(ctx context.Context, in *yearIn) (*api.Out[Metrics], error) {
		return api.Answer(s.Metrics(ctx, in.Year))
	})

	type recordIn struct {
		Newest int `query:"newest" default:"10" minimum:"1" maximum:"100"`
	}
	api.Handle(a, op("get-disclosure-record", "GET", "/record", read, "The newest reports beside the policy that each came under: acknowledgement, verdict, fix, publication"),
		func(ctx context.Context, in *recordIn) (*api.List[DeskRecord], error) {
			rs, err := s.Record(ctx, in.Newest)
			return api.Items(rs), err
		})

	type listIn struct {
		api.Paging
	}
	api.Handle(a, op("list-reports", "GET", "/reports", read, "Reports of finders, the newest first; under an embargo only that they exist"), func(ctx context.Context, in *listIn) (*api.List[Report], error) {
		after, err := in.After(a)
		if err != nil {
			return nil, err
		}
		rs, err := s.Reports(ctx, false, after, in.Size()+1)
		if err != nil {
			return nil, err
		}
		return api.More(a, in.Paging, rs, func(r Report) string { return r.ID }), nil
	})
	type entryIn struct{ Body Entry }
	api.Handle(a, op("enter-report", "POST", "/reports", write, "Enter a report that came by mail, by phone or through a CSIRT (a person only)"), func(ctx context.Context, in *entryIn) (*api.Out[Receipt], error) {
		return api.Answer(s.Enter(ctx, in.Body.intake()))
	})
	api.Handle(a, op("get-report", "GET", "/reports/{id}", read, "A report with its events and timers; not what the finder wrote"), func(ctx context.Context, in *byID) (*api.Out[Report], error) {
		return api.Answer(s.Report(ctx, in.ID))
	})
	opened := op("open-report", "POST", "/reports/{id}/open", write, "Read what the finder wrote, decrypted where it can be (a person only); that it was read is on record")
	opened.Secret, opened.Status = true, http.StatusOK
	api.Handle(a, opened, func(ctx context.Context, in *byID) (*api.Out[Reading], error) { return api.Answer(s.Open(ctx, in.ID)) })
	type reportEventIn struct {
		ID   string `path:"id" maxLength:"64"`
		Body struct {
			Kind EventKind `json:"kind" maxLength:"64"`
			Note string    `json:"note,omitempty" maxLength:"4000"`
			Data
		}
	}
	api.Handle(a, op("append-report-event", "POST", "/reports/{id}/events", write, "Record what a person did: acknowledged, triaged, told the finder, embargo, upstream task, … (a person only; publication, close, embargo, date and erasure need case.declare)"),
		func(ctx context.Context, in *reportEventIn) (*api.Out[Event], error) {
			return api.Answer(s.Append(ctx, in.ID, in.Body.Kind, in.Body.Note, in.Body.Data))
		})
	download := op("get-attachment", "POST", "/reports/{id}/attachments/{attachment}", write, "Download a file that a finder sent, as it came or with ?plain=yes decrypted (a person only); that it was read is on record")
	download.Status = http.StatusOK
	api.Raw(a, download, s.download)
}

// download hands out a stranger's file as bytes that no browser shows.
func (s *Service) download(w http.ResponseWriter, r *http.Request) error {
	b, err := s.Attachment(r.Context(), r.PathValue("id"), r.PathValue("attachment"), r.FormValue("plain") == "yes")
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Disposition", `attachment; filename="`+r.PathValue("attachment")+`.bin"`)
	h.Set("Cache-Control", "no-store")
	_, err = w.Write(b)
	return err
}
