// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"testing"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// TestAnAnomalyBecomesAnIncident: what another room saw becomes a signal once, whoever asks; its alarm of an idle assessment
// runs; a person who finds a severe incident in it opens a case of that kind, and nobody else can.
func TestAnAnomalyBecomesAnIncident(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		h.cfg.Anomaly = func(_ context.Context, kind, id string) (Anomaly, error) {
			if id == "dev_whole" {
				return Anomaly{}, problem.NotFound("The chain of this device is whole.")
			}
			return Anomaly{Kind: kind, ID: id, Product: h.product, Title: "Records do not fit together", Detail: "Records are missing."}, nil
		}
		sig, err := h.SignalOf(ann, AnomalyChain, "dev_1")
		if err != nil || sig.Source != SourceAlarm || sig.Product != h.product || sig.Assessment != nil {
			t.Fatalf("%+v %v", sig, err)
		}
		if again, err := h.SignalOf(bob, AnomalyChain, "dev_1"); err != nil || again.ID != sig.ID || again.Actor != sig.Actor {
			t.Errorf("asked again: %+v %v", again, err)
		}
		if other, err := h.SignalOf(bob, AnomalyClone, "dev_1"); err != nil || other.ID == sig.ID {
			t.Errorf("another anomaly: %+v %v", other, err)
		}
		if _, err := h.SignalOf(ann, AnomalyChain, "dev_whole"); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("nothing was seen: %v", err)
		}
		if _, err := h.SignalOf(signedIn("per_aud", tenant.Auditor), AnomalyAlarm, "alm_1"); !problem.Is(err, problem.KindForbidden) {
			t.Errorf("an auditor: %v", err)
		}

		// The alarm of a rule that asked for a signal, and a person who asks for it, are one.
		if err := h.receive(t.Context(), maker, &Signal{ID: "sig_rule", Product: h.product, Source: SourceAlarm, Ref: "alm_2", Exploited: "unknown", Title: "Alarm", Actor: "system"}); err != nil {
			t.Fatal(err)
		}
		if same, err := h.SignalOf(ann, AnomalyAlarm, "alm_2"); err != nil || same.ID != "sig_rule" {
			t.Errorf("the rule's own signal: %+v %v", same, err)
		}

		as, err := h.Assess(ann, sig.ID, "")
		if err != nil {
			t.Fatal(err)
		}
		_, cases, err := h.Decide(ann, as.ID, h.aware(false, true))
		if err != nil || len(cases) != 1 {
			t.Fatalf("%v, cases %v", err, cases)
		}
		if c, err := h.Case(ann, cases[0]); err != nil || c.Kind != SI || c.Signal != sig.ID {
			t.Errorf("%+v %v", c, err)
		}
	})
}
