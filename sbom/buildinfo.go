// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"bytes"
	"fmt"
	"runtime/debug"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"github.com/openthings-platform/openthings/problem"
)

// FromBuildInfo writes the CycloneDX 1.6 JSON of a Go program from the build information inside its binary, as
// debug/buildinfo reads it: every module that was linked, in the version that was linked, and the standard library.
// imageDigest is the "sha256:<hex>" of the binary as shipped. The same input gives the same bytes; the only time in it
// is that of the commit, where the binary records one.
func FromBuildInfo(bi *debug.BuildInfo, imageDigest, name, version string) ([]byte, error) {
	var check Bill
	if check.addDigest(imageDigest); len(check.Digests) != 1 {
		return nil, problem.Invalid("the image's digest must be sha256:<64 hex digits>, not %.80q", imageDigest)
	}
	bom := cdx.NewBOM()
	bom.SpecVersion = cdx.SpecVersion1_6
	bom.JSONSchema = "http://cyclonedx.org/schema/bom-1.6.schema.json"
	root := cdx.Component{
		BOMRef: "root", Type: cdx.ComponentTypeApplication, Name: name, Version: version,
		Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: strings.TrimPrefix(check.Digests[0], "sha256:")}},
	}
	bom.Metadata = &cdx.Metadata{
		Component: &root,
		Tools:     &cdx.ToolsChoice{Components: &[]cdx.Component{{Type: cdx.ComponentTypeApplication, Name: Tool}}},
	}
	for _, s := range bi.Settings {
		if s.Key == "vcs.time" {
			bom.Metadata.Timestamp = s.Value
		}
	}
	components := []cdx.Component{}
	refs := []string{}
	add := func(path, version, sum string) {
		c := cdx.Component{Type: cdx.ComponentTypeLibrary, Name: path, Version: version, PackageURL: "pkg:golang/" + path}
		if version != "" {
			c.PackageURL += "@" + strings.ReplaceAll(version, "+", "%2B")
		}
		c.BOMRef = c.PackageURL
		if sum != "" {
			c.Properties = &[]cdx.Property{{Name: "cdx:go:module:sum", Value: sum}}
		}
		components, refs = append(components, c), append(refs, c.BOMRef)
	}
	// A toolchain may add experiments after the version: "go1.26.8 X:nocoverageredesign".
	if release, _, _ := strings.Cut(strings.TrimPrefix(bi.GoVersion, "go"), " "); release != "" {
		add("stdlib", release, "")
	}
	if bi.Main.Version != "" && bi.Main.Version != "(devel)" { // else it has no version beside the root's own
		add(bi.Main.Path, bi.Main.Version, bi.Main.Sum)
	}
	for _, m := range bi.Deps {
		for m.Replace != nil {
			m = m.Replace // what was really linked
		}
		add(m.Path, m.Version, m.Sum)
	}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: root.BOMRef, Dependencies: &refs}}
	// Build information says what is inside, not which module asked for which.
	bom.Compositions = &[]cdx.Composition{{Aggregate: cdx.CompositionAggregateComplete, Assemblies: &[]cdx.BOMReference{"root"}},
		{Aggregate: cdx.CompositionAggregateUnknown, Dependencies: &[]cdx.BOMReference{"root"}}}

	first, err := encode(bom)
	if err != nil {
		return nil, err
	}
	bom.SerialNumber = "urn:uuid:" + uuidOf(first)
	return encode(bom)
}

func encode(bom *cdx.BOM) ([]byte, error) {
	var out bytes.Buffer
	if err := cdx.NewBOMEncoder(&out, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, bom.SpecVersion); err != nil {
		return nil, fmt.Errorf("write CycloneDX: %w", err)
	}
	return out.Bytes(), nil
}
