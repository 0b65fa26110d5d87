// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/sbom"
)

// firmware is what a small device in C is made of, as a bill without purls names it.
var firmware = []sbom.Identity{
	{Space: sbom.SpaceProduct, Name: "curl", Version: "8.3.0", Vendor: "haxx"}, {Space: sbom.SpaceCPE, Name: "haxx:curl", Version: "8.3.0"},
	{Space: sbom.SpaceProduct, Name: "openssl", Version: "1.1.1i"}, {Space: sbom.SpaceProduct, Name: "openssl", Version: "3.0.14", Vendor: "openssl"},
	{Space: sbom.SpaceProduct, Name: "zlib", Version: "1.2.13"}, {Space: sbom.SpaceProduct, Name: "wpa-supplicant", Version: "2.10"},
	{Space: sbom.SpaceProduct, Name: "glibc", Version: "2.38"}, {Space: sbom.SpaceProduct, Name: "mosquitto", Version: "2.0.15"},
	{Space: sbom.SpaceProduct, Name: "wolfssl", Version: "5.6.0"}, {Space: sbom.SpaceProduct, Name: "mbedtls", Version: "3.5.0"},
	{Space: sbom.SpaceProduct, Name: "xz", Version: "5.6.2"}, {Space: sbom.SpaceProduct, Name: "expat", Version: "2.5.0"},
	{Space: sbom.SpaceProduct, Name: "u-boot", Version: "2023.01"}, {Space: sbom.SpaceProduct, Name: "dnsmasq", Version: "2.86"},
	{Space: sbom.SpaceProduct, Name: "libmodbus", Version: "3.1.6"}, {Space: sbom.SpaceProduct, Name: "zephyr", Version: "3.6.0"},
}

// TestFirmware has every finding of the real records in a small firmware; each was checked beside its record.
func TestFirmware(t *testing.T) {
	var lines []string
	for id, doc := range cveList(t) {
		r := parsed(t, doc)
		for _, c := range firmware {
			v, _ := judged(t, r, c)
			if v.State == StateClean {
				continue
			}
			line := fmt.Sprintf("%s %s %s: %s", id, c.Name, c.Version, v.State)
			if v.Fixed != "" {
				line += ", fixed in " + v.Fixed
			}
			if v.Reason != "" {
				line += ", " + v.Reason
			}
			lines = append(lines, line+fmt.Sprintf(" (%s, %s)%s", v.Confidence, v.Speaker, strings.Join(append([]string{""}, v.Conditions...), "; ")))
		}
	}
	slices.Sort(lines)
	golden, err := os.ReadFile("testdata/firmware.txt")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(strings.TrimSpace(string(golden)), "\n"), lines); d != "" {
		t.Errorf("testdata/firmware.txt differs:\n%s", d)
	}
}

// BenchmarkKernel judges one version by all real records of the kernel: what a delta costs per component and record.
func BenchmarkKernel(b *testing.B) {
	var judges []Judge
	var bodies []Claim
	for _, doc := range cveList(b) {
		r := parsed(b, doc)
		for _, c := range r.Claims() {
			if c.Space == sbom.SpaceKernel {
				j, err := Compile(c.Space, c.Body)
				if err != nil {
					b.Fatal(err)
				}
				judges, bodies = append(judges, j), append(bodies, c)
			}
		}
	}
	b.Run("judge", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			judges[i%len(judges)].Judge(kernel("5.10.100"))
		}
	})
	b.Run("compile", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := Compile(bodies[i%len(bodies)].Space, bodies[i%len(bodies)].Body); err != nil {
				b.Fatal(err)
			}
		}
	})
}
