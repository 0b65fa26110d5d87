// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"net/http"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// Anomaly is something that another room saw and that may be an attack: an alarm, a clone, a broken chain of records.
type Anomaly struct {
	Kind    string // one of AnomalyKinds
	ID      string // the alarm, the suspicion, or the device whose chain it is
	Product string
	Title   string
	Detail  string
}

// The kinds of anomalies.
const (
	AnomalyAlarm = "alarm"
	AnomalyClone = "clone"
	AnomalyChain = "chain"
)

// ref is what the signal of an anomaly calls it; that of an alarm is the one that its rule may have asked for already.
func (a Anomaly) ref() string {
	if a.Kind == AnomalyAlarm {
		return a.ID
	}
	return a.Kind + " " + a.ID
}

// SignalOf makes an anomaly a signal, once: who asks again is given the one that is there. It starts no clock.
func (s *Service) SignalOf(ctx context.Context, kind, id string) (sig Signal, err error) {
	if s.cfg.Anomaly == nil {
		return Signal{}, problem.NotFound("There is no such anomaly.")
	}
	x, err := s.cfg.Anomaly(ctx, kind, id)
	if err != nil {
		return Signal{}, err
	}
	a, err := who(ctx, tenant.CaseWrite, x.Product)
	if err != nil {
		return Signal{}, err
	}
	made := Signal{ID: store.NewID("sig"), Product: x.Product, Source: SourceAlarm, Ref: x.ref(), Exploited: "unknown", Title: x.Title, Actor: a.ID, Detail: x.Detail}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		sig = made // the transaction may run twice
		fresh, err := s.take(tx, a.Tenant, &sig, signalKey(made))
		if err == nil && !fresh {
			sig, err = signalByKey(tx, a.Tenant, SourceAlarm, signalKey(made))
		}
		return err
	})
	return sig, err
}

// anomalyRoutes registers the operation.
func (s *Service) anomalyRoutes(a *api.API) {
	type anomalyIn struct {
		Kind string `path:"kind" enum:"alarm,clone,chain"`
		ID   string `path:"id" maxLength:"64" doc:"The alarm, the suspected clone, or the device whose chain of records is broken"`
	}
	api.Handle(a, api.Op{ID: "signal-anomaly", Method: "POST", Path: "/v1/anomalies/{kind}/{id}/signal", Verb: string(tenant.CaseWrite), Stage: "respond", Status: 201,
		Summary: "Make an alarm, a suspected clone or a broken chain a signal, which a person must assess; asked again, the same signal"},
		func(ctx context.Context, in *anomalyIn) (*api.Out[Signal], error) {
			return api.Answer(s.SignalOf(ctx, in.Kind, in.ID))
		})
}

// anomalyPart is what stands beside anomalies: the way to an assessment.
type anomalyPart struct{ Anomalies []Anomaly }

// anomalyPages puts the way to an assessment beside alarms and on the passport of a device.
func (s *Service) anomalyPages(c *console.Console) {
	if s.cfg.Anomaly == nil {
		return
	}
	write := string(tenant.CaseWrite)
	c.Fragment("alarm", console.Fragment{Order: 10, Title: "Is it a security incident?", Verb: write, FS: pagesFS, Template: "pages/anomaly.html",
		Load: func(r *http.Request, id string) (any, error) {
			x, err := s.cfg.Anomaly(r.Context(), AnomalyAlarm, id)
			return anomalyPart{[]Anomaly{x}}, err
		}})
	c.Fragment("device", console.Fragment{Order: 57, Title: "Is it a security incident?", Verb: write, FS: pagesFS, Template: "pages/anomaly.html",
		Load: func(r *http.Request, device string) (any, error) {
			var p anomalyPart
			for _, kind := range []string{AnomalyClone, AnomalyChain} {
				switch x, err := s.cfg.Anomaly(r.Context(), kind, device); {
				case err == nil:
					p.Anomalies = append(p.Anomalies, x)
				case !problem.Is(err, problem.KindNotFound):
					return nil, err
				}
			}
			if len(p.Anomalies) == 0 {
				return nil, nil
			}
			return p, nil
		}})
	c.Form("/anomalies/{kind}/{id}/assess", write, func(r *http.Request) (string, error) {
		sig, err := s.SignalOf(r.Context(), r.PathValue("kind"), r.PathValue("id"))
		if err != nil {
			return "/", err
		}
		if sig.Assessment == nil {
			if _, err = s.Assess(r.Context(), sig.ID, ""); err == nil {
				console.Say(r, "The assessment is open. Both questions are yours to answer.")
			}
		}
		return "/signals/" + sig.ID, err
	})
}
