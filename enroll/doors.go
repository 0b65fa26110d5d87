// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"errors"
	"io"
	"log/slog"
	"net/http"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
)

// Doors mounts the line and EST routes on the device door. Which certificate opens each is part of the route.
func (s *Service) Doors(g *gateway.Gateway) {
	mount := func(pattern string, need gateway.Kind, h func(http.ResponseWriter, *http.Request, gateway.Peer) error, also ...gateway.Kind) {
		g.Route(pattern, need, func(w http.ResponseWriter, r *http.Request, p gateway.Peer) {
			if err := h(w, r, p); err != nil {
				s.fail(w, r, p, err)
			}
		}, also...)
	}
	mount("POST /d/1/line/devices", gateway.Station, s.line)
	mount("POST /d/1/line/renew", gateway.Station, s.renew)
	mount("GET /d/1/line/journal", gateway.Station, s.journalState)
	mount("POST /d/1/line/journal", gateway.Station, s.journal)
	mount("GET /d/1/time", gateway.None, s.time)
	mount("POST /d/1/baseline", gateway.IDevID, s.baselineReport, gateway.LDevID)
	mount("POST /d/1/attest/challenge", gateway.IDevID, s.attestChallenge, gateway.LDevID, gateway.Lapsed)
	mount("POST /d/1/attest/answer", gateway.IDevID, s.attestAnswer, gateway.LDevID, gateway.Lapsed)
	s.estDoors(g)
}

// body reads at most limit bytes.
func body(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return nil, problem.TooLarge("The body is larger than %d bytes.", limit)
	}
	if err != nil {
		return nil, problem.Invalid("The body broke off.").Because(err)
	}
	return b, nil
}

// tells bounds how often one device says of itself how it is set up or where its key lies: what changes is a leaf of the log
// for ever, and a device that is faulty or captured could change its mind all day. An honest one reports at a start and once
// a day, and proves a key when it asks for a certificate.
var tells = api.Limits{PerSecond: 1.0 / 60, Burst: 60}

// challengeCost is what a challenge takes of it: there is a row and a leaf for each proof.
const challengeCost = 5

func (s *Service) fail(w http.ResponseWriter, r *http.Request, p gateway.Peer, err error) {
	if wait, ok := api.RetryAfter(err); ok {
		w.Header().Set("Retry-After", wait)
	}
	if problem.Kinds[problem.Of(err).Kind].Status >= 500 {
		s.cfg.Log.ErrorContext(r.Context(), "request of a device failed", slog.String("path", r.URL.Path), slog.String("device", p.Device+p.Station), slog.Any("error", err))
	}
	gateway.WriteProblem(w, err)
}
