// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// RuleGatekeeper refuses to share with a gatekeeper (Regulation (EU) 2023/2854, article 5(3)).
const RuleGatekeeper = "data.gatekeeper"

// Share lets a third party read the data of the devices of a solution, at the request of their user (article 5).
type Share struct {
	ID        string    `json:"id"`
	Solution  string    `json:"solution"`
	Recipient string    `json:"recipient" doc:"Who reads"`
	Purpose   string    `json:"purpose" doc:"What they may use it for, as agreed with the user (article 6(1))"`
	Actor     string    `json:"actor" doc:"Who shared it"`
	Created   time.Time `json:"created"`
	Expires   time.Time `json:"expires"`
	Ended     time.Time `json:"ended,omitzero"`
	tenant    string
	token     string
}

// NewShare is a share at the only moment when its token is known.
type NewShare struct {
	Share
	Token string `json:"token" doc:"Shown this once; the third party sends it as Authorization: Bearer"`
}

// share makes a token for a third party that may read telemetry of the solution and nothing else.
func (s *Service) share(ctx context.Context, sh Share, notGatekeeper bool) (out NewShare, err error) {
	who := actor(ctx)
	sh.tenant, sh.Recipient, sh.Purpose = who.Tenant, strings.TrimSpace(sh.Recipient), strings.TrimSpace(sh.Purpose)
	if err := tenant.Require(ctx, tenant.DataShare, tenant.Thing{Tenant: sh.tenant, Solution: sh.Solution}); err != nil {
		return out, err
	}
	if err := tenant.Require(ctx, tenant.TelemetryRead, tenant.Thing{Tenant: sh.tenant, Solution: sh.Solution}); err != nil {
		return out, err // nobody gives what it has not
	}
	switch {
	case sh.Solution == "" || s.cfg.Tenants == nil:
		return out, problem.Invalid("A share is of one solution.").At("solution")
	case sh.Recipient == "" || len(sh.Recipient) > 200 || sh.Purpose == "" || len(sh.Purpose) > 500:
		return out, problem.Invalid("A share names its recipient and its purpose, in at most 200 and 500 bytes.").At("recipient")
	case !notGatekeeper:
		return out, problem.Forbidden(RuleGatekeeper, "Data cannot be shared with a gatekeeper of the Digital Markets Act (Data Act, article 5(3)).").
			Hint("Say that the recipient is none: not_gatekeeper.")
	}
	if _, err := s.cfg.Tenants.Solution(ctx, sh.tenant, sh.Solution); err != nil {
		return out, err
	}
	sh.ID, sh.Actor, sh.Created = store.NewID("shr"), who.ID, store.Time(store.Millis(s.cfg.Clock.Now()))
	out.Share = sh
	err = s.cfg.Platform.Write(ctx, func(tx *store.Tx) error {
		t, text, err := s.cfg.Tenants.CreateToken(tx, who.ID, "data of "+sh.Solution+" for "+short(sh.Recipient),
			tenant.Grant{Role: tenant.DataRecipient, Tenant: sh.tenant, Solution: sh.Solution}, sh.Expires)
		if err != nil {
			return err
		}
		out.token, out.Token, out.Expires = t.ID, text, t.Expires
		if _, err := tx.Exec(`INSERT INTO data_share(id, tenant, solution, recipient, purpose, token, actor, created, expires, ended) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0)`,
			sh.ID, sh.tenant, sh.Solution, sh.Recipient, sh.Purpose, t.ID, who.ID, store.Millis(sh.Created), store.Millis(t.Expires)); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: sh.tenant, Actor: who.ID, Kind: "data.shared", Subject: sh.Solution,
			Data: map[string]any{"share": sh.ID, "recipient": sh.Recipient, "purpose": sh.Purpose, "expires": t.Expires, "token": t.ID, "rule": "eu.2023/2854.5"}})
	})
	return out, err
}

// short keeps a name within what a token's name takes.
func short(s string) string {
	if r := []rune(s); len(r) > 30 {
		return string(r[:30]) + "…"
	}
	return s
}

// endShare ends a share and its token at once.
func (s *Service) endShare(ctx context.Context, id string) error {
	who := actor(ctx)
	sh, err := scanShare(s.cfg.Platform.QueryRow(ctx, `SELECT `+shareColumns+` FROM data_share WHERE tenant = $1 AND id = $2`, who.Tenant, id))
	if errors.Is(err, store.ErrNoRows) {
		return problem.NotFound("There is no share %s.", cut(id))
	}
	if err != nil {
		return err
	}
	if err := tenant.Require(ctx, tenant.DataShare, tenant.Thing{Tenant: who.Tenant, Solution: sh.Solution}); err != nil {
		return err
	}
	return s.cfg.Platform.WriteFirst(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec(`UPDATE data_share SET ended = $3 WHERE tenant = $1 AND id = $2 AND ended = 0`, who.Tenant, id, store.Millis(s.cfg.Clock.Now()))
		if err != nil || n == 0 {
			return err
		}
		err = s.cfg.Tenants.RevokeToken(tx, who.Tenant, sh.token, who.ID)
		if err != nil && !problem.Is(err, problem.KindNotFound) { // an owner may have revoked it before
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: who.Tenant, Actor: who.ID, Kind: "data.share-ended", Subject: sh.Solution, Data: map[string]any{"share": id, "recipient": sh.Recipient}})
	})
}

const shareColumns = `id, tenant, solution, recipient, purpose, token, actor, created, expires, ended`

func scanShare(r scanner) (sh Share, err error) {
	var created, expires, ended int64
	err = r.Scan(&sh.ID, &sh.tenant, &sh.Solution, &sh.Recipient, &sh.Purpose, &sh.token, &sh.Actor, &created, &expires, &ended)
	sh.Created, sh.Expires = store.Time(created), store.Time(expires)
	if ended > 0 {
		sh.Ended = store.Time(ended)
	}
	return sh, err
}

// shares returns the shares that whoever asks may end, the newest first.
func (s *Service) shares(ctx context.Context, before string, limit int) (out []Share, err error) {
	who := actor(ctx)
	whole, _, solutions := tenant.Scope(who, tenant.DataShare)
	for len(out) < limit {
		rows, err := s.cfg.Platform.Query(ctx, `SELECT `+shareColumns+` FROM data_share WHERE tenant = $1 AND ($2 = '' OR id < $2) ORDER BY id DESC LIMIT $3`, who.Tenant, before, limit)
		page, err := store.Collect(rows, err, func(r *sql.Rows) (Share, error) { return scanShare(r) })
		if err != nil {
			return nil, err
		}
		for _, sh := range page {
			before = sh.ID
			if len(out) < limit && (whole || slices.Contains(solutions, sh.Solution)) {
				out = append(out, sh)
			}
		}
		if len(page) < limit {
			break
		}
	}
	return out, nil
}
