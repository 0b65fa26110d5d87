// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// What is asked about one campaign or one contact costs what that is, not what was ever told; an idle platform reads nothing
// of what is done.
func TestNoQuestionReadsEverything(t *testing.T) {
	const campaignsMade, contactsMade, perCampaign = 60, 3000, 300
	plans := &storetest.Plans{Big: []string{"inform_contact", "inform_holding", "inform_delivery"}, Few: []string{"inform_delivery_waiting"}}
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		keys, err := seal.Open(filepath.Join(t.TempDir(), "keys"), clock.NewHand(saturday))
		if err != nil {
			t.Fatal(err)
		}
		s := New(Config{DB: db, Keys: keys})
		insert := func(head string, n int, row func(i int) []any) {
			t.Helper()
			for from := 0; from < n; from += 1000 {
				rows := [][]any{}
				for i := from; i < min(from+1000, n); i++ {
					rows = append(rows, row(i))
				}
				if err := db.WriteBulk(t.Context(), func(tx *store.Tx) error { return tx.InsertMany(head, rows, "") }); err != nil {
					t.Fatal(err)
				}
			}
		}
		contact := func(i int) string { return fmt.Sprintf("con_%05d", i) }
		insert(`INSERT INTO inform_contact(id, tenant, role, channel, lang, hash, sealed, created, changed, erased)`, contactsMade, func(i int) []any {
			return []any{contact(i), maker, "customer", Mail, "de", fmt.Sprint("h", i), []byte{1}, 1, 1, 0}
		})
		insert(`INSERT INTO inform_holding(contact, product, revision, tenant)`, contactsMade, func(i int) []any {
			return []any{contact(i), fmt.Sprint("prd_", i%100), "", maker}
		})
		insert(`INSERT INTO inform_campaign(`+campaignColumns+`, served)`, campaignsMade, func(i int) []any {
			id := fmt.Sprintf("cpn_%03d", i)
			finished := int64(1)
			if i == campaignsMade-1 {
				finished = 0
			}
			return []any{id, maker, id, KindOther, "info", "prd_1", "", "", "s", All, "", 0, "en", `{"en":{"title":"t","text":"x"}}`, "", "", "", Sent, 1, 1, "per_ann", 1, "per_ann", "", finished, 1}
		})
		insert(`INSERT INTO inform_delivery(id, tenant, campaign, contact, role, channel, lang, hash, state, attempts, next, busy, ended, answer, bounced, reason, read_at)`, campaignsMade*perCampaign, func(i int) []any {
			state := string(Handed)
			if i == campaignsMade*perCampaign-1 {
				state = string(Waiting)
			}
			return []any{fmt.Sprintf("idl_%06d", i), maker, fmt.Sprintf("cpn_%03d", i/perCampaign), contact(i % perCampaign), "customer", Mail, "de", "h", state, 1, 1, 0, 1, "250", 0, "", 0}
		})
		plans.Analyze(t, db)
		view := func(fn func(tx *store.Tx) error) func(context.Context) error {
			return func(ctx context.Context) error { return db.View(ctx, fn) }
		}
		campaign := Campaign{ID: "cpn_001", Words: Words{Product: "prd_1", Language: "en"}, tenant: maker}
		for _, q := range []struct {
			what string
			rows int
			ask  func(ctx context.Context) error
		}{
			{"whose turn it is", 400, func(ctx context.Context) error { _, err := s.claim(ctx); return err }},
			{"a page of deliveries", 400, view(func(tx *store.Tx) error { return of(deliveries(tx, maker, "cpn_010", "", "", 50)) })},
			{"how a campaign went", 400, view(func(tx *store.Tx) error { return of(tally(tx, maker, "cpn_010", "state")) })},
			{"who is meant", 400, view(func(tx *store.Tx) error { return of(countAudience(tx, maker, Query{Product: campaign.Product})) })},
			{"a page of contacts of a product", 400, view(func(tx *store.Tx) error { return of(contacts(tx, maker, "prd_1", "", 50)) })},
			{"a page of contacts", 400, view(func(tx *store.Tx) error { return of(contacts(tx, maker, "", "", 50)) })},
			{"a contact by its address", 10, view(func(tx *store.Tx) error { return of(contactByHash(tx, maker, "h5")) })},
			{"a delivery behind a link", 10, view(func(tx *store.Tx) error { return of(tenantOf(tx, "idl_000100")) })},
		} {
			plans.Check(t, db, q.what, q.rows, q.ask)
		}
	}, plans.Config)
}

func of[T any](_ T, err error) error { return err }
