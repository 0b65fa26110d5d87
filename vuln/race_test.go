// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/feed"
	"github.com/openthings-platform/openthings/vuln/record"
)

// TestUploadsAndFeedsAtOnce uploads bills while records come in and change, with the jobs running beside both. When all
// is quiet the findings must be those of a plain comparison of every last bill with every last record.
func TestUploadsAndFeedsAtOnce(t *testing.T) {
	each(t, func(h *house) {
		const releases, modules, records = 12, 4, 24
		version := func(release, module int) int { return (release*7 + module*5) % 20 }
		fixed := func(record int) int { return record*11%20 + 1 }
		for r := range releases {
			h.releases[fmt.Sprintf("ten_a rel_%02d", r)] = Release{"prd_lamp", fmt.Sprint(r)}
		}
		var work sync.WaitGroup
		work.Go(func() {
			for r := range releases {
				var parts string
				for m := range modules {
					parts += fmt.Sprintf(`{"type":"library","name":"m%[1]d","version":"v1.%[2]d.0","purl":"pkg:golang/m%[1]d@v1.%[2]d.0"},`, m, version(r, m))
				}
				doc := []byte(`{"bomFormat":"CycloneDX","specVersion":"1.6","components":[` + parts[:len(parts)-1] + `]}`)
				b, err := sbom.Parse(doc)
				if err == nil {
					var kept sbom.Document
					if kept, err = h.sbom.Keep(h.Context(), doc); err == nil {
						err = h.db.Write(h.Context(), func(tx *store.Tx) error {
							return h.sbom.Attach(tx, "ten_a", fmt.Sprintf("rel_%02d", r), b, kept, "per_1")
						})
					}
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
		work.Go(func() {
			for i := range records { // the second half replaces what the first half said
				id := i % (records / 2)
				doc := fmt.Sprintf(`{"id":"R-%d","affected":[{"package":{"ecosystem":"Go","name":"m%d"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"1.%d.0"}]}]}]}`,
					id, id%modules, fixed(i))
				f, err := feed.Open(strings.NewReader(doc), int64(len(doc)))
				if err == nil {
					_, err = h.vuln.Import(h.Context(), "ten_a", "per_1", "test", f)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
		quiet := make(chan struct{})
		go func() { work.Wait(); close(quiet) }()
		for done := false; !done; {
			select {
			case <-quiet:
				done = true
			default:
			}
			h.run()
		}

		var want []string
		for r := range releases {
			for id := range records / 2 {
				if version(r, id%modules) < fixed(id+records/2) {
					want = append(want, fmt.Sprintf("rel_%02d R-%d fixed 1.%d.0", r, id, fixed(id+records/2)))
				}
			}
		}
		rows, err := h.db.Query(h.Context(), `SELECT f.release_id, g.name, f.fixed FROM finding f JOIN vuln_group g ON g.tenant = f.tenant AND g.id = f.group_id
			WHERE f.tenant = 'ten_a' AND f.closed_at = 9223372036854775807`)
		got, err := store.Collect(rows, err, func(r *sql.Rows) (string, error) {
			var release, name, fixed string
			err := r.Scan(&release, &name, &fixed)
			return release + " " + name + " fixed " + fixed, err
		})
		h.must(err)
		slices.Sort(want)
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" || len(want) == 0 {
			t.Errorf("findings differ from the plain comparison:\n%s", d)
		}
	})
}

// TestOldComparisonsAreNotWritten lets a record change between a comparison and its writing, on both paths.
func TestOldComparisonsAreNotWritten(t *testing.T) {
	each(t, func(h *house) {
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0")
		oldRelease, err := h.vuln.compareRelease(h.Context(), "ten_a", "rel_1")
		h.must(err)
		oldPackage, err := h.vuln.comparePackage(h.Context(), "ten_a", record.PackageOf("Go", "golang.org/x/net"))
		h.must(err)
		_, err = h.feed("ten_a", xnet("GO-1", "CVE-1", "0.17.0", ""))
		h.must(err)
		if err := h.vuln.settleRelease(h.Context(), "ten_a", "rel_1", oldRelease); !errors.Is(err, errStale) {
			t.Errorf("an old comparison of a release was written: %v", err)
		}
		if err := h.vuln.settlePackage(h.Context(), "ten_a", record.PackageOf("Go", "golang.org/x/net"), oldPackage); !errors.Is(err, errStale) {
			t.Errorf("an old comparison of a package was written: %v", err)
		}
		if list := h.findings("ten_a"); len(list) != 1 {
			t.Errorf("findings %q", list)
		}
	})
}

// TestOldBillClosesNothing lets a bill be replaced, and its release matched, while the comparison of the old one waits.
func TestOldBillClosesNothing(t *testing.T) {
	each(t, func(h *house) {
		_, err := h.feed("ten_a", xnet("GO-1", "CVE-1", "0.17.0", ""))
		h.must(err)
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/text@v0.9.0")
		old, err := h.vuln.compareRelease(h.Context(), "ten_a", "rel_1")
		h.must(err)
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0")
		h.must(h.vuln.settleRelease(h.Context(), "ten_a", "rel_1", old))
		if list := h.findings("ten_a"); len(list) != 1 {
			t.Errorf("findings %q: the old bill closed one of the new", list)
		}
	})
}
