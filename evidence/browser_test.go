// SPDX-License-Identifier: AGPL-3.0-only

package evidence_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/console/browsertest"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/tenant"
)

// TestAuditorInABrowser: the fifteen questions and their pages are accessible and quiet, also on a small screen.
func TestAuditorInABrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a browser")
	}
	d := oneDesk(t)
	id := d.declared(30*time.Hour, false)
	d.submit(id, respond.EarlyWarning, "the person on call slept")
	d.report("words", "finder@example.org")
	pages, _ := d.doors(actor(tenant.Owner, "ten_a"))
	l, origin := browsertest.Listen(t)
	browsertest.Serve(t, l, pages)
	b := browsertest.Open(t, origin)
	for i, size := range [][2]int64{{1280, 900}, {390, 844}} {
		b.Size(size[0], size[1])
		for _, path := range []string{"/inspect", "/evidence", "/inspect/4?product=" + d.product, "/inspect/5?product=" + d.product, "/inspect/11?product=" + d.product, "/inspect/15?product=" + d.product} {
			b.Go(path)
			b.Accessible()
			b.Shots(fmt.Sprintf("auditor%s-%d", shotOf(path), i))
		}
	}
	b.QuietLog()
}

// shotOf is the name of the picture of a page.
func shotOf(path string) string {
	var n int
	if _, err := fmt.Sscanf(path, "/inspect/%d", &n); err != nil {
		return "-" + path[1:]
	}
	return fmt.Sprint("-", n)
}
