// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// TestEachDeviceRouteIsInTheContract compares the routes of the device door with those that wire/doc.go names.
func TestEachDeviceRouteIsInTheContract(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "wire", "doc.go"))
	if err != nil {
		t.Fatal(err)
	}
	var named, mounted []string
	for _, m := range regexp.MustCompile(`(?m)^//\t(GET|POST|PUT|DELETE) +(/\S+)`).FindAllStringSubmatch(string(doc), -1) {
		named = append(named, m[1]+" "+m[2])
	}
	for _, r := range newWorld(t, "").h.gateway.Routes() {
		mounted = append(mounted, r.Pattern)
	}
	for _, r := range mounted {
		if !slices.Contains(named, r) {
			t.Errorf("%s is mounted, and wire/doc.go does not name it", r)
		}
	}
	for _, r := range named {
		if !slices.Contains(mounted, r) {
			t.Errorf("wire/doc.go names %s, and it is not mounted", r)
		}
	}
}
