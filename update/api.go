// SPDX-License-Identifier: AGPL-3.0-only

package update

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/update/trust"
)

// ReleaseOut is a release with its checks and where it runs.
type ReleaseOut struct {
	Release
	Checks  []Check `json:"checks"`
	Devices int64   `json:"devices" doc:"How many devices run it now"`
	// Advised are the floors that it lies below.
	Advised []AdvisedFloor `json:"advised_against,omitempty" doc:"Floors that it lies below: it is deployed only if a person says why"`
}

// DeploymentOut is a deployment with what its devices did so far.
type DeploymentOut struct {
	Deployment
	Counts map[string]int64 `json:"counts" doc:"Devices that have begun, by state"`
}

// RootOut is the tenant's trust root in short; the document itself is what devices get.
type RootOut struct {
	Version     int64           `json:"version"`
	Expires     time.Time       `json:"expires"`
	RootKeys    []string        `json:"root_keys"`
	TargetsKeys []string        `json:"targets_keys"`
	Document    json.RawMessage `json:"document"`
}

func rootOut(r *trust.Root) RootOut {
	return RootOut{Version: r.Version, Expires: r.Expires, RootKeys: r.Roles[trust.RoleRoot].KeyIDs,
		TargetsKeys: r.Roles[trust.RoleTargets].KeyIDs, Document: r.Raw}
}

type idIn struct {
	ID string `path:"id" maxLength:"64"`
}

// Routes mounts the programs' door.
func (s *Service) Routes(a *api.API) {
	s.trustRoutes(a)
	s.releaseRoutes(a)
	s.deploymentRoutes(a)
}

func (s *Service) trustRoutes(a *api.API) {
	// Who may name the first root decides what every device of the tenant will trust: that is an owner's act.
	api.Raw(a, api.Op{ID: "set-trust-root", Method: "POST", Path: "/v1/trust/root", Verb: string(tenant.AccessWrite), Stage: "update", Status: 201, MaxBody: trust.MaxRoot,
		Summary: "Set the first update trust root, or follow it with its lawful successor",
		Doc:     "The body is root.json as `openthings sign init` made it. A successor must have the next version and be signed by the root keys before it."},
		func(w http.ResponseWriter, r *http.Request) error {
			ctx := r.Context()
			t := tenant.MustTenant(ctx)
			if err := tenant.Require(ctx, tenant.AccessWrite, tenant.Thing{Tenant: t}); err != nil {
				return err
			}
			doc, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			actor, _ := tenant.ActorFrom(ctx)
			root, err := s.SetTrustRoot(ctx, t, doc, actor.ID)
			if err != nil {
				return err
			}
			return writeJSON(w, http.StatusCreated, rootOut(root))
		})
	api.Handle(a, api.Op{ID: "get-trust-root", Method: "GET", Path: "/v1/trust/root", Verb: string(tenant.ReleaseRead), Stage: "update",
		Summary: "The update trust root that devices start with"},
		func(ctx context.Context, _ *struct{}) (*api.Out[RootOut], error) {
			doc, err := s.TrustRoot(ctx, tenant.MustTenant(ctx))
			if err != nil {
				return nil, err
			}
			if doc == nil {
				return nil, problem.NotFound("This tenant has no update trust root yet.").Hint("Run openthings sign init offline and send root.json here.")
			}
			root, err := trust.ParseRoot(doc)
			if err != nil {
				return nil, err
			}
			return api.One(rootOut(root)), nil
		})
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, err = w.Write(b)
	return err
}

func (s *Service) releaseRoutes(a *api.API) {
	api.Raw(a, api.Op{ID: "upload-release", Method: "POST", Path: "/v1/releases", Verb: string(tenant.ReleaseUpload), Stage: "update", Status: 201,
		MaxBody: MaxImage + trust.MaxTargets + sbom.MaxBytes + 1<<20, Summary: "Upload a signed release with its bill of materials",
		Doc: "multipart/form-data with the parts `targets` (targets.json as `openthings sign release` made it), `sbom` and `image`, in this order."},
		func(w http.ResponseWriter, r *http.Request) error {
			parts, err := r.MultipartReader()
			if err != nil {
				return problem.Invalid("The body must be multipart/form-data.").Because(err)
			}
			rel, err := s.Upload(r.Context(), parts)
			if err != nil {
				return err
			}
			w.Header().Set("Location", "/v1/releases/"+rel.ID)
			out, err := s.releaseOut(r.Context(), rel)
			if err != nil {
				return err
			}
			return writeJSON(w, http.StatusCreated, out)
		})

	type listIn struct {
		Product string `query:"product" maxLength:"64"`
	}
	api.Handle(a, api.Op{ID: "list-releases", Method: "GET", Path: "/v1/releases", Verb: string(tenant.ReleaseRead), Stage: "update", Summary: "Releases, the newest first"},
		func(ctx context.Context, in *listIn) (*api.List[Release], error) {
			list, err := s.readable(ctx, in.Product)
			if err != nil {
				return nil, err
			}
			return api.Items(list), nil
		})
	api.Handle(a, api.Op{ID: "get-release", Method: "GET", Path: "/v1/releases/{id}", Verb: string(tenant.ReleaseRead), Stage: "update", Summary: "A release with its checks"},
		func(ctx context.Context, in *idIn) (*api.Out[ReleaseOut], error) {
			r, err := s.release(ctx, tenant.ReleaseRead, in.ID)
			if err != nil {
				return nil, err
			}
			return s.answer(ctx, r)
		})
	api.Handle(a, api.Op{ID: "publish-release", Method: "POST", Path: "/v1/releases/{id}/publish", Verb: string(tenant.ReleasePublish), Stage: "update",
		Summary: "Publish a release whose checks have all passed"},
		func(ctx context.Context, in *idIn) (*api.Out[ReleaseOut], error) {
			r, err := s.publish(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			return s.answer(ctx, r)
		})
	type withdrawIn struct {
		ID   string `path:"id" maxLength:"64"`
		Body struct {
			Reason string `json:"reason" minLength:"1" maxLength:"2000"`
		}
	}
	api.Handle(a, api.Op{ID: "withdraw-release", Method: "POST", Path: "/v1/releases/{id}/withdraw", Verb: string(tenant.ReleasePublish), Stage: "update",
		Summary: "Withdraw a release: its deployments end, nobody gets it any more"},
		func(ctx context.Context, in *withdrawIn) (*api.Out[ReleaseOut], error) {
			r, err := s.withdraw(ctx, in.ID, in.Body.Reason)
			if err != nil {
				return nil, err
			}
			return s.answer(ctx, r)
		})
}

func (s *Service) deploymentRoutes(a *api.API) {
	type startIn struct {
		Body struct {
			Release  string  `json:"release" maxLength:"64"`
			Solution string  `json:"solution,omitempty" maxLength:"64" doc:"Only devices of this solution and of what lies below it; empty: all of the release's product"`
			Waves    []int64 `json:"waves,omitempty" doc:"Rising percentages that end with 100; default 10, 100"`
			Override string  `json:"override,omitempty" maxLength:"2000" doc:"Why a release below the advised floor is deployed all the same (rule update.floor.advised); kept in the audit log"`
		}
	}
	api.Handle(a, api.Op{ID: "start-deployment", Method: "POST", Path: "/v1/deployments", Verb: string(tenant.DeploymentWrite), Stage: "update", Status: 201,
		Summary: "Bring a published release to devices, in waves"},
		func(ctx context.Context, in *startIn) (*api.Out[DeploymentOut], error) {
			d, err := s.start(ctx, in.Body.Release, in.Body.Solution, in.Body.Waves, in.Body.Override)
			if err != nil {
				return nil, err
			}
			out := api.One(DeploymentOut{Deployment: d, Counts: map[string]int64{}})
			out.Location = "/v1/deployments/" + d.ID
			return out, nil
		})
	type listIn struct {
		Release string `query:"release" maxLength:"64"`
	}
	api.Handle(a, api.Op{ID: "list-deployments", Method: "GET", Path: "/v1/deployments", Verb: string(tenant.ReleaseRead), Stage: "update", Summary: "Deployments, the newest first"},
		func(ctx context.Context, in *listIn) (*api.List[Deployment], error) {
			list, err := s.readableDeployments(ctx, in.Release)
			if err != nil {
				return nil, err
			}
			return api.Items(list), nil
		})
	api.Handle(a, api.Op{ID: "get-deployment", Method: "GET", Path: "/v1/deployments/{id}", Verb: string(tenant.ReleaseRead), Stage: "update", Summary: "A deployment, its waves and counts"},
		func(ctx context.Context, in *idIn) (*api.Out[DeploymentOut], error) {
			d, err := s.deployment(ctx, tenant.ReleaseRead, in.ID)
			if err != nil {
				return nil, err
			}
			return s.deploymentAnswer(ctx, d.ID)
		})
	api.Handle(a, api.Op{ID: "list-deployment-updates", Method: "GET", Path: "/v1/deployments/{id}/updates", Verb: string(tenant.ReleaseRead), Stage: "update",
		Summary: "The latest 1,000 devices that have begun, with their outcome"},
		func(ctx context.Context, in *idIn) (*api.List[Update], error) {
			d, err := s.deployment(ctx, tenant.ReleaseRead, in.ID)
			if err != nil {
				return nil, err
			}
			list, err := updatesOf(ctx, s.cfg.DB, d.Tenant, d.ID, "", 1000)
			if err != nil {
				return nil, err
			}
			return api.Items(list), nil
		})
	for _, act := range []struct{ verb, to, summary string }{
		{"pause", Paused, "Pause a deployment: no further device begins"},
		{"resume", Running, "Resume a paused deployment"},
		{"abort", Aborted, "End a deployment for good"},
	} {
		api.Handle(a, api.Op{ID: act.verb + "-deployment", Method: "POST", Path: "/v1/deployments/{id}/" + act.verb, Verb: string(tenant.DeploymentWrite), Stage: "update", Summary: act.summary},
			func(ctx context.Context, in *idIn) (*api.Out[DeploymentOut], error) {
				if err := s.steer(ctx, in.ID, act.to); err != nil {
					return nil, err
				}
				return s.deploymentAnswer(ctx, in.ID)
			})
	}
}

// answer is the API's form of a release.
func (s *Service) answer(ctx context.Context, r Release) (*api.Out[ReleaseOut], error) {
	out, err := s.releaseOut(ctx, r)
	if err != nil {
		return nil, err
	}
	return api.One(out), nil
}

func (s *Service) releaseOut(ctx context.Context, r Release) (ReleaseOut, error) {
	checks, err := s.Checks(ctx, r.Tenant, r.ID)
	if err != nil {
		return ReleaseOut{}, err
	}
	counts, err := s.cfg.Fleet.CountByRelease(ctx, r.Tenant)
	if err != nil {
		return ReleaseOut{}, err
	}
	advised, err := s.againstRelease(ctx, r)
	return ReleaseOut{Release: r, Checks: checks, Devices: counts[r.ID], Advised: advised}, err
}

func (s *Service) deploymentAnswer(ctx context.Context, id string) (*api.Out[DeploymentOut], error) {
	t := tenant.MustTenant(ctx)
	d, err := s.Deployment(ctx, t, id)
	if err != nil {
		return nil, err
	}
	waves, err := countWaves(ctx, s.cfg.DB, t, id)
	if err != nil {
		return nil, err
	}
	counts := map[string]int64{}
	for _, states := range waves {
		for state, n := range states {
			counts[state] += n
		}
	}
	return api.One(DeploymentOut{Deployment: d, Counts: counts}), nil
}
