// SPDX-License-Identifier: AGPL-3.0-only

package tenant

import (
	"context"
	"errors"
	"strings"

	"github.com/openthings-platform/openthings/store"
)

// Acting returns who has the id, with the rights that it holds now, for work that goes on in its name when it has left:
// what was taken from it meanwhile is taken from that work too. A person that was removed and a token that was revoked or
// has expired are there and may do nothing; so is an id that the tenant does not know.
func (s *Service) Acting(ctx context.Context, tenant, id string) (Actor, error) {
	a, over := Actor{ID: id, Kind: KindPerson, Tenant: tenant}, false
	var err error
	if strings.HasPrefix(id, "tok_") {
		a.Kind = KindToken
		var revoked, expires int64
		err = s.cfg.DB.QueryRow(ctx, `SELECT name, revoked, expires FROM token WHERE tenant = $1 AND id = $2`, tenant, id).Scan(&a.Name, &revoked, &expires)
		over = revoked != 0 || !s.cfg.Clock.Now().Before(store.Time(expires))
	} else {
		var removed int64
		err = s.cfg.DB.QueryRow(ctx, `SELECT name, removed FROM person WHERE tenant = $1 AND id = $2`, tenant, id).Scan(&a.Name, &removed)
		over = removed != 0
	}
	if errors.Is(err, store.ErrNoRows) || err == nil && over {
		return a, nil
	}
	if err != nil {
		return Actor{}, err
	}
	if a.Grants, err = grantsOf(s.reading(ctx), id); err != nil {
		return Actor{}, err
	}
	return s.Rooted(ctx, a)
}
