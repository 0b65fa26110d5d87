// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/openthings-platform/openthings/realdata"
	"github.com/openthings-platform/openthings/sbom"
)

func realFeed(t *testing.T) *Feed {
	t.Helper()
	f, err := OpenFeedPath(filepath.Join(realdata.Dir(t), "vuln/osv/Go/all.zip"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func realBill(t *testing.T, name string) (sbom.Bill, []byte) {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join(realdata.Dir(t), "sbom", name))
	if err != nil {
		t.Fatal(err)
	}
	b, err := sbom.Parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	return b, doc
}

func TestRealRecordsAgainstRealBills(t *testing.T) {
	f := realFeed(t)
	if f.Records != 3809 {
		t.Fatalf("%d records, want 3809", f.Records)
	}
	for _, c := range []struct {
		name                           string
		open, withdrawn, modules, xnet int
	}{
		{"cyclonedx/csaf_checker.syft-1.57.1.6.json", 1, 1, 1, 0},
		{"spdx/csaf_checker.syft-1.57.spdx-3.0.json", 1, 1, 1, 0},
		{"cyclonedx/proton-bridge-v1.8.0.json", 52, 1, 14, 20},
	} {
		b, _ := realBill(t, c.name)
		rep, err := Check(b, f)
		if err != nil {
			t.Fatal(err)
		}
		withdrawn, xnet, modules := 0, 0, map[string]bool{}
		for _, h := range rep.Hits {
			switch {
			case h.Withdrawn:
				withdrawn++
				continue
			case h.Component == "golang.org/x/net":
				xnet++
			case h.Record == "GO-2026-5932" && h.Component != "golang.org/x/crypto":
				t.Errorf("%s on %s", h.Record, h.Component)
			}
			modules[h.Component] = true
		}
		if rep.Affected != c.open || withdrawn != c.withdrawn || len(modules) != c.modules || xnet != c.xnet || rep.Unknown != 0 {
			t.Errorf("%s: %d open, %d withdrawn, %d modules, %d of x/net, %d unknown; want %d, %d, %d, %d, 0", c.name,
				rep.Affected, withdrawn, len(modules), xnet, rep.Unknown, c.open, c.withdrawn, c.modules, c.xnet)
		}
	}
}

func TestRealCatalogue(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(realdata.Dir(t), "vuln/kev.json"))
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseKEV(b)
	if err != nil || len(k.Entries) != 1404 || !isKEV(b) {
		t.Fatalf("%d entries, %v", len(k.Entries), err)
	}
	if _, err := ParseKEV(b[:len(b)/2]); err == nil {
		t.Fatal("half a catalogue was taken for a whole one")
	}
}
