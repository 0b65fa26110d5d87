// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// Routes registers the operations of the room.
func (s *Service) Routes(a *api.API) {
	s.contactRoutes(a)
	s.campaignRoutes(a)
}

func operation(id, method, path string, verb tenant.Verb, summary string) api.Op {
	o := api.Op{ID: id, Method: method, Path: "/v1" + path, Verb: string(verb), Summary: summary, Stage: "inform"}
	if method == http.MethodPost {
		o.Status = http.StatusCreated
	}
	return o
}

type contactIDIn struct {
	ID string `path:"id" maxLength:"64"`
}

func (s *Service) contactRoutes(a *api.API) {
	const write = tenant.CaseWrite
	type usersContactIn struct{ Body Contact }
	add := operation("add-contact", "POST", "/contacts", write, "Add somebody who is told about products; the secret of a webhook is in this answer only")
	add.Secret = true
	api.Handle(a, add, func(ctx context.Context, in *usersContactIn) (*api.Out[Contact], error) {
		return api.Answer(s.AddContact(ctx, in.Body))
	})
	type contactsIn struct {
		Product string `query:"product" maxLength:"64" doc:"Only who has this product"`
		api.Paging
	}
	api.Handle(a, operation("list-contacts", "GET", "/contacts", write, "Who is told about products, the newest first"), func(ctx context.Context, in *contactsIn) (*api.List[Contact], error) {
		before, err := in.After(a)
		if err != nil {
			return nil, err
		}
		cs, err := s.Contacts(ctx, in.Product, before, in.Size()+1)
		if err != nil {
			return nil, err
		}
		return api.More(a, in.Paging, cs, func(c Contact) string { return c.ID }), nil
	})
	api.Handle(a, operation("read-contact", "GET", "/contacts/{id}", write, "A contact"), func(ctx context.Context, in *contactIDIn) (*api.Out[Contact], error) {
		return api.Answer(s.Contact(ctx, in.ID))
	})
	type changeContactIn struct {
		ID   string `path:"id" maxLength:"64"`
		Body Contact
	}
	api.Handle(a, operation("change-contact", "PUT", "/contacts/{id}", write, "Replace what is known of a contact; its channel stays"), func(ctx context.Context, in *changeContactIn) (*api.Out[Contact], error) {
		return api.Answer(s.ChangeContact(ctx, in.ID, in.Body))
	})
	type erasedContact struct{}
	api.Handle(a, operation("erase-contact", "DELETE", "/contacts/{id}", write, "Destroy a contact's name and address for ever; what it was told stays on record under a keyed hash"),
		func(ctx context.Context, in *contactIDIn) (*erasedContact, error) {
			return nil, s.EraseContact(ctx, in.ID)
		})
	bring := operation("import-contacts", "POST", "/contacts/import", write, "Add contacts from a CSV file, all of them or none")
	bring.Doc = "The body is the file, UTF-8. Its first line is name,role,channel,address,language,product,revision (or the same with semicolons); product is an id, a model or a name, revision an id or a name, or nothing. " +
		"One contact with several products has several lines. An address that the register has gets these products too. At most 1000 lines."
	bring.MaxBody = maxImport
	api.Raw(a, bring, func(w http.ResponseWriter, r *http.Request) error {
		file, err := io.ReadAll(r.Body)
		if err != nil {
			return problem.Invalid("The file could not be read.").Because(err)
		}
		n, err := s.ImportContacts(r.Context(), file)
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		return json.NewEncoder(w).Encode(n)
	})
}

func (s *Service) campaignRoutes(a *api.API) {
	const read, write = tenant.CaseRead, tenant.CaseWrite
	type campaignWordsIn struct{ Body Words }
	api.Handle(a, operation("draft-campaign", "POST", "/campaigns", write, "Draft what users are told; nobody is told before a person sends it"), func(ctx context.Context, in *campaignWordsIn) (*api.Out[Campaign], error) {
		return api.Answer(s.Draft(ctx, in.Body))
	})
	type campaignsIn struct {
		Case string `query:"case" maxLength:"64" doc:"Only those of this case"`
		api.Paging
	}
	api.Handle(a, operation("list-campaigns", "GET", "/campaigns", read, "What users are told and were told, the newest first"), func(ctx context.Context, in *campaignsIn) (*api.List[Campaign], error) {
		before, err := in.After(a)
		if err != nil {
			return nil, err
		}
		cs, err := s.Campaigns(ctx, in.Case, before, in.Size()+1)
		if err != nil {
			return nil, err
		}
		return api.More(a, in.Paging, cs, func(c Campaign) string { return c.ID }), nil
	})
	api.Handle(a, operation("get-campaign", "GET", "/campaigns/{id}", read, "A campaign"), func(ctx context.Context, in *contactIDIn) (*api.Out[Campaign], error) {
		return api.Answer(s.Campaign(ctx, in.ID))
	})
	type changeCampaignIn struct {
		ID      string `path:"id" maxLength:"64"`
		Version int64  `query:"version" minimum:"1" required:"true" doc:"Of the draft that was read"`
		Body    Words
	}
	api.Handle(a, operation("change-campaign", "PUT", "/campaigns/{id}", write, "Replace the words of a draft"), func(ctx context.Context, in *changeCampaignIn) (*api.Out[Campaign], error) {
		return api.Answer(s.Change(ctx, in.ID, in.Version, in.Body))
	})
	type nobody struct{}
	api.Handle(a, operation("discard-campaign", "DELETE", "/campaigns/{id}", write, "Discard a draft"), func(ctx context.Context, in *contactIDIn) (*nobody, error) {
		return nil, s.Discard(ctx, in.ID)
	})
	api.Handle(a, operation("preview-campaign", "GET", "/campaigns/{id}/preview", read, "Who would be told if it were sent now: counts by role, channel and language, and devices"), func(ctx context.Context, in *contactIDIn) (*api.Out[Preview], error) {
		return api.Answer(s.Preview(ctx, in.ID))
	})
	type sendCampaignIn struct {
		ID   string `path:"id" maxLength:"64"`
		Body struct {
			Version int64 `json:"version" minimum:"1" doc:"Of the draft that was read"`
		}
	}
	send := operation("send-campaign", "POST", "/campaigns/{id}/send", tenant.CaseDeclare, "Send a draft, once (a person only); from then on it is frozen, with whom it is for")
	send.Status = http.StatusOK
	api.Handle(a, send, func(ctx context.Context, in *sendCampaignIn) (*api.Out[Campaign], error) {
		return api.Answer(s.Send(ctx, in.ID, in.Body.Version))
	})
	type campaignDeliveriesIn struct {
		ID    string `path:"id" maxLength:"64"`
		State State  `query:"state" enum:"waiting,handed-over,read,bounced,failed"`
		api.Paging
	}
	api.Handle(a, operation("list-campaign-deliveries", "GET", "/campaigns/{id}/deliveries", read, "What became of each delivery; it names nobody"), func(ctx context.Context, in *campaignDeliveriesIn) (*api.List[Delivery], error) {
		after, err := in.After(a)
		if err != nil {
			return nil, err
		}
		ds, err := s.Deliveries(ctx, in.ID, in.State, after, in.Size()+1)
		if err != nil {
			return nil, err
		}
		return api.More(a, in.Paging, ds, func(d Delivery) string { return d.ID }), nil
	})
	type bounceDeliveryIn struct {
		ID       string `path:"id" maxLength:"64"`
		Delivery string `path:"delivery" maxLength:"128"`
		Body     struct {
			Reason string `json:"reason" maxLength:"1200" doc:"Without the address: it stays when the contact is erased"`
		}
	}
	bounce := operation("bounce-delivery", "POST", "/campaigns/{id}/deliveries/{delivery}/bounce", write, "Record that a delivery came back")
	bounce.Status = http.StatusOK
	api.Handle(a, bounce, func(ctx context.Context, in *bounceDeliveryIn) (*api.Out[Delivery], error) {
		return api.Answer(s.Bounce(ctx, in.ID, in.Delivery, in.Body.Reason))
	})
	type retriedCampaign struct {
		Deliveries int64 `json:"deliveries"`
	}
	retry := operation("retry-campaign", "POST", "/campaigns/{id}/retry", tenant.CaseDeclare, "Try again what failed")
	retry.Status = http.StatusOK
	api.Handle(a, retry, func(ctx context.Context, in *contactIDIn) (*api.Out[retriedCampaign], error) {
		n, err := s.Retry(ctx, in.ID)
		return api.Answer(retriedCampaign{n}, err)
	})
	api.Handle(a, operation("get-campaign-proof", "GET", "/campaigns/{id}/proof", read, "When, how, to whom and in which language users were told"), func(ctx context.Context, in *contactIDIn) (*api.Out[Proof], error) {
		return api.Answer(s.Proof(ctx, in.ID))
	})
	api.Raw(a, operation("get-campaign-proof-csv", "GET", "/campaigns/{id}/proof.csv", read, "The deliveries of the proof as a table"), s.proofCSV)
}

// proofCSV is the table for programs and for the page.
func (s *Service) proofCSV(w http.ResponseWriter, r *http.Request) error {
	p, err := s.Proof(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="`+p.Campaign.ID+`.csv"`)
	return p.WriteCSV(w)
}
