// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"encoding/json"
	"log/slog"
	"net"
	"net/http"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
)

// ElsewhereRequest asks the MQTT door to send its devices to another one (POST /elsewhere on the host socket).
type ElsewhereRequest struct {
	Server string `json:"server"`          // host:port; empty: devices may stay again
	Moved  bool   `json:"moved,omitempty"` // for good
	Pace   int    `json:"pace,omitempty"`  // devices a second; 0: all at once
}

// ElsewhereAnswer says how many devices were sent away.
type ElsewhereAnswer struct {
	Told int `json:"told"`
}

// sendElsewhere is the host's way to empty this node before it is stopped.
func (h *house) sendElsewhere(w http.ResponseWriter, r *http.Request) {
	var in ElsewhereRequest
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		gateway.WriteProblem(w, problem.Invalid("The request is not valid JSON.").Because(err))
		return
	}
	if in.Pace < 0 {
		gateway.WriteProblem(w, problem.Invalid("A pace is at least one device a second.").At("pace"))
		return
	}
	to, err := elsewhere(in.Server, in.Moved)
	if err != nil {
		gateway.WriteProblem(w, err)
		return
	}
	h.cfg.Log.InfoContext(r.Context(), "devices are sent to another door", slog.String("server", in.Server), slog.Bool("moved", in.Moved), slog.Int("pace", in.Pace))
	told, err := h.gateway.SendElsewhere(r.Context(), to, in.Pace)
	if err != nil {
		gateway.WriteProblem(w, problem.Unavailable("The order was broken off after %d devices; new ones are still sent away.", told).Because(err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(ElsewhereAnswer{told}) //nolint:errcheck // nobody to tell
}

// elsewhere checks where devices are sent; nil: nowhere.
func elsewhere(server string, moved bool) (*gateway.Elsewhere, error) {
	if server == "" {
		return nil, nil
	}
	if host, port, err := net.SplitHostPort(server); err != nil || host == "" || port == "" {
		return nil, problem.Invalid("%q is no host:port.", server).At("server")
	}
	return &gateway.Elsewhere{Server: server, Moved: moved}, nil
}
