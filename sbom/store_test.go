// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/blob"
	"github.com/openthings-platform/openthings/store/storetest"
)

const first = `{"bomFormat":"CycloneDX","specVersion":"1.6","metadata":{"component":{"type":"firmware","name":"lamp","version":"1"}},"components":[
 {"type":"library","name":"github.com/BurntSushi/toml","version":"v1.0.0","purl":"pkg:golang/github.com/BurntSushi/toml@v1.0.0"},
 {"type":"library","name":"github.com/burntsushi/toml","version":"v1.0.0","purl":"pkg:golang/github.com/burntsushi/toml@v1.0.0"},
 {"type":"library","name":"old","version":"1","purl":"pkg:npm/old@1"},{"type":"device","name":"relay"}]}`
const second = `{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"type":"library","name":"new","version":"1","purl":"pkg:npm/new@1"}]}`

var begin = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

func TestAttach(t *testing.T) {
	storetest.Each(t, []store.Migrations{audit.Schema, Schema}, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		blobs, err := blob.NewDir(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		hand := clock.NewHand(begin)
		s := New(Config{DB: db, Blobs: blobs, Clock: hand})
		var events atomic.Int64 // jobs run beside each other
		db.On("sbom.attached", "test", func(_ context.Context, e store.Event) error {
			if e.Subject == "rel_1" {
				events.Add(1)
			}
			return nil
		})
		attach := func(tenant, release, doc string) {
			t.Helper()
			b, err := Parse([]byte(doc))
			if err != nil {
				t.Fatal(err)
			}
			d, err := s.Keep(ctx, []byte(doc))
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Write(ctx, func(tx *store.Tx) error { return s.Attach(tx, tenant, release, b, d, "per_1") }); err != nil {
				t.Fatal(err)
			}
		}
		attach("ten_a", "rel_1", first)
		attach("ten_a", "rel_1", first) // again: nothing changes
		attach("ten_b", "rel_2", first) // another tenant, the same components

		parts, err := s.Components(ctx, "ten_a", "rel_1", "", 2)
		if err != nil || len(parts) != 2 || parts[0].Name != "github.com/BurntSushi/toml" || parts[0].Component != parts[1].Component {
			t.Fatalf("first page %+v, %v; spellings that fold to one component are parts of one component", parts, err)
		}
		rest, err := s.Components(ctx, "ten_a", "rel_1", parts[1].Cursor(), 10)
		if err != nil || len(rest) != 2 {
			t.Fatalf("second page %+v, %v", rest, err)
		}
		if foreign, err := s.Components(ctx, "ten_b", "rel_1", "", 10); err != nil || len(foreign) != 0 {
			t.Fatalf("another tenant reads %+v, %v", foreign, err)
		}
		if _, err := s.Current(ctx, "ten_b", "rel_1"); !problem.Is(err, problem.KindNotFound) {
			t.Fatalf("another tenant reads the record: %v", err)
		}
		view := func(fn func(tx *store.Tx) error) {
			t.Helper()
			if err := db.View(ctx, fn); err != nil {
				t.Fatal(err)
			}
		}
		var toml string
		view(func(tx *store.Tx) error {
			own, err := s.Keys(tx, "ten_a", "rel_1")
			if err != nil || len(own) != 2 {
				t.Fatalf("keys %+v, %v; the relay cannot be matched", own, err)
			}
			i := slices.IndexFunc(own, func(k Key) bool { return k.Name == "github.com/burntsushi/toml" })
			if i < 0 || own[i].Version != "1.0.0" || own[i].Space != "Go" {
				t.Fatalf("keys %+v", own)
			}
			toml = own[i].Component
			listed, err := s.Listed(tx, "ten_a", []string{toml, "cmp_none", toml})
			if err != nil || fmt.Sprint(listed) != "map["+toml+":[rel_1]]" {
				t.Fatalf("listed %+v, %v; spelled twice it is one release, and another tenant's rel_2 must be missing", listed, err)
			}
			return err
		})

		hand.Advance(time.Hour)
		attach("ten_a", "rel_1", second) // the newest counts
		if parts, err = s.Components(ctx, "ten_a", "rel_1", "", 10); err != nil || len(parts) != 1 || parts[0].Name != "new" {
			t.Fatalf("after the second document %+v, %v", parts, err)
		}
		hand.Advance(time.Hour)
		attach("ten_a", "rel_3", first)
		start, hour := store.Millis(begin), int64(time.Hour/time.Millisecond)
		view(func(tx *store.Tx) error {
			for at, want := range map[int64][]Use{
				-1:               {{toml, "rel_1", start, start + hour}, {toml, "rel_3", start + 2*hour, forever}},
				start + hour - 1: {{toml, "rel_1", start, start + hour}},
				start + hour:     nil, // half-open
				start + 2*hour:   {{toml, "rel_3", start + 2*hour, forever}},
			} {
				if uses, err := s.Uses(tx, "ten_a", []string{toml, "cmp_none", toml}, at); err != nil || !slices.Equal(uses, want) {
					t.Errorf("uses at %d: %+v, %v; want %+v", at, uses, err, want)
				}
			}
			listed, err := s.Listed(tx, "ten_a", []string{toml})
			if err != nil || fmt.Sprint(listed) != "map["+toml+":[rel_3]]" {
				t.Errorf("listed %+v, %v", listed, err)
			}
			if own, err := s.Keys(tx, "ten_a", "rel_1"); err != nil || len(own) != 1 || own[0].Name != "new" {
				t.Errorf("keys %+v, %v", own, err)
			}
			spelled, err := s.Spelled(tx, "ten_a", []string{"rel_1", "rel_2", "rel_3"}, []string{toml})
			if err != nil || len(spelled) != 2 || spelled[[2]string{"rel_1", toml}].Name != "github.com/BurntSushi/toml" {
				t.Errorf("spelled %+v, %v; another tenant's rel_2 must be missing", spelled, err)
			}
			return err
		})
		rec, f, err := s.Original(ctx, "ten_a", "rel_1")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if raw, err := io.ReadAll(f); err != nil || string(raw) != second || len(rec.Document.SHA512) != 128 {
			t.Fatalf("original %q, %v", raw, err)
		}
		if rec.At.IsZero() || !rec.At.Equal(begin.Add(time.Hour)) || rec.Quality.Total != 1 {
			t.Fatalf("record %+v", rec)
		}
		if _, err := db.RunDue(ctx); err != nil || events.Load() != 2 {
			t.Fatalf("%d events, %v; want one per document of the release", events.Load(), err)
		}
	})
}
