// SPDX-License-Identifier: AGPL-3.0-only

package tenant

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// hostRequest is what the administrator of the machine asks for.
type hostRequest struct {
	Tenant     string `json:"tenant"` // name or id
	Role       Role   `json:"role"`
	Name       string `json:"name"`        // of the token or the person; optional
	TTLSeconds int64  `json:"ttl_seconds"` // of a token; default one day
	Create     bool   `json:"create"`      // make the tenant if there is none
}

// HostHandler serves the administrator of the machine behind the unix socket, whose peer was checked before. It answers
// POST /token with a token, POST /invite with the path of an invitation (the way back in when every passkey is lost),
// and POST /setup with the path of a new setup link. Everything is audited as actor "host".
func (s *Service) HostHandler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, fn func(ctx context.Context, in hostRequest) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			var in hostRequest
			d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
			d.DisallowUnknownFields()
			err := d.Decode(&in)
			if err != nil {
				s.fail(w, r, problem.Invalid("The request is not valid JSON: %v.", err))
				return
			}
			out, err := fn(r.Context(), in)
			if err != nil {
				s.fail(w, r, err)
				return
			}
			s.answer(w, out)
		})
	}
	handle("POST /token", s.hostToken)
	handle("POST /invite", s.hostInvite)
	handle("POST /setup", func(ctx context.Context, _ hostRequest) (any, error) {
		path, err := s.SetupLink(ctx)
		return map[string]string{"path": path}, err
	})
	return mux
}

func (s *Service) hostToken(ctx context.Context, in hostRequest) (any, error) {
	name, err := checkName("tenant", in.Tenant)
	if err != nil {
		return nil, err
	}
	if in.TTLSeconds == 0 {
		in.TTLSeconds = 24 * 60 * 60
	}
	if in.TTLSeconds < 0 || in.TTLSeconds > int64(maxTokenLife/time.Second) {
		return nil, problem.Invalid("A token must end within a year and a day.").At("ttl_seconds")
	}
	if in.Name == "" {
		in.Name = "made on the host"
	}
	var t Token
	var text string
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		ten, err := s.ensureTenant(tx, name, KindHost, in.Create)
		if err != nil {
			return err
		}
		expires := s.cfg.Clock.Now().Add(time.Duration(in.TTLSeconds) * time.Second)
		t, text, err = s.CreateToken(tx, KindHost, in.Name, Grant{Role: in.Role, Tenant: ten.ID}, expires)
		return err
	})
	if err != nil {
		return nil, err
	}
	return map[string]string{"id": t.ID, "token": text, "tenant": t.Tenant, "expires": t.Expires.Format(time.RFC3339)}, nil
}

func (s *Service) hostInvite(ctx context.Context, in hostRequest) (any, error) {
	name, err := checkName("tenant", in.Tenant)
	if err != nil {
		return nil, err
	}
	var path string
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		ten, err := s.ensureTenant(tx, name, KindHost, in.Create)
		if err != nil {
			return err
		}
		path, err = s.Invite(tx, KindHost, in.Name, Grant{Role: in.Role, Tenant: ten.ID})
		return err
	})
	return map[string]string{"path": path}, err
}

// fail answers with a problem, and logs what failed inside.
func (s *Service) fail(w http.ResponseWriter, r *http.Request, err error) {
	if problem.Is(err, problem.KindInternal) {
		s.cfg.Log.ErrorContext(r.Context(), "request failed", "path", r.URL.Path, "err", err)
	}
	if wait, ok := api.RetryAfter(err); ok {
		w.Header().Set("Retry-After", wait)
	}
	api.ProblemOf(r.Context(), err).Write(w)
}

func (s *Service) answer(w http.ResponseWriter, out any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if err := json.NewEncoder(w).Encode(out); err != nil {
		s.cfg.Log.Warn("answer", "err", err)
	}
}
