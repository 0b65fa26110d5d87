// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/evidence"
	"github.com/openthings-platform/openthings/evidence/verify"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/update"
)

// What follows joins stages that must not know each other.

// productName turns a product's id into words for people.
func (h *house) productName(ctx context.Context, tenant, id string) string {
	if id == update.OwnProduct {
		return "OpenThings"
	}
	p, err := h.product.Get(ctx, tenant, id)
	if err != nil {
		return id
	}
	return p.Name
}

// manufacturer is the tenant's name, as drafts of reports show it.
func (h *house) manufacturer(ctx context.Context, tenant string) (string, error) {
	t, err := h.tenant.Get(ctx, tenant)
	return t.Name, err
}

// sections is what the stages add to the evidence bundle of a device.
func (h *house) sections() []evidence.Section {
	return []evidence.Section{
		evidence.JSON("installations", h.fleet.History),
		evidence.JSON("firmware", h.update.Firmware),
		{Name: "manufacture", Collect: h.madeOf},
		{Name: "releases", Collect: h.releasesOf},
		{Name: verify.SectionWipe, Collect: h.wipeOf},
		evidence.JSON("retirement", h.retire.Retirement),
	}
}

// related names the product and the releases that the device ran, so that their leaves join its bundle.
func (h *house) related(ctx context.Context, tenant, device string) ([]string, error) {
	history, err := h.fleet.History(ctx, tenant, device)
	if err != nil {
		return nil, err
	}
	d, err := h.identity.Get(ctx, tenant, device)
	if err != nil {
		return nil, err
	}
	ids := []string{d.Product} // decisions on vulnerabilities are about the product
	for _, i := range history {
		ids = append(ids, i.Release)
	}
	return ids, nil
}

// admit keeps the device doors shut while the database is older than the journal of checkpoints, as after the restore of
// a backup: until somebody has looked, nobody can say what the lost entries took away.
func (h *house) admit(ctx context.Context, cert *x509.Certificate) (gateway.Peer, error) {
	if h.audit.Behind() {
		return gateway.Peer{}, problem.Unavailable("The platform's database is older than its journal; the device doors stay shut.").
			Hint("An operator looks into it and runs openthings audit acknowledge.")
	}
	return h.enroll.Admit(ctx, cert)
}

// What the gateway asks of enroll, which is built after it.

func (h *house) vouch(ctx context.Context, chain []*x509.Certificate) (gateway.Peer, error) {
	return h.enroll.Vouch(ctx, chain)
}

func (h *house) introduce(ctx context.Context, chain []*x509.Certificate, from string) (gateway.Peer, error) {
	return h.enroll.Introduce(ctx, chain, from)
}

func (h *house) used(ctx context.Context, p gateway.Peer) error { return h.enroll.Used(ctx, p) }

func (h *house) spent(p gateway.Peer) { h.enroll.Spent(p) }

func (h *house) takenOver(before, now gateway.Peer) { h.enroll.TakenOver(before, now) }

// signedText checks a text that the platform signed with the key of its log.
func (h *house) signedText(signed []byte) (string, error) {
	key, err := note.NewVerifier(h.audit.VerifierKey())
	if err != nil {
		return "", err
	}
	n, err := note.Open(signed, note.VerifierList(key))
	if err != nil {
		return "", err
	}
	return n.Text, nil
}

// health serves liveness and readiness, without TLS and without saying more than that.
func (h *house) health() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		checks := map[string]string{"platform database": "ok", "telemetry database": "ok", "revocations": "ok"}
		status := http.StatusOK
		if h.audit.Behind() {
			checks["audit log"], status = "the database is older than the journal; the device doors are shut", http.StatusServiceUnavailable
		}
		for name, err := range map[string]error{"platform database": h.db.Ping(ctx), "telemetry database": h.records.Ping(ctx), "revocations": h.identity.Ready()} {
			if err != nil {
				checks[name], status = err.Error(), http.StatusServiceUnavailable
			}
		}
		checks["disk"] = "ok"
		if err := h.telemetry.Room(); err != nil { // everything else goes on
			checks["disk"] = err.Error()
		}
		checks["issuer"] = "ok"
		if st := h.identity.IssuerState(); !st.OK { // what is enrolled goes on, so the doors stay open
			checks["issuer"] = "cannot sign since " + st.Since.UTC().Format(time.RFC3339) + ": " + st.Problem
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(checks) //nolint:errcheck // nobody to tell
	})
	return mux
}

// refused counts what policy refused a device or station towards the log. The gateway names nobody here who has not
// proven who they are.
func (h *house) refused(p gateway.Peer, rule, detail string) {
	h.counts.refusals.Add(1)
	who := p.Device
	if p.Kind == gateway.Station {
		who = p.Station
	}
	h.refusals.Note(audit.Refusal{Tenant: p.Tenant, Actor: who, Subject: who, Rule: rule, Detail: detail})
}

// refusedActor counts what policy refused a person or a token. A stranger leaves nothing in the log.
func (h *house) refusedActor(ctx context.Context, rule, detail string) {
	h.counts.refusals.Add(1)
	if a, ok := tenant.ActorFrom(ctx); ok {
		h.refusals.Note(audit.Refusal{Tenant: a.Tenant, Actor: a.ID, Subject: a.ID, Rule: rule, Detail: detail})
	}
}

// releasesOf is every release that the device ran, with the list that the manufacturer signed.
func (h *house) releasesOf(ctx context.Context, tenant, device string) (json.RawMessage, error) {
	history, err := h.fleet.History(ctx, tenant, device)
	if err != nil {
		return nil, err
	}
	type signed struct {
		Release any             `json:"release"`
		Targets json.RawMessage `json:"targets"`
	}
	out := []signed{}
	seen := map[string]bool{}
	for _, i := range history {
		if seen[i.Release] {
			continue
		}
		seen[i.Release] = true
		r, err := h.update.Get(ctx, tenant, i.Release)
		if err != nil {
			return nil, err
		}
		doc, err := h.update.SignedTargets(ctx, r)
		if err != nil {
			return nil, err
		}
		out = append(out, signed{r, doc})
	}
	return json.Marshal(out)
}

// wipeOf is the device's last word, if it has spoken.
func (h *house) wipeOf(ctx context.Context, tenant, device string) (json.RawMessage, error) {
	r, err := h.retire.Retirement(ctx, tenant, device)
	if err != nil || r.Wipe == nil || r.Wipe.Signed == nil {
		return nil, err
	}
	return json.Marshal(verify.Wipe{Receipt: *r.Wipe.Signed})
}

// madeOf is how the device was made, if a line of this platform made it.
func (h *house) madeOf(ctx context.Context, tenant, device string) (json.RawMessage, error) {
	m, err := h.enroll.Manufacture(ctx, tenant, device)
	if problem.Is(err, problem.KindNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(m)
}
