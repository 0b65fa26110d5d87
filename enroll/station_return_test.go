// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/enroll/station"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire"
)

// online opens a station that works with the platform, in the folder.
func (h *house) online(dir, batch string, window time.Duration) {
	h.t.Helper()
	ask, err := station.Prepare(dir, "line 3", false, h.clock.Now())
	h.must(err)
	code, s := h.call("POST", "/v1/stations", map[string]any{"batch": batch, "name": "line 3", "hours": window.Hours(), "csr": ask.CSR})
	if code != 201 {
		h.t.Fatalf("station: %d %v", code, s)
	}
	expires, err := time.Parse(time.RFC3339, s["expires"].(string))
	h.must(err)
	h.must(station.Install(dir, station.Config{ID: s["id"].(string), Name: "line 3", Batch: batch, Expires: expires, Devices: h.door}, s["certificate"].(string), string(h.identity.Roots()), ""))
}

// A station that works renews its certificate when a third of its life is left, and not at the end of its window.
func TestStationIsDue(t *testing.T) {
	h := lite(t)
	dir := filepath.Join(t.TempDir(), "line3")
	h.online(dir, h.newBatch("B1", 10), 36*time.Hour)
	for i, row := range []struct {
		after time.Duration
		due   bool
	}{{15 * time.Hour, false}, {2 * time.Hour, true}, {time.Hour, false}, {17 * time.Hour, false}} { // the last certificate ends with the window
		h.clock.Advance(row.after)
		h.at(dir, func(s *station.Station) {
			if _, err := s.MakeOnline(t.Context(), wire.LineRequest{Serial: fmt.Sprint("L", i), CSR: csrPEM(t, newKey(t))}); err != nil {
				t.Fatalf("%d: %v", i, err)
			}
			if s.Due() != row.due {
				t.Errorf("%d: due: %v, its certificate ends %s", i, s.Due(), s.Status().Certificate)
			}
			if s.Due() {
				h.must(s.Renew(t.Context()))
			}
		})
	}
}

// A station whose certificate ended while it was switched off comes back when somebody admits it anew, and by nothing that lies
// in its folder: whoever took it, or an old copy of it, has the same folder.
func TestStationComesBackByApproval(t *testing.T) {
	h := lite(t)
	dir, batch := filepath.Join(t.TempDir(), "line3"), h.newBatch("B1", 10)
	h.online(dir, batch, enroll.MaxWindow)
	if _, err := station.Prepare(dir, "line 3", false, h.clock.Now()); !problem.Is(err, problem.KindConflict) {
		t.Errorf("the folder of a station at work: %v", err)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	h.must(os.CopyFS(copied, os.DirFS(dir)))
	h.must(os.Chmod(copied, 0o700))
	h.clock.Advance(60 * time.Hour) // a weekend
	var id string
	ended := func(dir string) {
		t.Helper()
		h.at(dir, func(s *station.Station) {
			id = s.ID
			_, err := s.MakeOnline(t.Context(), wire.LineRequest{Serial: "L1", CSR: csrPEM(t, newKey(t))})
			for _, err := range []error{err, s.Renew(t.Context())} {
				if !problem.Is(err, problem.KindPrecondition) {
					t.Fatalf("a certificate that has ended: %v", err)
				}
				p := problem.Of(err)
				for _, want := range []string{"ended on ", "openthings station open --dir " + dir + " --batch " + batch + ` --name "line 3"`, "openthings station kill " + s.ID} {
					if !strings.Contains(p.Text+p.Help, want) {
						t.Errorf("%q says nothing of %q", p.Text+" "+p.Help, want)
					}
				}
			}
		})
	}
	ended(dir)
	before := id
	h.online(dir, batch, 24*time.Hour) // as it was told
	h.at(dir, func(s *station.Station) {
		if _, err := s.MakeOnline(t.Context(), wire.LineRequest{Serial: "L1", CSR: csrPEM(t, newKey(t))}); err != nil || s.ID == before {
			t.Errorf("admitted anew as %s: %v", s.ID, err)
		}
	})
	ended(copied)
}
