// SPDX-License-Identifier: AGPL-3.0-only

package notify

import (
	"context"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

type endpointIn struct {
	Body struct {
		Name    string   `json:"name" maxLength:"100"`
		Kind    Kind     `json:"kind" enum:"webhook,mail,pager,syslog"`
		Address string   `json:"address" maxLength:"500" doc:"URL of a webhook or of a pager's Events API v2, mail address, or host and port of a syslog receiver"`
		Topics  []string `json:"topics" maxItems:"20" doc:"What it is told of: alarm.raised, alarm.* or *"`

		Header     string `json:"header,omitempty" maxLength:"64" doc:"Webhook: name of a header that each request carries" example:"X-Automation-Webhook-Token"`
		Credential string `json:"credential,omitempty" maxLength:"2000" doc:"The value of the header, or the routing key of a pager. It is kept sealed and never shown again"`
		Authority  string `json:"authority,omitempty" maxLength:"32768" doc:"Syslog: CA certificates (PEM) that the receiver's is checked against; none: those of the machine"`
	}
}

// EndpointSecret is a new endpoint with the secret that its receiver checks signatures with.
type EndpointSecret struct {
	Endpoint
	Secret string `json:"secret,omitempty" doc:"Of a webhook, shown this once"`
}

type byID struct {
	ID string `path:"id"`
}

type deliveriesIn struct {
	Endpoint string `query:"endpoint" maxLength:"64"`
	State    string `query:"state" enum:"open,done,failed,moot"`
	api.Paging
}

// Routes mounts the API.
func (s *Service) Routes(a *api.API) {
	const stage = "notify"
	read, write := string(tenant.NotifyRead), string(tenant.NotifyWrite)
	api.Handle(a, api.Op{ID: "list-notification-topics", Method: "GET", Path: "/v1/notifications/topics", Verb: read, Stage: stage,
		Summary: "List what can be told"}, func(context.Context, *struct{}) (*api.List[Topic], error) { return api.Items(s.Topics()), nil })
	api.Handle(a, api.Op{ID: "list-endpoints", Method: "GET", Path: "/v1/notifications/endpoints", Verb: read, Stage: stage,
		Summary: "List who is told"}, func(ctx context.Context, _ *struct{}) (*api.List[Endpoint], error) {
		es, err := s.endpoints(ctx)
		return api.Items(es), err
	})
	api.Handle(a, api.Op{ID: "add-endpoint", Method: "POST", Path: "/v1/notifications/endpoints", Verb: write, Stage: stage, Status: 201,
		Summary: "Tell a webhook, a mail address, a pager or a syslog receiver of topics",
		Doc:     "A webhook gets Standard Webhooks; the secret that its receiver checks signatures with is shown this once. A pager gets events of PagerDuty's Events API v2, a syslog receiver RFC 5424 over TLS."},
		func(ctx context.Context, in *endpointIn) (*api.Out[EndpointSecret], error) {
			e, secret, err := s.add(ctx, Endpoint{Name: in.Body.Name, Kind: in.Body.Kind, Address: in.Body.Address, Topics: in.Body.Topics,
				Header: in.Body.Header, Credential: in.Body.Credential, Authority: in.Body.Authority})
			return api.One(EndpointSecret{e, secret}), err
		})
	for _, action := range []struct {
		id, path, summary string
		do                func(ctx context.Context, t, id, actor string) error
	}{
		{"remove-endpoint", "remove", "Tell an endpoint nothing more", s.Remove},
		{"resume-endpoint", "resume", "Deliver again to an endpoint that was turned off or rests after a fault", s.Resume},
		{"test-endpoint", "test", "Send a test to an endpoint", s.Test},
	} {
		api.Handle(a, api.Op{ID: action.id, Method: "POST", Path: "/v1/notifications/endpoints/{id}/" + action.path, Verb: write, Stage: stage, Status: 204,
			Summary: action.summary}, func(ctx context.Context, in *byID) (*struct{}, error) {
			t, who, err := tenant.Whole(ctx, tenant.NotifyWrite)
			if err != nil {
				return nil, err
			}
			return nil, action.do(ctx, t, in.ID, who)
		})
	}
	api.Handle(a, api.Op{ID: "list-deliveries", Method: "GET", Path: "/v1/notifications/deliveries", Verb: read, Stage: stage,
		Summary: "List what was told to whom and whether it arrived, the newest first"}, func(ctx context.Context, in *deliveriesIn) (*api.List[Delivery], error) {
		before, err := in.After(a)
		if err != nil {
			return nil, err
		}
		t, _, err := tenant.Whole(ctx, tenant.NotifyRead)
		if err != nil {
			return nil, err
		}
		ds, err := listDeliveries(ctx, s.cfg.DB, t, in.Endpoint, in.State, before, in.Size()+1)
		return api.More(a, in.Paging, ds, func(d Delivery) string { return d.ID }), err
	})
	api.Handle(a, api.Op{ID: "deliver-again", Method: "POST", Path: "/v1/notifications/deliveries/{id}/again", Verb: write, Stage: stage, Status: 204,
		Summary: "Try a failed delivery again"}, func(ctx context.Context, in *byID) (*struct{}, error) {
		t, _, err := tenant.Whole(ctx, tenant.NotifyWrite)
		if err != nil {
			return nil, err
		}
		return nil, s.Again(ctx, t, in.ID)
	})
}

// endpoints lists those of whoever asks.
func (s *Service) endpoints(ctx context.Context) (es []Endpoint, err error) {
	t, _, err := tenant.Whole(ctx, tenant.NotifyRead)
	if err != nil {
		return nil, err
	}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		es, err = listEndpoints(tx.Query, t)
		return err
	})
	return es, err
}

// add is Add for whoever asks.
func (s *Service) add(ctx context.Context, e Endpoint) (Endpoint, string, error) {
	t, who, err := tenant.Whole(ctx, tenant.NotifyWrite)
	if err != nil {
		return e, "", err
	}
	e.Tenant, e.Actor = t, who
	return s.Add(ctx, e)
}

// Name is what people call an endpoint; "" when there is none.
func (s *Service) Name(ctx context.Context, t, id string) (name string, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		e, err := getEndpoint(tx, t, id)
		name = e.Name
		return err
	})
	return name, err
}
