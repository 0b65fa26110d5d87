// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRelease executes docs/releases.md with a key that is thrown away: a release of the agent and the verifier is made and
// signed, verified with openssl and sha256sum, and built again from a copy of the tree at another place and with an empty
// build cache: the bytes are the same. One flipped bit is refused.
func TestRelease(t *testing.T) {
	repo, dir := repository(t), t.TempDir()
	text, err := os.ReadFile(filepath.Join(repo, "docs", "releases.md"))
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	script.WriteString("set -eu -o pipefail\n")
	add := func(heading string, replace ...string) {
		t.Helper()
		for _, s := range sections(string(text)) {
			if s.heading != heading {
				continue
			}
			blocks, err := shellBlocks(s.text)
			if err != nil || len(blocks) == 0 {
				t.Fatalf("%s: %v", heading, err)
			}
			for _, b := range blocks {
				script.WriteString(strings.NewReplacer(replace...).Replace(b.text))
			}
			return
		}
		t.Fatalf("docs/releases.md has no part %q", heading)
	}
	const command = "make release VERSION=1.4.0 DAY=2027-03-01 KEY=release.key OUT=release-1.4.0"
	if !strings.Contains(string(text), command) {
		t.Fatalf("the page does not say %q", command)
	}
	add("Make one", command, `"$REPO/scripts/release.sh" 1.4.0 2027-03-01 release.key release-1.4.0`)
	add("Verify")
	script.WriteString("mkdir copy && tar -C \"$REPO\" --exclude=./.git --exclude=./node_modules --exclude=./bin --exclude=./bench -cf - . | tar -C copy -xf -\nexport GOCACHE=$PWD/cache\n")
	add("Build it again", "scripts/release.sh", "copy/scripts/release.sh")
	// A release that was touched is refused, by whichever check sees it.
	script.WriteString("cd release-1.4.0\nprintf x >> SECURITY.md\nif sha256sum --check --strict --quiet SHA256SUMS; then exit 1; fi\n" +
		"printf ' ' >> SHA256SUMS\nif openssl pkeyutl -verify -pubin -inkey ../release.pub -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig; then exit 1; fi\n")

	cmd := exec.Command("bash", "-c", script.String())
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "REPO="+repo, "SELF="+filepath.Join(build(t, "openthings"), "openthings"), "PROGRAMS=openthings-agent openthings-verify", "TARGETS=linux/amd64")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Count(string(out), "Signature Verified Successfully") != 1 || !strings.Contains(string(out), "openthings-agent-1.4.0-linux-amd64: OK") {
		t.Errorf("the reader does not see that it verifies:\n%s", out)
	}
	// The make target of the page is the script.
	plan := exec.Command("make", "-n", "release", "VERSION=1.4.0", "DAY=2027-03-01", "KEY=release.key", "OUT=release-1.4.0")
	plan.Dir = repo
	if out, err := plan.CombinedOutput(); err != nil || !strings.Contains(string(out), `scripts/release.sh "1.4.0" "2027-03-01" "release.key" "release-1.4.0"`) {
		t.Errorf("make release: %v\n%s", err, out)
	}
}
