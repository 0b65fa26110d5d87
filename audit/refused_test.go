// SPDX-License-Identifier: AGPL-3.0-only

package audit

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/wire"
)

// refusalLeaves are the leaves about refusals as "subject rule more", in order.
func refusalLeaves(t *testing.T, db *store.DB) []string {
	t.Helper()
	rows, err := db.Query(t.Context(), `SELECT subject, payload FROM audit_entry WHERE kind = $1 ORDER BY id`, refusalKind)
	out, err := store.Collect(rows, err, func(r *sql.Rows) (string, error) {
		var subject string
		var payload []byte
		if err := r.Scan(&subject, &payload); err != nil {
			return "", err
		}
		var d wire.LeafData
		var x struct {
			Rule string
			More int
		}
		if err := json.Unmarshal(payload, &d); err != nil {
			return "", err
		}
		err := json.Unmarshal(d.Data, &x)
		return fmt.Sprintf("%s %s %d", subject, x.Rule, x.More), err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRefusalsAreFew: a thousand refusals are one leaf at once and one an hour, per subject and rule; they end when the
// refusals do.
func TestRefusalsAreFew(t *testing.T) {
	hand := clock.NewHand(time.Unix(1_800_000_000, 0))
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		r := NewRefusals(db, hand, slog.New(slog.DiscardHandler))
		step := func(d time.Duration, want ...string) {
			t.Helper()
			hand.Advance(d)
			r.total(false)
			r.write(t.Context())
			got := refusalLeaves(t, db)
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Fatalf("leaves:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
		refuse := func(subject, rule string, n int) {
			for range n {
				r.Note(Refusal{Tenant: "ten_a", Actor: subject, Subject: subject, Rule: rule, Detail: "ot/1/other/\x00\xff" + strings.Repeat("x", 1000)})
			}
		}
		first := "dev_1 topic.own 0"
		refuse("dev_1", "topic.own", 1000)
		step(0, first)
		refuse("dev_1", "topic.own", 1)
		step(59*time.Minute, first)
		step(time.Minute, first, "dev_1 topic.own 1000")
		refuse("dev_1", "door.kind", 1)
		refuse("dev_1", "topic.own", 7)
		step(time.Hour, first, "dev_1 topic.own 1000", "dev_1 door.kind 0", "dev_1 topic.own 7")
		all := []string{first, "dev_1 topic.own 1000", "dev_1 door.kind 0", "dev_1 topic.own 7"}
		step(time.Hour, all...)
		step(time.Hour, all...)
		if len(r.open) != 0 {
			t.Errorf("%d subjects are counted for ever", len(r.open))
		}
		refuse("dev_1", "topic.own", 1)
		step(0, append(all, first)...)

		// A fleet that misbehaves as one is bounded: the rest is counted for the tenant.
		before := len(refusalLeaves(t, db))
		r.max = len(r.open) + 20
		for i := range 70 {
			refuse(fmt.Sprintf("dev_x%d", i), "topic.own", 1)
		}
		r.write(t.Context())
		if n := len(refusalLeaves(t, db)) - before; n != 21 {
			t.Errorf("%d leaves, want one for each of 20 and one for the tenant", n)
		}
	}, func(c *store.Config) { c.Clock = hand })
}

// TestRefusalsOutliveTheWriter: what could not be written is written later, and the end writes what was counted.
func TestRefusalsOutliveTheWriter(t *testing.T) {
	hand := clock.NewHand(time.Unix(1_800_000_000, 0))
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		r := NewRefusals(db, hand, slog.New(slog.DiscardHandler))
		note := func() {
			r.Note(Refusal{Tenant: "ten_a", Actor: "dev_1", Subject: "dev_1", Rule: "topic.own"})
		}
		note()
		dead, cancel := context.WithCancel(t.Context())
		cancel()
		r.write(dead)
		if n := len(refusalLeaves(t, db)); n != 0 {
			t.Fatal("written with an ended context")
		}
		note()
		if err := r.Run(dead); err != nil {
			t.Fatal(err)
		}
		if got := refusalLeaves(t, db); len(got) != 2 || got[1] != "dev_1 topic.own 1" {
			t.Errorf("%q", got)
		}
	}, func(c *store.Config) { c.Clock = hand })
}
