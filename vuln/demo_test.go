// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"

	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/vuln/feed"
)

// TestDemoFeed holds the demo to its story: firmware 1.0.0 carries an exploited vulnerability, 1.1.0 carries none at all.
func TestDemoFeed(t *testing.T) {
	feed, err := feed.OpenPath("../demo/feed")
	if err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]Report{"v1.0.0": {Affected: 6, Exploited: 1}, "v1.1.0": {}} {
		text, err := os.ReadFile(filepath.Join("../demo/firmware", version, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		mod, err := modfile.Parse("go.mod", text, nil)
		if err != nil {
			t.Fatal(err)
		}
		bi := &debug.BuildInfo{GoVersion: "go1.26.8"}
		for _, r := range mod.Require {
			bi.Deps = append(bi.Deps, &debug.Module{Path: r.Mod.Path, Version: r.Mod.Version})
		}
		doc, err := sbom.FromBuildInfo(bi, "sha256:"+strings.Repeat("a", 64), "lamp", version)
		if err != nil {
			t.Fatal(err)
		}
		bill, err := sbom.Parse(doc)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Check(bill, feed)
		if err != nil {
			t.Fatal(err)
		}
		if got.Affected != want.Affected || got.Exploited != want.Exploited || got.Unknown != 0 {
			t.Errorf("%s: %d affected, %d exploited, %d unknown; want %d, %d, 0: %+v", version, got.Affected, got.Exploited, got.Unknown, want.Affected, want.Exploited, got.Hits)
		}
	}
}
