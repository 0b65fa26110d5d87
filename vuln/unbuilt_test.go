// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
)

// kernelFault is a record of the kernel's own authority: from 4.6 on, fixed in 6.10, in these source files.
func kernelFault(n int, files ...string) string {
	list := `"` + strings.Join(files, `","`) + `"`
	return fmt.Sprintf(`{"dataType":"CVE_RECORD","dataVersion":"5.1","cveMetadata":{"cveId":"CVE-2026-1%04d","state":"PUBLISHED","assignerShortName":"Linux"},
		"containers":{"cna":{"providerMetadata":{"shortName":"Linux"},"title":"fault %d","affected":[{"vendor":"Linux","product":"Linux","programFiles":[%s],"defaultStatus":"affected",
		"versions":[{"version":"4.6","status":"affected"},{"version":"0","lessThan":"4.6","status":"unaffected","versionType":"semver"},{"version":"6.10","lessThanOrEqual":"*","status":"unaffected","versionType":"original_commit_for_fix"}]}]}}}`, n, n, list)
}

// TestKernelEvidence closes what was left out of a kernel, by a person, for all releases of that kernel with that evidence, and
// opens it again at once.
func TestKernelEvidence(t *testing.T) {
	each(t, func(h *house) {
		kernel := []byte(`{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"type":"operating-system","name":"linux-yocto","version":"6.1.55","cpe":"cpe:2.3:o:linux:linux_kernel:6.1.55:*:*:*:*:*:*:*"}]}`)
		for i, id := range []string{"rel_1", "rel_2", "rel_3"} {
			h.attach("ten_a", id, "prd_lamp", fmt.Sprint(i+1), kernel)
		}
		h.mustFeed("ten_a", kernelFault(1, "drivers/net/wireless/lamp/core.c"), kernelFault(2, "net/ipv4/route.c"), kernelFault(3, "include/net/lamp.h"),
			kernelFault(4, "drivers/gpu/lamp.c", "net/ipv4/route.c"), kernelFault(5, "fs/lampfs/inode.c", "fs/lampfs/dir.c"))
		k, err := h.vuln.Kernel(h.Context(), "ten_a", "rel_1")
		h.must(err)
		if k.Open != 5 || len(k.Unbuilt) != 0 || k.Evidence != "" {
			t.Fatalf("without evidence: %+v", k)
		}
		if _, err := h.vuln.AcceptUnbuilt(h.Context(), "ten_a", "per_1", "rel_1", nil); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("accepting nothing: %v", err)
		}
		show := func(release string, files ...string) {
			_, err := h.sbom.AddEvidence(h.Context(), "ten_a", release, sbom.CompiledFiles, strings.NewReader(strings.Join(append(files, "init/main.c"), "\n")), "per_1")
			h.must(err)
			h.run()
		}
		show("rel_1", "net/ipv4/route.c")
		show("rel_2", "net/ipv4/route.c")
		show("rel_3", "net/ipv4/route.c", "fs/lampfs/inode.c")
		names := func(release string) string {
			k, err := h.vuln.Kernel(h.Context(), "ten_a", release)
			h.must(err)
			var out []string
			for _, u := range k.Unbuilt {
				out = append(out, strings.TrimPrefix(u.Vulnerability, "CVE-2026-1000"))
			}
			return fmt.Sprintf("%d open, %d accepted, unbuilt %s", k.Open, k.Accepted, strings.Join(out, " "))
		}
		h.want("the first, by its evidence", names("rel_1"), "5 open, 0 accepted, unbuilt 1 5")
		n, err := h.vuln.AcceptUnbuilt(h.Context(), "ten_a", "per_1", "rel_1", nil)
		h.must(err)
		if n != 2 {
			t.Errorf("%d accepted", n)
		}
		h.want("the first, accepted", names("rel_1"), "3 open, 2 accepted, unbuilt ")
		h.want("the second has the same evidence", names("rel_2"), "3 open, 2 accepted, unbuilt ")
		h.want("the third compiles one of them", names("rel_3"), "5 open, 0 accepted, unbuilt 1")

		h.attach("ten_a", "rel_4", "prd_lamp", "4", kernel)
		h.want("a later release without evidence inherits nothing", names("rel_4"), "5 open, 0 accepted, unbuilt ")
		show("rel_4", "net/ipv4/route.c")
		h.want("a later release with the same evidence", names("rel_4"), "3 open, 2 accepted, unbuilt ")
		e, err := h.vuln.Affected(h.Context(), "ten_a", "CVE-2026-10005", h.clock.Now())
		h.must(err)
		var exposed []string
		for _, r := range e.Releases {
			if r.Exposed {
				exposed = append(exposed, r.Release)
			}
		}
		if !slices.Equal(exposed, []string{"rel_3"}) {
			t.Errorf("exposed are %q, want the one that compiles it", exposed)
		}

		if _, err := h.vuln.ReopenUnbuilt(h.Context(), "ten_a", "per_1", "rel_2", " "); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("without a reason: %v", err)
		}
		n, err = h.vuln.ReopenUnbuilt(h.Context(), "ten_a", "per_1", "rel_2", "the list was of another build")
		h.must(err)
		if n != 2 {
			t.Errorf("%d opened again", n)
		}
		h.want("opened again", names("rel_1"), "3 open, 0 accepted, unbuilt ")
	})
}
