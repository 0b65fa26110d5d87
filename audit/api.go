// SPDX-License-Identifier: AGPL-3.0-only

package audit

import (
	"context"
	"encoding/json"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/store"
)

// readVerb is what every route and page of the log asks for, on the whole tenant.
const readVerb = "audit.read"

// Item is one entry as a list shows it.
type Item struct {
	ID      string          `json:"id"`
	At      time.Time       `json:"at"`
	Actor   string          `json:"actor"`
	Kind    string          `json:"kind"`
	Subject string          `json:"subject"`
	Digest  string          `json:"digest" doc:"Of salt and data; it is what the leaf holds"`
	Data    json.RawMessage `json:"data,omitempty" doc:"Absent once erased"`
	Erased  bool            `json:"erased,omitempty"`
	Broken  bool            `json:"broken,omitempty" doc:"The stored data is not what the leaf states; it is not shown"`
	Pos     *int64          `json:"pos,omitempty" doc:"Place in the log; absent while pending"`
}

func (e row) item() Item {
	it := Item{ID: e.leaf.ID, At: store.Time(e.leaf.At), Actor: e.leaf.Actor, Kind: e.leaf.Kind, Subject: e.leaf.Subject, Digest: e.leaf.Data}
	switch d, err := e.data(); {
	case err != nil:
		it.Broken = true
	case d == nil:
		it.Erased = true
	default:
		it.Data = d.Data
	}
	if e.pos.Valid {
		it.Pos = &e.pos.Int64
	}
	return it
}

// State is the newest checkpoint and whose key signed it.
type State struct {
	Checkpoint
	LogKey string `json:"log_key" doc:"Public key of the log; get it once over a way that you trust, and pin it"`
}

// Growth proves that one state of the log continues another.
type Growth struct {
	From  int64          `json:"from"`
	To    Checkpoint     `json:"to"`
	Proof tlog.TreeProof `json:"proof" doc:"Consistency proof of RFC 6962 2.1.2, base64 hashes"`
}

type listInput struct {
	api.Paging
	Subject string    `query:"subject" maxLength:"256" doc:"Only what is about this id"`
	Kind    string    `query:"kind" maxLength:"128" doc:"Only this kind, such as device.claimed"`
	From    time.Time `query:"from" doc:"Not before"`
	To      time.Time `query:"to" doc:"Before"`
}

type idInput struct {
	ID string `path:"id" maxLength:"64"`
}

type growthInput struct {
	From int64 `query:"from" minimum:"1" required:"true" doc:"Size of the tree that you know"`
	To   int64 `query:"to" minimum:"0" doc:"Size of a later checkpoint; the newest if absent"`
}

// Routes registers the log's operations.
func (l *Log) Routes(a *api.API) {
	api.Handle(a, api.Op{ID: "audit-checkpoint", Method: "GET", Path: "/v1/audit/checkpoint", Verb: readVerb, Stage: "audit",
		Summary: "The newest signed checkpoint of the audit log"},
		func(ctx context.Context, _ *struct{}) (*api.Out[State], error) {
			if _, err := l.cfg.Require(ctx, readVerb); err != nil {
				return nil, err
			}
			c, err := l.Checkpoint(ctx)
			if err != nil {
				return nil, err
			}
			return api.One(State{Checkpoint: c, LogKey: l.key}), nil
		})
	api.Handle(a, api.Op{ID: "audit-entries", Method: "GET", Path: "/v1/audit/entries", Verb: readVerb, Stage: "audit",
		Summary: "Entries of the audit log, newest first"},
		func(ctx context.Context, in *listInput) (*api.List[Item], error) {
			tenant, err := l.cfg.Require(ctx, readVerb)
			if err != nil {
				return nil, err
			}
			f := Filter{Subject: in.Subject, Kind: in.Kind, From: store.Millis(in.From), To: store.Millis(in.To)}
			if f.Before, err = in.After(a); err != nil {
				return nil, err
			}
			items, err := l.List(ctx, tenant, f, in.Size()+1)
			if err != nil {
				return nil, err
			}
			return api.More(a, in.Paging, items, func(it Item) string { return it.ID }), nil
		})
	api.Handle(a, api.Op{ID: "audit-proof", Method: "GET", Path: "/v1/audit/entries/{id}/proof", Verb: readVerb, Stage: "audit",
		Summary: "An entry with its inclusion proof under the newest checkpoint"},
		func(ctx context.Context, in *idInput) (*api.Out[ProofSet], error) {
			tenant, err := l.cfg.Require(ctx, readVerb)
			if err != nil {
				return nil, err
			}
			set, err := l.ProveEntry(ctx, tenant, in.ID)
			if err != nil {
				return nil, err
			}
			return api.One(set), nil
		})
	api.Handle(a, api.Op{ID: "audit-consistency", Method: "GET", Path: "/v1/audit/consistency", Verb: readVerb, Stage: "audit",
		Summary: "Proof that the log only grew between two sizes"},
		func(ctx context.Context, in *growthInput) (*api.Out[Growth], error) {
			if _, err := l.cfg.Require(ctx, readVerb); err != nil {
				return nil, err
			}
			c, proof, err := l.Consistency(ctx, in.From, in.To)
			if err != nil {
				return nil, err
			}
			return api.One(Growth{From: in.From, To: c, Proof: proof}), nil
		})
}
