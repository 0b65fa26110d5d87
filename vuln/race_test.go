// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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
			h.releases[fmt.Sprintf("ten_a rel_%02d", r)] = Release{Product: "prd_lamp", Version: fmt.Sprint(r)}
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
		var got []string
		for _, f := range h.open("ten_a") {
			got = append(got, f.release+" "+f.name+" fixed "+f.Fixed)
		}
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
		_, err := h.feed("ten_a", xnet("GO-1", "CVE-1", "0.9.0", ""))
		h.must(err)
		h.releases["ten_a rel_2"] = Release{Product: "prd_lamp", Version: "2.0.0"}
		h.bill("ten_a", "rel_2", "golang.org/x/net@v0.11.0")
		oldRelease, err := h.vuln.judgeRelease(h.Context(), "ten_a", "rel_2")
		h.must(err)
		oldRecord, err := h.vuln.judgeRecords(h.Context(), "ten_a", []string{"GO-1"})
		h.must(err)
		h.must(h.db.Write(h.Context(), func(tx *store.Tx) error { // the component has a hit of the old content to write
			oldRecord.verdicts[pair{"cmp_x", "GO-1"}] = record.Verdict{State: record.StateAffected}
			return nil
		}))
		_, err = h.feed("ten_a", xnet("GO-1", "CVE-1", "0.17.0", ""))
		h.must(err)
		if err := h.vuln.settleRelease(h.Context(), "ten_a", oldRelease); !errors.Is(err, errStale) {
			t.Errorf("an old comparison of a release was written: %v", err)
		}
		if err := h.vuln.settleRecords(h.Context(), "ten_a", oldRecord); !errors.Is(err, errStale) {
			t.Errorf("an old comparison of a record was written: %v", err)
		}
	})
}

// TestSameComponentTwiceAtOnce lets two releases bring the same component, both compared before either was written.
func TestSameComponentTwiceAtOnce(t *testing.T) {
	each(t, func(h *house) {
		_, err := h.feed("ten_a", xnet("GO-1", "CVE-1", "0.17.0", ""))
		h.must(err)
		var both []arrival
		for _, id := range []string{"rel_1", "rel_2"} {
			h.releases["ten_a "+id] = Release{Product: "prd_lamp", Version: id}
			h.bill("ten_a", id, "golang.org/x/net@v0.10.0")
			m, err := h.vuln.judgeRelease(h.Context(), "ten_a", id)
			h.must(err)
			both = append(both, m)
		}
		for _, m := range both {
			h.must(h.vuln.settleRelease(h.Context(), "ten_a", m))
			h.clock.Advance(time.Second)
		}
		h.run()
		if list := h.open("ten_a"); len(list) != 2 {
			t.Errorf("findings %v", list)
		}
	})
}
