// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"context"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

var schema = []store.Migrations{audit.Schema, respond.Schema}

// house is the room with its real neighbours.
type house struct {
	*Service
	db   *store.DB
	hand *clock.Hand
}

const maker = "ten_maker"

func signedIn(id string, role tenant.Role) context.Context {
	return tenant.WithActor(context.Background(), tenant.Actor{ID: id, Kind: tenant.KindPerson, Tenant: maker, Grants: []tenant.Grant{{Role: role, Tenant: maker}}})
}

var ann = signedIn("per_ann", tenant.ComplianceOfficer)

func each(t *testing.T, fn func(t *testing.T, h house)) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		hand := clock.NewHand(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
		db := storetest.Open(t, url, schema, func(c *store.Config) { c.Clock = hand })
		fn(t, house{Service: New(Config{DB: db}), db: db, hand: hand})
	})
}

func at(t *testing.T, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
