// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/vuln/feed"
)

// feedRoutes registers the operations of feeds.
func (s *Service) feedRoutes(a *api.API) {
	read, write := string(tenant.VulnRead), string(tenant.FeedImport)
	api.Raw(a, api.Op{ID: "import-feed", Method: "POST", Path: "/v1/feeds/{name}", Verb: write, Stage: "vuln", MaxBody: feed.MaxBytes,
		Summary: "Import a feed: records (OSV, CVE List v5), KEV, EUVD, EPSS or CSAF, as published or in a zip, or a signed bundle",
		Doc:     "The body is the file itself. A feed with one broken record changes nothing. A bundle is taken only by a source of kind bundle, signed by one of its keys and newer than the last. Answers with what changed."}, s.postFeed)

	api.Handle(a, api.Op{ID: "list-feed-sources", Method: "GET", Path: "/v1/feed-sources", Verb: read, Stage: "vuln",
		Summary: "Sources of feeds and their health: last good look, age, error, next look"},
		func(ctx context.Context, _ *struct{}) (*api.List[FeedSource], error) {
			list, err := s.Sources(ctx, tenant.MustTenant(ctx))
			if err != nil {
				return nil, err
			}
			return api.Items(list), nil
		})

	type nameIn struct {
		Name string `path:"name" maxLength:"64"`
	}
	api.Handle(a, api.Op{ID: "get-feed-source", Method: "GET", Path: "/v1/feed-sources/{name}", Verb: read, Stage: "vuln",
		Summary: "One source and its last looks"},
		func(ctx context.Context, in *nameIn) (*api.Out[FeedSource], error) {
			x, err := s.Source(ctx, tenant.MustTenant(ctx), in.Name)
			if err != nil {
				return nil, err
			}
			return api.One(x), nil
		})

	type putIn struct {
		Name string `path:"name" maxLength:"64"`
		Body SourceIn
	}
	api.Handle(a, api.Op{ID: "put-feed-source", Method: "PUT", Path: "/v1/feed-sources/{name}", Verb: write, Stage: "vuln",
		Summary: "Set where a feed comes from; what is fetched is looked at at once"},
		func(ctx context.Context, in *putIn) (*api.Out[FeedSource], error) {
			t, actor, err := mayFeed(ctx)
			if err != nil {
				return nil, err
			}
			x, err := s.PutSource(ctx, t, actor, in.Name, in.Body)
			if err != nil {
				return nil, err
			}
			return api.One(x), nil
		})

	api.Handle(a, api.Op{ID: "delete-feed-source", Method: "DELETE", Path: "/v1/feed-sources/{name}", Verb: write, Stage: "vuln", Status: 204,
		Summary: "End a source; the records that it brought stay"},
		func(ctx context.Context, in *nameIn) (*struct{}, error) {
			t, actor, err := mayFeed(ctx)
			if err != nil {
				return nil, err
			}
			return nil, s.DeleteSource(ctx, t, actor, in.Name)
		})

	api.Handle(a, api.Op{ID: "sync-feed-source", Method: "POST", Path: "/v1/feed-sources/{name}/sync", Verb: write, Stage: "vuln", Status: 202,
		Summary: "Look at a source now"},
		func(ctx context.Context, in *nameIn) (*api.Out[FeedSource], error) {
			t, _, err := mayFeed(ctx)
			if err != nil {
				return nil, err
			}
			x, err := s.SyncNow(ctx, t, in.Name)
			if err != nil {
				return nil, err
			}
			return api.One(x), nil
		})
}

// mayFeed is the tenant and the actor, if the caller may bring in feeds.
func mayFeed(ctx context.Context) (t, actor string, err error) {
	t = tenant.MustTenant(ctx)
	a, _ := tenant.ActorFrom(ctx)
	return t, a.ID, tenant.Require(ctx, tenant.FeedImport, tenant.Thing{Tenant: t})
}

// postFeed keeps the upload in a file while it is judged: it may be larger than what a process should hold.
func (s *Service) postFeed(w http.ResponseWriter, r *http.Request) error {
	t, actor, err := mayFeed(r.Context())
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp("", "openthings-feed-")
	if err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	size, err := io.Copy(tmp, r.Body)
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return problem.TooLarge("The feed is larger than %d bytes.", tooLarge.Limit)
		}
		return problem.Invalid("The upload broke off.").Because(err)
	}
	done, err := s.Upload(r.Context(), t, actor, strings.ToLower(r.PathValue("name")), tmp, size)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(done)
}
