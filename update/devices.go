// SPDX-License-Identifier: AGPL-3.0-only

package update

import (
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// DeviceRoutes mounts what devices fetch over HTTPS. Each route takes the tenant and the device from the certificate.
func (s *Service) DeviceRoutes(g *gateway.Gateway) {
	g.Route("GET /d/1/trust/root.json", gateway.LDevID, s.refusing(s.serveRoot))
	g.Route("GET /d/1/ota/{release}/targets.json", gateway.LDevID, s.refusing(s.serveTargets))
	g.Route("GET /d/1/blob/{sha256}", gateway.LDevID, s.refusing(s.serveBlob))
}

// refusing turns an error into its status and one line of text: devices read no more than that.
func (s *Service) refusing(h func(http.ResponseWriter, *http.Request, gateway.Peer) error) func(http.ResponseWriter, *http.Request, gateway.Peer) {
	return func(w http.ResponseWriter, r *http.Request, p gateway.Peer) {
		err := h(w, r, p)
		if err == nil {
			return
		}
		e := problem.Of(err)
		if e.Kind == problem.KindInternal {
			s.cfg.Log.ErrorContext(r.Context(), "device request failed", "path", r.URL.Path, "device", p.Device, "error", err)
		}
		http.Error(w, e.Text, problem.Kinds[e.Kind].Status)
	}
}

// serveRoot answers with the latest root, or with ?version=N with exactly that one: a device follows the chain step by step.
func (s *Service) serveRoot(w http.ResponseWriter, r *http.Request, p gateway.Peer) error {
	var doc []byte
	var err error
	if v := r.URL.Query().Get("version"); v != "" {
		n, perr := strconv.ParseInt(v, 10, 64)
		if perr != nil {
			return problem.Invalid("%q is not a version.", v)
		}
		doc, err = rootAt(r.Context(), s.cfg.DB, p.Tenant, n)
	} else {
		doc, err = latestRoot(s.cfg.DB.QueryRow, r.Context(), p.Tenant)
	}
	if errors.Is(err, store.ErrNoRows) {
		return problem.NotFound("There is no such root.")
	}
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(doc) // to a device that went away nothing can be told
	return nil
}

func (s *Service) serveTargets(w http.ResponseWriter, r *http.Request, p gateway.Peer) error {
	rel, err := s.forDevice(r, p, r.PathValue("release"))
	if err != nil {
		return err
	}
	doc, err := s.SignedTargets(r.Context(), rel)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(doc) // to a device that went away nothing can be told
	return nil
}

// forDevice returns a release that the device may know of: published, and of its own product.
func (s *Service) forDevice(r *http.Request, p gateway.Peer, release string) (Release, error) {
	rel, err := s.Get(r.Context(), p.Tenant, release)
	if err != nil {
		return Release{}, err
	}
	d, err := s.cfg.Identity.Get(r.Context(), p.Tenant, p.Device)
	if err != nil {
		return Release{}, err
	}
	if rel.State != Published || rel.Product != d.Product {
		return Release{}, problem.NotFound("There is no such release.")
	}
	return rel, nil
}

var hexDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (s *Service) serveBlob(w http.ResponseWriter, r *http.Request, p gateway.Peer) error {
	sum := r.PathValue("sha256")
	if !hexDigest.MatchString(sum) {
		return problem.Invalid("An image is named by 64 lower-case hex digits.")
	}
	known, err := s.ByImage(r.Context(), p.Tenant, "sha256:"+sum)
	if err != nil {
		return err
	}
	rel, err := s.forDevice(r, p, known.ID)
	if err != nil {
		return err
	}
	f, err := s.cfg.Blobs.Open(r.Context(), rel.Image)
	if err != nil {
		return err
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+sum+`"`)
	http.ServeContent(w, r, "", time.Time{}, f) // answers Range and If-Range
	return nil
}
