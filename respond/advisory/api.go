// SPDX-License-Identifier: AGPL-3.0-only

package advisory

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/vuln/csaf"
)

// Routes registers the operations of advisories.
func (s *Service) Routes(a *api.API) {
	read, write, publish := string(tenant.AdvisoryRead), string(tenant.AdvisoryWrite), string(tenant.AdvisoryPublish)
	type byID struct {
		ID string `path:"id" maxLength:"64"`
	}

	type draftIn struct {
		Body struct {
			Product         string        `json:"product" maxLength:"64" doc:"Id of the product"`
			Vulnerability   string        `json:"vulnerability" maxLength:"128" doc:"CVE number, record id or our own id"`
			Title           string        `json:"title,omitempty" maxLength:"255"`
			Summary         string        `json:"summary,omitempty" maxLength:"8000" doc:"What users are told; needed for publishing"`
			Action          string        `json:"action,omitempty" maxLength:"4000" doc:"What users can do until they run a fixed release"`
			CVSS            string        `json:"cvss,omitempty" maxLength:"255" doc:"Vector of CVSS 3.1 or 3.0"`
			CWE             string        `json:"cwe,omitempty" maxLength:"16" doc:"Kind of weakness, such as CWE-787"`
			TLP             csaf.TLPLabel `json:"tlp,omitempty" enum:"WHITE,GREEN,AMBER,RED" doc:"Default WHITE: for everybody"`
			Lang            string        `json:"lang,omitempty" maxLength:"5" doc:"Default en"`
			References      []Link        `json:"references,omitempty" maxItems:"50"`
			Acknowledgments []Thanks      `json:"acknowledgments,omitempty" maxItems:"50"`
		}
	}
	api.Handle(a, api.Op{ID: "draft-advisory", Method: "POST", Path: "/v1/advisories", Verb: write, Stage: "respond", Status: 201,
		Summary: "Draft a security advisory about a vulnerability of a product",
		Doc:     "Which releases are affected, fixed, not affected or under investigation comes from findings and decisions; the words come from people."},
		func(ctx context.Context, in *draftIn) (*api.Out[Advisory], error) {
			b := in.Body
			return api.Answer(s.Draft(ctx, b.Product, b.Vulnerability, Text{Title: b.Title, Summary: b.Summary, Action: b.Action, CVSS: b.CVSS, CWE: b.CWE,
				TLP: b.TLP, Lang: b.Lang, References: b.References, Acknowledgments: b.Acknowledgments}))
		})

	type listIn struct{ api.Paging }
	api.Handle(a, api.Op{ID: "list-advisories", Method: "GET", Path: "/v1/advisories", Verb: read, Stage: "respond", Summary: "Security advisories, newest first"},
		func(ctx context.Context, in *listIn) (*api.List[Advisory], error) {
			after, err := in.After(a)
			if err != nil {
				return nil, err
			}
			as, err := s.List(ctx, after, in.Size()+1)
			if err != nil {
				return nil, err
			}
			return api.More(a, in.Paging, as, func(x Advisory) string { return x.ID }), nil
		})

	api.Handle(a, api.Op{ID: "get-advisory", Method: "GET", Path: "/v1/advisories/{id}", Verb: read, Stage: "respond",
		Summary: "A security advisory: its words, its revisions, and what the next revision would say of each release"},
		func(ctx context.Context, in *byID) (*api.Out[Advisory], error) { return api.Answer(s.Get(ctx, in.ID)) })

	type changeIn struct {
		ID   string `path:"id" maxLength:"64"`
		Body Text
	}
	api.Handle(a, api.Op{ID: "change-advisory", Method: "PUT", Path: "/v1/advisories/{id}", Verb: write, Stage: "respond",
		Summary: "Replace the words of an advisory's next revision; published revisions stay as they are"},
		func(ctx context.Context, in *changeIn) (*api.Out[Advisory], error) {
			return api.Answer(s.Change(ctx, in.ID, in.Body))
		})

	type publishIn struct {
		ID   string `path:"id" maxLength:"64"`
		Body struct {
			Change string `json:"change,omitempty" maxLength:"1000" doc:"What is new in this revision; needed from the second on"`
		}
	}
	api.Handle(a, api.Op{ID: "publish-advisory", Method: "POST", Path: "/v1/advisories/{id}/publish", Verb: publish, Stage: "respond", Status: 201,
		Summary: "Sign and publish the next revision of an advisory"},
		func(ctx context.Context, in *publishIn) (*api.Out[Advisory], error) {
			return api.Answer(s.Publish(ctx, in.ID, in.Body.Change))
		})

	type holdIn struct {
		ID   string `path:"id" maxLength:"64"`
		Body struct {
			Reason string    `json:"reason,omitempty" maxLength:"2000" doc:"What justifies the delay"`
			Until  time.Time `json:"until,omitzero" required:"false" doc:"When it ends, within a year; people are reminded then"`
		}
	}
	api.Handle(a, api.Op{ID: "hold-advisory", Method: "POST", Path: "/v1/advisories/{id}/hold", Verb: publish, Stage: "respond", Status: 201,
		Summary: "Hold an advisory back, for a reason and until an end"},
		func(ctx context.Context, in *holdIn) (*api.Out[Advisory], error) {
			return api.Answer(s.Hold(ctx, in.ID, Hold{Reason: in.Body.Reason, Until: in.Body.Until}))
		})
	api.Handle(a, api.Op{ID: "lift-advisory-hold", Method: "POST", Path: "/v1/advisories/{id}/lift", Verb: publish, Stage: "respond", Status: 201,
		Summary: "End the hold of an advisory before its time"},
		func(ctx context.Context, in *byID) (*api.Out[Advisory], error) {
			return api.Answer(s.LiftHold(ctx, in.ID))
		})

	api.Raw(a, api.Op{ID: "get-advisory-document", Method: "GET", Path: "/v1/advisories/{id}/csaf", Verb: read, Stage: "respond",
		Summary: "The CSAF 2.0 document: the newest published revision, the one of ?revision=N, or the draft of the next with ?draft=1"}, s.getDocument)
	api.Raw(a, api.Op{ID: "get-advisory-cve", Method: "GET", Path: "/v1/advisories/{id}/cve", Verb: read, Stage: "respond",
		Summary: "A draft for the CVE record in CVE JSON 5, for a CNA"}, s.getCVE)

	type none struct{}
	api.Handle(a, api.Op{ID: "get-publisher", Method: "GET", Path: "/v1/publisher", Verb: read, Stage: "respond", Summary: "In whose name advisories are published"},
		func(ctx context.Context, _ *none) (*api.Out[Publisher], error) { return api.Answer(s.Publisher(ctx)) })
	type publisherIn struct{ Body Publisher }
	api.Handle(a, api.Op{ID: "set-publisher", Method: "PUT", Path: "/v1/publisher", Verb: publish, Stage: "respond", Summary: "Say in whose name advisories are published, and under which address"},
		func(ctx context.Context, in *publisherIn) (*api.Out[Publisher], error) {
			return api.Answer(s.SetPublisher(ctx, in.Body))
		})
}

func (s *Service) getDocument(w http.ResponseWriter, r *http.Request) error {
	id, query := r.PathValue("id"), r.URL.Query()
	if query.Get("draft") != "" {
		b, err := s.Preview(r.Context(), id)
		return writeJSON(w, b, err)
	}
	var number int64
	if v := query.Get("revision"); v != "" {
		var err error
		if number, err = strconv.ParseInt(v, 10, 64); err != nil || number < 1 {
			return problem.Invalid("A revision is a number from 1 on.").At("query.revision")
		}
	}
	rev, err := s.Document(r.Context(), id, number)
	return writeJSON(w, rev.document, err)
}

func (s *Service) getCVE(w http.ResponseWriter, r *http.Request) error {
	b, err := s.CVEDraft(r.Context(), r.PathValue("id"))
	return writeJSON(w, b, err)
}

func writeJSON(w http.ResponseWriter, b []byte, err error) error {
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, err = w.Write(b)
	return err
}
