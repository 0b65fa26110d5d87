// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

type trustedCAIn struct {
	Body struct {
		Name         string    `json:"name" maxLength:"120"`
		Certificates string    `json:"certificates" maxLength:"65536" doc:"PEM: the CA, then authorities below it"`
		Quota        int64     `json:"quota" minimum:"1" maximum:"100000000" doc:"How many devices it may bring"`
		Expires      time.Time `json:"expires,omitzero" required:"false" doc:"It brings nobody new afterwards"`
		Policy       CAPolicy  `json:"policy"`
	}
}

type proofIn struct {
	ID   string `path:"id"`
	Body struct {
		Proof string `json:"proof" maxLength:"65536" doc:"PEM: a certificate that the CA signed, or a request with the CA's own key, with the code as common name"`
	}
}

type previewIn struct {
	Body struct {
		Mapping     Mapping `json:"mapping"`
		Certificate string  `json:"certificate" maxLength:"65536" doc:"PEM of a sample"`
	}
}

type reasonedIn struct {
	ID   string `path:"id"`
	Body struct {
		Reason string `json:"reason" minLength:"1" maxLength:"500"`
	}
}

type limitIn struct {
	ID   string `path:"id"`
	Body struct {
		Quota  int64  `json:"quota" minimum:"1" doc:"How many devices it may bring, those that it has brought included"`
		Reason string `json:"reason" minLength:"1" maxLength:"500"`
	}
}

// TrustedCAOut is a trusted CA with its revocation lists.
type TrustedCAOut struct {
	TrustedCA
	Lists []RevocationList `json:"lists,omitempty"`
}

type tokenIn struct {
	Body struct {
		Name        string    `json:"name" maxLength:"120"`
		Revision    string    `json:"revision" doc:"Hardware revision of the devices"`
		Quota       int64     `json:"quota,omitempty" required:"false" minimum:"0" maximum:"100000" doc:"How often it may be used; default once"`
		Expires     time.Time `json:"expires,omitzero" required:"false" doc:"Within a year; default in 24 hours"`
		Pattern     string    `json:"pattern,omitempty" required:"false" maxLength:"200" doc:"Regular expression (RE2) that the whole serial number must match"`
		Listed      bool      `json:"listed,omitempty" required:"false" doc:"Only preauthorised serial numbers"`
		Solution    string    `json:"solution,omitempty" required:"false" doc:"Devices go straight into it; empty: they wait in the lobby"`
		Certificate string    `json:"certificate,omitempty" required:"false" maxLength:"65536" doc:"PEM of a claim certificate that takes the place of the secret, and of a certificate request by its key whose common name is the tenant's id; demands listed"`
	}
}

// CreatedToken is a new enrolment token with its text.
type CreatedToken struct {
	Token
	Text string `json:"token,omitempty" doc:"Shown this once; the password of HTTP basic authentication, or a bearer token. Empty for a claim certificate"`
}

type tokensIn struct{ api.Paging }

type clonesIn struct {
	api.Paging
	All bool `query:"all" doc:"Those that were decided too"`
}

type decideIn struct {
	ID   string `path:"id"`
	Body struct {
		Genuine string `json:"genuine" doc:"Id of the genuine device: it goes on, the others are barred for ever. none: all are barred. false-alarm: all go on. One that was suspended loses its LDevIDs and enrols anew"`
		Reason  string `json:"reason" minLength:"1" maxLength:"500"`
	}
}

func (s *Service) admissionRoutes(a *api.API) {
	s.trustedCARoutes(a)
	s.tokenRoutes(a)
	s.cloneRoutes(a)
}

func (s *Service) trustedCARoutes(a *api.API) {
	read, write := string(tenant.EnrolRead), string(tenant.EnrolWrite)
	one := func(c TrustedCA, err error) (*api.Out[TrustedCAOut], error) {
		return api.One(TrustedCAOut{TrustedCA: c}), err
	}
	api.Handle(a, api.Op{ID: "list-trusted-cas", Method: "GET", Path: "/v1/trusted-cas", Verb: read, Stage: stage,
		Summary: "List the manufacturer CAs whose devices register themselves"}, func(ctx context.Context, _ *struct{}) (*api.List[TrustedCA], error) {
		t, _, err := tenant.Whole(ctx, tenant.EnrolRead)
		if err != nil {
			return nil, err
		}
		cas, err := s.TrustedCAs(ctx, t)
		return api.Items(cas), err
	})
	api.Handle(a, api.Op{ID: "get-trusted-ca", Method: "GET", Path: "/v1/trusted-cas/{id}", Verb: read, Stage: stage,
		Summary: "Read a trusted CA with its revocation lists"}, func(ctx context.Context, in *byID) (*api.Out[TrustedCAOut], error) {
		t, _, err := tenant.Whole(ctx, tenant.EnrolRead)
		if err != nil {
			return nil, err
		}
		c, err := s.TrustedCA(ctx, t, in.ID)
		if err != nil {
			return nil, err
		}
		ls, err := s.CRLs(ctx, c)
		return api.One(TrustedCAOut{c, ls}), err
	})
	api.Handle(a, api.Op{ID: "add-trusted-ca", Method: "POST", Path: "/v1/trusted-cas", Verb: write, Stage: stage, Status: 201,
		Summary: "Upload a manufacturer's CA; it counts once its key is proven with the code in the answer"}, func(ctx context.Context, in *trustedCAIn) (*api.Out[TrustedCAOut], error) {
		t, who, err := tenant.Whole(ctx, tenant.EnrolWrite)
		if err != nil {
			return nil, err
		}
		b := in.Body
		return one(s.AddTrustedCA(ctx, TrustedCA{Tenant: t, Name: b.Name, Quota: b.Quota, Expires: b.Expires, Policy: b.Policy}, b.Certificates, who))
	})
	api.Handle(a, api.Op{ID: "prove-trusted-ca", Method: "POST", Path: "/v1/trusted-cas/{id}/prove", Verb: write, Stage: stage,
		Summary: "Prove possession of the CA's key; from then on its devices register themselves"}, func(ctx context.Context, in *proofIn) (*api.Out[TrustedCAOut], error) {
		t, who, err := tenant.Whole(ctx, tenant.EnrolWrite)
		if err != nil {
			return nil, err
		}
		return one(s.ProveTrustedCA(ctx, t, in.ID, in.Body.Proof, who))
	})
	api.Handle(a, api.Op{ID: "renew-trusted-ca-code", Method: "POST", Path: "/v1/trusted-cas/{id}/code", Verb: write, Stage: stage,
		Summary: "Make a new code for the proof"}, func(ctx context.Context, in *byID) (*api.Out[TrustedCAOut], error) {
		t, _, err := tenant.Whole(ctx, tenant.EnrolWrite)
		if err != nil {
			return nil, err
		}
		return one(s.RenewCode(ctx, t, in.ID))
	})
	for _, m := range []struct {
		word, summary string
		to            CAState
	}{
		{"suspend", "Let the CA bring nobody new for now; its devices stay", CASuspended},
		{"resume", "Let the CA bring devices again", CAActive},
		{"retire", "Let the CA bring nobody new for ever; its devices stay", CARetired},
	} {
		api.Handle(a, api.Op{ID: m.word + "-trusted-ca", Method: "POST", Path: "/v1/trusted-cas/{id}/" + m.word, Verb: write, Stage: stage, Summary: m.summary},
			func(ctx context.Context, in *reasonedIn) (*api.Out[TrustedCAOut], error) {
				t, who, err := tenant.Whole(ctx, tenant.EnrolWrite)
				if err != nil {
					return nil, err
				}
				return one(s.MoveTrustedCA(ctx, t, in.ID, m.to, in.Body.Reason, who))
			})
	}
	api.Handle(a, api.Op{ID: "limit-trusted-ca", Method: "POST", Path: "/v1/trusted-cas/{id}/quota", Verb: write, Stage: stage,
		Summary: "Set how many devices the CA may bring"}, func(ctx context.Context, in *limitIn) (*api.Out[TrustedCAOut], error) {
		t, who, err := tenant.Whole(ctx, tenant.EnrolWrite)
		if err != nil {
			return nil, err
		}
		return one(s.LimitTrustedCA(ctx, t, in.ID, in.Body.Quota, in.Body.Reason, who))
	})
	api.Handle(a, api.Op{ID: "revoke-trusted-ca", Method: "POST", Path: "/v1/trusted-cas/{id}/revoke", Verb: write, Stage: stage,
		Summary: "Retire the CA and refuse everything that it brought, at once and for ever"}, func(ctx context.Context, in *reasonedIn) (*api.Out[TrustedCAOut], error) {
		t, who, err := tenant.Whole(ctx, tenant.EnrolWrite)
		if err != nil {
			return nil, err
		}
		return one(s.RevokeTrustedCA(ctx, t, in.ID, in.Body.Reason, who))
	})
	api.Handle(a, api.Op{ID: "preview-mapping", Method: "POST", Path: "/v1/trusted-cas/preview", Verb: read, Stage: stage,
		Summary: "Say what a mapping reads out of a sample certificate; changes nothing"}, func(ctx context.Context, in *previewIn) (*api.Out[Mapped], error) {
		if _, _, err := tenant.Whole(ctx, tenant.EnrolRead); err != nil {
			return nil, err
		}
		m, err := previewMapping(in.Body.Mapping, in.Body.Certificate)
		return api.One(m), err
	})
	api.Raw(a, api.Op{ID: "import-trusted-crl", Method: "POST", Path: "/v1/trusted-cas/{id}/crl", Verb: write, Stage: stage, MaxBody: MaxCRL,
		Summary: "Import a revocation list (DER or PEM) of a trusted CA; devices that it names are suspended at once"}, func(w http.ResponseWriter, r *http.Request) error {
		t, who, err := tenant.Whole(r.Context(), tenant.EnrolWrite)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return problem.Invalid("The list breaks off.").Because(err)
		}
		l, err := s.ImportCRL(r.Context(), t, r.PathValue("id"), b, who)
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(l)
	})
	api.Raw(a, api.Op{ID: "block-keys", Method: "POST", Path: "/v1/blocked-keys", Verb: write, Stage: stage, MaxBody: identity.MaxBlockList,
		Summary: "Block public keys: one SHA-256 of a subject public key info a line, at least 30 hex digits; the query says why (reason)"}, func(w http.ResponseWriter, r *http.Request) error {
		t, who, err := tenant.Whole(r.Context(), tenant.EnrolWrite)
		if err != nil {
			return err
		}
		n, err := s.cfg.Identity.BlockKeys(r.Context(), t, r.Body, r.URL.Query().Get("reason"), who)
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(map[string]int{"blocked": n})
	})
}

// previewMapping reads a sample.
func previewMapping(m Mapping, text string) (Mapped, error) {
	if err := m.check(); err != nil {
		return Mapped{}, err
	}
	b, _ := pem.Decode(bytes.TrimSpace([]byte(text)))
	if b == nil {
		return Mapped{}, problem.Invalid("The sample is no certificate in PEM.").At("certificate")
	}
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		return Mapped{}, problem.Invalid("The sample cannot be read.").At("certificate").Because(err)
	}
	return m.Read(c)
}

func (s *Service) tokenRoutes(a *api.API) {
	read, write := string(tenant.EnrolRead), string(tenant.EnrolWrite)
	api.Handle(a, api.Op{ID: "list-enrol-tokens", Method: "GET", Path: "/v1/enrol-tokens", Verb: read, Stage: stage,
		Summary: "List enrolment tokens"}, func(ctx context.Context, in *tokensIn) (*api.List[Token], error) {
		t, _, err := tenant.Whole(ctx, tenant.EnrolRead)
		if err != nil {
			return nil, err
		}
		after, err := in.After(a)
		if err != nil {
			return nil, err
		}
		ts, err := s.Tokens(ctx, t, after, in.Size()+1)
		if err != nil {
			return nil, err
		}
		return api.More(a, in.Paging, ts, func(t Token) string { return t.ID }), nil
	})
	api.Handle(a, api.Op{ID: "create-enrol-token", Method: "POST", Path: "/v1/enrol-tokens", Verb: write, Stage: stage, Status: 201, Secret: true,
		Summary: "Make an enrolment token, or admit a claim certificate: exchanged for a device's own certificate"}, func(ctx context.Context, in *tokenIn) (*api.Out[CreatedToken], error) {
		t, who, err := tenant.Whole(ctx, tenant.EnrolWrite)
		if err != nil {
			return nil, err
		}
		b := in.Body
		if b.Quota == 0 {
			b.Quota = 1
		}
		if b.Expires.IsZero() {
			b.Expires = s.now().Add(24 * time.Hour)
		}
		made, text, err := s.CreateToken(ctx, Token{Tenant: t, Name: b.Name, Revision: b.Revision, Quota: b.Quota, Expires: b.Expires, Pattern: b.Pattern, Listed: b.Listed, Solution: b.Solution}, b.Certificate, who)
		return api.One(CreatedToken{made, text}), err
	})
	api.Handle(a, api.Op{ID: "revoke-enrol-token", Method: "POST", Path: "/v1/enrol-tokens/{id}/revoke", Verb: write, Stage: stage,
		Summary: "End an enrolment token at once"}, func(ctx context.Context, in *reasonedIn) (*api.Out[Token], error) {
		t, who, err := tenant.Whole(ctx, tenant.EnrolWrite)
		if err != nil {
			return nil, err
		}
		tok, err := s.RevokeToken(ctx, t, in.ID, in.Body.Reason, who)
		return api.One(tok), err
	})
}

func (s *Service) cloneRoutes(a *api.API) {
	read, write := string(tenant.EnrolRead), string(tenant.DeviceSuspend)
	api.Handle(a, api.Op{ID: "list-clones", Method: "GET", Path: "/v1/clones", Verb: read, Stage: stage,
		Summary: "List suspected clones; their devices are suspended"}, func(ctx context.Context, in *clonesIn) (*api.List[Clone], error) {
		t, _, err := tenant.Whole(ctx, tenant.EnrolRead)
		if err != nil {
			return nil, err
		}
		after, err := in.After(a)
		if err != nil {
			return nil, err
		}
		cs, err := s.Clones(ctx, t, !in.All, after, in.Size()+1)
		if err != nil {
			return nil, err
		}
		return api.More(a, in.Paging, cs, func(c Clone) string { return c.ID }), nil
	})
	api.Handle(a, api.Op{ID: "get-clone", Method: "GET", Path: "/v1/clones/{id}", Verb: read, Stage: stage,
		Summary: "Read a suspected clone: what was seen where"}, func(ctx context.Context, in *byID) (*api.Out[Clone], error) {
		t, _, err := tenant.Whole(ctx, tenant.EnrolRead)
		if err != nil {
			return nil, err
		}
		c, err := s.Clone(ctx, t, in.ID)
		return api.One(c), err
	})
	api.Handle(a, api.Op{ID: "decide-clone", Method: "POST", Path: "/v1/clones/{id}/decide", Verb: write, Stage: stage,
		Summary: "Say which device is genuine: it is resumed and enrols anew, the others are barred for ever"}, func(ctx context.Context, in *decideIn) (*api.Out[Clone], error) {
		t, who, err := tenant.Whole(ctx, tenant.DeviceSuspend)
		if err != nil {
			return nil, err
		}
		c, err := s.Decide(ctx, t, in.ID, in.Body.Genuine, in.Body.Reason, who)
		return api.One(c), err
	})
}
