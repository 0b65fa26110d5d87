// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// packRoutes registers what concerns submission packs, receipts and the coordinator.
func (s *Service) packRoutes(a *api.API) {
	read, declare := string(tenant.CaseRead), string(tenant.CaseDeclare)
	type packIn struct {
		ID    string `path:"id" maxLength:"64"`
		Stage Stage  `query:"stage" enum:"early_warning,notification,final" doc:"The report; the next one if absent"`
	}
	api.Handle(a, api.Op{ID: "get-case-pack", Method: "GET", Path: "/v1/cases/{id}/pack", Verb: read, Stage: "respond",
		Summary: "Draft of a report in the fields of the Single Reporting Platform, for a person to copy; nothing is sent"},
		func(ctx context.Context, in *packIn) (*api.Out[Pack], error) {
			return api.Answer(s.Pack(ctx, in.ID, in.Stage))
		})
	api.Raw(a, api.Op{ID: "get-case-submission", Method: "GET", Path: "/v1/cases/{id}/submissions/{attempt}", Verb: read, Stage: "respond",
		Summary: "What the report said that an event says was submitted: the canonical bytes whose SHA-256 stands in the event"},
		func(w http.ResponseWriter, r *http.Request) error {
			attempt, _ := strconv.ParseInt(r.PathValue("attempt"), 10, 64) // 0 is no event
			b, err := s.Submitted(r.Context(), r.PathValue("id"), attempt)
			if err != nil {
				return err
			}
			w.Header().Set("Content-Type", "application/json")
			_, err = w.Write(b)
			return err
		})
	api.Raw(a, api.Op{ID: "store-case-receipt", Method: "POST", Path: "/v1/cases/{id}/receipts", Verb: declare, Stage: "respond", Status: 201, MaxBody: MaxReceipt,
		Summary: "Keep a receipt of the reporting platform as a file, sealed; the query names attempt (its event) and name"},
		func(w http.ResponseWriter, r *http.Request) error {
			attempt, _ := strconv.ParseInt(r.URL.Query().Get("attempt"), 10, 64)
			b, err := readReceipt(r.Body)
			if err != nil {
				return err
			}
			e, err := s.StoreReceipt(r.Context(), r.PathValue("id"), attempt, r.URL.Query().Get("name"), b)
			if err != nil {
				return err
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusCreated)
			return json.NewEncoder(w).Encode(e)
		})
	api.Raw(a, api.Op{ID: "get-case-receipt", Method: "GET", Path: "/v1/cases/{id}/receipts/{file}", Verb: read, Stage: "respond",
		Summary: "A stored receipt as it came, as a download"}, s.serveReceipt)

	type none struct{}
	api.Handle(a, api.Op{ID: "get-coordinator", Method: "GET", Path: "/v1/coordinator", Verb: read, Stage: "respond",
		Summary: "Whose CSIRT is the coordinator of the tenant, as a person confirmed it (CRA Art. 14(7))"},
		func(ctx context.Context, _ *none) (*api.Out[Confirmed], error) {
			c, ok, err := s.Coordinator(ctx)
			if err == nil && !ok {
				err = problem.NotFound("Nobody has confirmed a coordinator yet.")
			}
			return api.Answer(c, err)
		})
	type seatIn struct{ Body Seat }
	type path struct {
		Steps []Step `json:"steps"`
		State string `json:"state" doc:"The Member State that the answers lead to; empty while they lead to none"`
	}
	api.Handle(a, api.Op{ID: "find-coordinator", Method: "POST", Path: "/v1/coordinator/path", Verb: read, Stage: "respond",
		Summary: "Where the answers to the questions of CRA Art. 14(7) lead; it stores nothing"},
		func(_ context.Context, in *seatIn) (*api.Out[path], error) {
			if err := in.Body.check(); err != nil {
				return nil, err
			}
			steps, state := in.Body.Path()
			return api.One(path{steps, state}), nil
		})
	type confirmIn struct {
		Body struct {
			Seat
			State  string `json:"state" maxLength:"2" doc:"Member State of the coordinator"`
			Reason string `json:"reason,omitempty" maxLength:"4000" doc:"Why another than the answers lead to"`
		}
	}
	api.Handle(a, api.Op{ID: "confirm-coordinator", Method: "PUT", Path: "/v1/coordinator", Verb: declare, Stage: "respond",
		Summary: "Confirm the coordinator with the facts that it rests on; needs a person"},
		func(ctx context.Context, in *confirmIn) (*api.Out[Confirmed], error) {
			return api.Answer(s.ConfirmCoordinator(ctx, in.Body.Seat, in.Body.State, in.Body.Reason))
		})
}

// receiptPath is where a stored receipt is downloaded.
func receiptPath(id, file string) string { return fmt.Sprintf("/v1/cases/%s/receipts/%s", id, file) }
