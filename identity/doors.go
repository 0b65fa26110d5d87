// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"net/http"
	"strconv"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
)

// TrustDoors mounts the trust bundles on the device door. They need no certificate: a bundle proves itself, and a device
// that knows nothing of today must be able to ask.
func (s *Service) TrustDoors(g *gateway.Gateway) {
	g.Route("GET /d/1/trust", gateway.None, func(w http.ResponseWriter, r *http.Request, _ gateway.Peer) { s.serveBundle(w, r, 0) })
	g.Route("GET /d/1/trust/{version}", gateway.None, func(w http.ResponseWriter, r *http.Request, _ gateway.Peer) {
		version, err := strconv.ParseInt(r.PathValue("version"), 10, 64)
		if err != nil || version < 1 {
			gateway.WriteProblem(w, problem.Invalid("The version of a trust bundle is a number from 1 on."))
			return
		}
		s.serveBundle(w, r, version)
	})
}

// serveBundle answers with the signed bytes. A version never changes, so it may be kept for ever; the newest only for
// a minute.
func (s *Service) serveBundle(w http.ResponseWriter, r *http.Request, version int64) {
	b, signed, err := s.Bundle(r.Context(), version)
	if err != nil {
		gateway.WriteProblem(w, err)
		return
	}
	keep := "public, max-age=60"
	if version > 0 {
		keep = "public, max-age=31536000, immutable"
	}
	tag := `"` + strconv.FormatInt(b.Version, 10) + `"`
	w.Header().Set("Cache-Control", keep)
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(signed) //nolint:errcheck // nothing can be said to a peer that is gone
}
