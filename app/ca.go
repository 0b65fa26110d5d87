// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"slices"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/ceremony"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire"
)

// Authorities belong to the platform and not to a tenant: whoever administers the machine works on them through the
// host socket. Everything is audited as actor "host".
const hostActor = "host"

// CARequest is what openthings ca asks the running platform for; which members count depends on the path.
type CARequest struct {
	ID           string             `json:"id,omitempty"`
	Role         identity.Role      `json:"role,omitempty"`
	Algorithm    identity.Algorithm `json:"algorithm,omitempty"`
	Certificates string             `json:"certificates,omitempty"` // PEM
	Percent      float64            `json:"percent,omitempty"`
	Force        string             `json:"force,omitempty"`
	Reason       string             `json:"reason,omitempty"`
	Recipients   []string           `json:"recipients,omitempty"`
	Proof        *identity.Proof    `json:"proof,omitempty"`
	Bundle       *wire.SignedBundle `json:"bundle,omitempty"`
	Subject      string             `json:"subject,omitempty"`
	Before       string             `json:"before,omitempty"`
	Size         int                `json:"size,omitempty"`
}

// CSR answers /ca/request.
type CSR struct {
	Authority identity.Authority `json:"authority"`
	Request   string             `json:"request"` // PEM
}

// Recovered answers /ca/root/export.
type Recovered struct {
	Authorities []string `json:"authorities"`
	File        string   `json:"file"` // age, armored
}

// host is what the administrator of this machine may ask for.
func (h *house) host() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", h.tenant.HostHandler())
	mux.HandleFunc("POST /elsewhere", h.sendElsewhere)
	for path, act := range map[string]func(context.Context, CARequest) (any, error){
		"status":  func(ctx context.Context, _ CARequest) (any, error) { return h.identity.Overview(ctx, "") },
		"request": h.caRequest, "rotate": h.caRotate, "install": h.caInstall,
		"promote": func(ctx context.Context, in CARequest) (any, error) {
			return h.identity.PromoteAuthority(ctx, in.ID, in.Percent, in.Force, hostActor)
		},
		"retire": func(ctx context.Context, in CARequest) (any, error) {
			return h.identity.RetireAuthority(ctx, in.ID, hostActor)
		},
		"compromise": func(ctx context.Context, in CARequest) (any, error) {
			return h.identity.CompromiseAuthority(ctx, in.ID, hostActor, in.Reason)
		},
		"reach": func(ctx context.Context, in CARequest) (any, error) {
			return h.identity.ReachOf(ctx, "", identity.ScopeAuthority, in.ID)
		},
		"accept": func(ctx context.Context, in CARequest) (any, error) {
			return h.enroll.AcceptTrustedCA(ctx, in.ID, hostActor)
		},
		"log":         h.caLog,
		"root/export": h.caExport,
		"root/remove": h.caRemove,
		"bundle/draft": func(ctx context.Context, _ CARequest) (any, error) {
			b, err := h.identity.DraftBundle(ctx)
			return json.RawMessage(b.Bytes()), err
		},
		"bundle/publish": h.caPublish,
	} {
		mux.HandleFunc("POST /ca/"+path, func(w http.ResponseWriter, r *http.Request) {
			var in CARequest
			d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<20))
			d.DisallowUnknownFields()
			if err := d.Decode(&in); err != nil {
				gateway.WriteProblem(w, problem.Invalid("The request is not valid JSON.").Because(err))
				return
			}
			out, err := act(r.Context(), in)
			if err != nil {
				if problem.Of(err).Kind == problem.KindInternal {
					h.cfg.Log.ErrorContext(r.Context(), "a command of the host failed", "path", r.URL.Path, "err", err)
				}
				gateway.WriteProblem(w, err)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(out) //nolint:errcheck // nobody to tell
		})
	}
	return mux
}

func (h *house) caRequest(ctx context.Context, in CARequest) (any, error) {
	a, csr, err := h.identity.RequestAuthority(ctx, in.Role, in.Algorithm, hostActor)
	return CSR{a, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}))}, err
}

// caLog lists what the log has of the platform itself: its authorities and trust bundles belong to no tenant.
func (h *house) caLog(ctx context.Context, in CARequest) (any, error) {
	n := min(max(in.Size, 1), 1000)
	items, err := h.audit.List(ctx, "", audit.Filter{Subject: in.Subject, Before: in.Before}, n+1)
	if err != nil {
		return nil, err
	}
	p := api.Page[audit.Item]{Items: items}
	if len(items) > n {
		p.Items, p.Next = items[:n], items[n-1].ID
	}
	return p, nil
}

// caInstall takes certificates in the order in which they come.
func (h *house) caInstall(ctx context.Context, in CARequest) (any, error) {
	var out []identity.Installed
	for rest := []byte(in.Certificates); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			return nil, problem.Invalid("There is a %s among the certificates.", b.Type)
		}
		x, err := h.identity.InstallAuthority(ctx, b.Bytes, hostActor)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	if len(out) == 0 {
		return nil, problem.Invalid("There is no certificate in PEM in the file.")
	}
	return out, nil
}

// caRotate makes the next authority of a role below a root whose key is still on this machine. It stands by then.
func (h *house) caRotate(ctx context.Context, in CARequest) (any, error) {
	held, err := h.heldHere(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(held, func(k ceremony.Held) bool { return k.Role == in.Role.Above() }) {
		return nil, problem.Forbidden("ca.root-away", "The key of the %s is not on this machine, as it should be.", in.Role.Above()).
			Hint("openthings ca request, then openthings ca sign where the recovery file is, then openthings ca install.")
	}
	_, csr, err := h.identity.RequestAuthority(ctx, in.Role, in.Algorithm, hostActor)
	if err != nil {
		return nil, err
	}
	req, err := ceremony.ParseRequest(csr)
	if err != nil {
		return nil, err
	}
	cert, err := ceremony.Recovery{Held: held}.Certify(req, h.cfg.Clock.Now())
	if err != nil {
		return nil, err
	}
	return h.identity.InstallAuthority(ctx, cert.Raw, hostActor)
}

// heldHere are the roots and anchors whose keys lie on this machine, the newest first.
func (h *house) heldHere(ctx context.Context) (out []ceremony.Held, err error) {
	keys, err := h.identity.RootKeys(ctx)
	for _, k := range keys {
		cert, err := k.Certificate()
		if err != nil {
			return nil, err
		}
		out = append(out, ceremony.Held{ID: k.ID, Role: k.Role, Cert: cert, Key: k.Key})
	}
	return out, err
}

// caExport writes the recovery file of the roots and anchors on this machine.
func (h *house) caExport(ctx context.Context, in CARequest) (any, error) {
	recipients, err := ceremony.ParseRecipients(in.Recipients)
	if err != nil {
		return nil, err
	}
	keys, err := h.identity.RootKeys(ctx)
	if err != nil {
		return nil, err
	}
	r := ceremony.Recovery{}
	if r.Held, err = h.heldHere(ctx); err != nil {
		return nil, err
	}
	if r.Challenge, err = h.identity.HandOut(ctx, keys, hostActor); err != nil {
		return nil, err
	}
	sealed, err := r.Seal(recipients)
	if err != nil {
		return nil, err
	}
	out := Recovered{File: string(sealed)}
	for _, k := range r.Held {
		out.Authorities = append(out.Authorities, k.ID)
	}
	return out, nil
}

func (h *house) caRemove(ctx context.Context, in CARequest) (any, error) {
	if in.Proof == nil {
		return nil, problem.Invalid("Nothing is removed without a proof that the recovery file can be opened.")
	}
	gone, err := h.identity.RemoveRootKeys(ctx, *in.Proof, hostActor)
	return map[string]any{"removed": gone}, err
}

// caPublish takes a bundle that was signed elsewhere; without one it signs the draft with the anchor on this machine.
func (h *house) caPublish(ctx context.Context, in CARequest) (any, error) {
	signed := in.Bundle
	if signed == nil {
		s, err := h.identity.SignBundle(ctx)
		if err != nil {
			return nil, err
		}
		signed = &s
	}
	if err := h.identity.PublishBundle(ctx, *signed, hostActor); err != nil {
		return nil, err
	}
	list, err := h.identity.Bundles(ctx, 0, 1)
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// inventory tells the stage that owns the software of a device, and the one that owns its trust.
func (h *house) inventory(ctx context.Context, rec gateway.Record) error {
	if err := h.update.Inventory(ctx, rec); err != nil {
		return err
	}
	var inv wire.Inventory
	if err := json.Unmarshal(rec.Body, &inv); err != nil {
		return problem.Invalid("This is not an inventory.").Because(err)
	}
	return h.identity.AckBundle(ctx, rec.Tenant, rec.Device, inv.Bundle)
}
