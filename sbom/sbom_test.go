// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"bytes"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/problem"
)

const image = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func TestIdentity(t *testing.T) {
	for _, c := range []struct{ name, version, purl, want string }{
		{"stdlib", "go1.26.8", "pkg:golang/stdlib@1.26.8", "Go stdlib 1.26.8"},
		{"stdlib", "go1.26.8", "pkg:golang/stdlib", "Go stdlib 1.26.8"},
		{"github.com/BurntSushi/toml", "v1.6.0", "pkg:golang/github.com/burntsushi/toml@v1.6.0", "Go github.com/BurntSushi/toml 1.6.0"},
		{"x", "v2.0.0+incompatible", "pkg:golang/github.com/docker/docker@v2.0.0%2Bincompatible", "Go github.com/docker/docker 2.0.0+incompatible"},
		{"login", "1:4.13+dfsg1-1", "pkg:deb/debian/login@1%3A4.13%2Bdfsg1-1?distro=debian-12&upstream=shadow", "Debian:12 shadow 1:4.13+dfsg1-1"},
		{"libgcc-s1", "12.2.0-14", "pkg:deb/debian/libgcc-s1@12.2.0-14?distro=debian-12.5&upstream=gcc-12%4012.2.0-9", "Debian:12 gcc-12 12.2.0-9"},
		{"login", "1", "pkg:deb/debian/login@1", " login 1"}, // no suite: not comparable, not guessed
		{"busybox", "1.36.1-r29", "pkg:apk/alpine/busybox@1.36.1-r29?distro=alpine-3.20.1", "Alpine:v3.20 busybox 1.36.1-r29"},
		{"core", "7.0.0", "pkg:npm/%40babel/core@7.0.0", "npm @babel/core 7.0.0"},
		{"guava", "31", "pkg:maven/com.google.guava/guava@31", "Maven com.google.guava:guava 31"},
	} {
		got := Component{Name: c.name, Version: c.version, PURL: c.purl}
		if err := got.check(); err != nil {
			t.Errorf("%s: %v", c.purl, err)
			continue
		}
		if strings.HasPrefix(c.want, " ") {
			if got.Matchable() {
				t.Errorf("%s: must not be matchable, got %q", c.purl, got.Ecosystem)
			}
			continue
		}
		if s := got.Ecosystem + " " + got.Package + " " + got.PackageVersion; s != c.want {
			t.Errorf("%s: %q, want %q", c.purl, s, c.want)
		}
	}
	if Fold("Go", "github.com/BurntSushi/toml") != "github.com/burntsushi/toml" || Fold("PyPI", "Zope.Interface") != "zope-interface" ||
		Fold("npm", "JSONStream") != "JSONStream" {
		t.Error("names are folded wrongly")
	}
}

func TestHostileDocumentsAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		doc  string
		kind problem.Kind
		say  string
	}{
		"empty":       {"", problem.KindInvalid, "empty"},
		"prose":       {"hello", problem.KindInvalid, "not a bill"},
		"gzip":        {"\x1f\x8b\x08\x00", problem.KindInvalid, "packed"},
		"zip":         {"PK\x03\x04", problem.KindInvalid, "packed"},
		"other JSON":  {`{"a":1}`, problem.KindInvalid, "not a bill"},
		"cut":         {`{"bomFormat":"CycloneDX","specVersion":"1.6","components":[`, problem.KindInvalid, "JSON"},
		"no version":  {`{"bomFormat":"CycloneDX","components":[{"name":"a","type":"library"}]}`, problem.KindInvalid, "version"},
		"nothing":     {`{"bomFormat":"CycloneDX","specVersion":"1.6"}`, problem.KindInvalid, "no component"},
		"nameless":    {`{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"type":"library"}]}`, problem.KindInvalid, "no name"},
		"wrong type":  {`{"bomFormat":"CycloneDX","specVersion":"1.6","components":{"a":1}}`, problem.KindInvalid, "cannot be read"},
		"deep":        {`{"bomFormat":"CycloneDX","components":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, problem.KindInvalid, "deep"},
		"long string": {`{"bomFormat":"CycloneDX","x":"` + strings.Repeat("a", maxString+1) + `"}`, problem.KindTooLarge, "string"},
		"long name":   {`{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"type":"library","name":"` + strings.Repeat("a", maxIdentity+1) + `"}]}`, problem.KindTooLarge, "longer"},
		"NUL":         {`{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"type":"library","name":"a\u0000"}]}`, problem.KindInvalid, "control"},
		"hidden NUL":  {`{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"type":"library","name":"a","purl":"pkg:npm/a%00@1"}]}`, problem.KindInvalid, "control"},
		"entities":    {`<?xml version="1.0"?><!DOCTYPE bom [<!ENTITY a "aaaa">]><bom xmlns="http://cyclonedx.org/schema/bom/1.6">&a;</bom>`, problem.KindInvalid, "document type"},
		"other XML":   {`<html/>`, problem.KindInvalid, "cannot be read"},
		"other bom":   {`<bom xmlns="urn:x"/>`, problem.KindInvalid, "not a bill"},
		"deep XML":    {strings.Repeat("<bom>", 100), problem.KindInvalid, "deep"},
		"open text":   {"SPDXVersion: SPDX-2.3\nPackageComment: <text>a\nb", problem.KindInvalid, "<text>"},
		"stray tag":   {"SPDXVersion: SPDX-2.3\nPackageVersion: 1", problem.KindInvalid, "before any PackageName"},
		"tag 1.2":     {"SPDXVersion: SPDX-1.2\nPackageName: a", problem.KindInvalid, "not a bill"},
		"SPDX 3 void": {`{"@context":"https://spdx.org/rdf/3.0.1/spdx-context.jsonld","@graph":[]}`, problem.KindInvalid, "not a bill"},
	} {
		_, err := Parse([]byte(c.doc))
		if !problem.Is(err, c.kind) || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v; want %s with %q", name, err, c.kind, c.say)
		}
	}
	if _, err := Parse(make([]byte, MaxBytes+1)); !problem.Is(err, problem.KindTooLarge) {
		t.Errorf("too many bytes: %v", err)
	}
	many := `{"bomFormat":"CycloneDX","specVersion":"1.6","components":[` + strings.Repeat(`{"type":"library","name":"a"},`, MaxComponents+1)
	if _, err := Parse([]byte(strings.TrimSuffix(many, ",") + "]}")); !problem.Is(err, problem.KindTooLarge) {
		t.Errorf("too many components: %v", err)
	}
}

func TestFromBuildInfo(t *testing.T) {
	bi := &debug.BuildInfo{
		GoVersion: "go1.26.8 X:something", Path: "example.com/lamp", Main: debug.Module{Path: "example.com/lamp", Version: "(devel)"},
		Deps: []*debug.Module{
			{Path: "golang.org/x/net", Version: "v0.10.0", Sum: "h1:abc="},
			{Path: "example.com/old", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/new", Version: "v1.0.1+incompatible"}},
		},
		Settings: []debug.BuildSetting{{Key: "vcs.time", Value: "2026-11-01T00:00:00Z"}},
	}
	doc, err := FromBuildInfo(bi, image, "lamp", "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	again, err := FromBuildInfo(bi, image, "lamp", "1.0.0")
	if err != nil || !bytes.Equal(doc, again) {
		t.Fatalf("the same build gave two documents (%v)", err)
	}
	b, err := Parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	if !b.Names(image) || b.Names("sha256:"+strings.Repeat("b", 64)) || b.Names("") {
		t.Errorf("digests %q", b.Digests)
	}
	want := []string{"Go example.com/new 1.0.1+incompatible (example.com/new)", "Go golang.org/x/net 0.10.0 (golang.org/x/net)", "Go stdlib 1.26.8 (stdlib)"}
	if got := packages(b); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("packages %q, want %q", got, want)
	}
	if q := b.Quality(); q.Grade != GradeUsable || q.NotMatchable() != 0 || !slices.ContainsFunc(q.Missing, func(s string) bool { return strings.Contains(s, "SHA-512") }) {
		t.Errorf("quality %+v", q)
	}
	if _, err := FromBuildInfo(bi, "md5:abc", "lamp", "1"); !problem.Is(err, problem.KindInvalid) {
		t.Errorf("a foreign digest was taken: %v", err)
	}
	own, ok := debug.ReadBuildInfo()
	if !ok {
		t.Fatal("the test has no build information")
	}
	if doc, err = FromBuildInfo(own, image, "openthings", "test"); err != nil {
		t.Fatal(err)
	}
	if _, err = Parse(doc); err != nil {
		t.Errorf("our own bill cannot be read back: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`{"bomFormat":"CycloneDX","specVersion":"1.6","metadata":{"component":{"type":"firmware","name":"lamp","version":"1"}},"components":[{"type":"library","name":"a","purl":"pkg:golang/a@v1","components":[{"type":"file","name":"f","hashes":[{"alg":"SHA-256","content":"00"}]}]}]}`,
		`<?xml version="1.0"?><bom xmlns="http://cyclonedx.org/schema/bom/1.4"><components><component type="library"><name>a</name><version>1</version></component></components></bom>`,
		`{"spdxVersion":"SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT","packages":[{"name":"a","SPDXID":"b","externalRefs":[{"referenceType":"purl","referenceLocator":"pkg:deb/debian/a@1%3A2?distro=debian-12&upstream=b%403"}]}],"documentDescribes":["b"]}`,
		"SPDXVersion: SPDX-2.3\nPackageName: a\nSPDXID: SPDXRef-a\nPackageVersion: 1\nExternalRef: PACKAGE-MANAGER purl pkg:npm/a@1\nPackageComment: <text>x\ny</text>\n",
		`{"@context":"x","@graph":[{"type":"CreationInfo","specVersion":"3.0.1"},{"type":"software_Package","spdxId":"a","name":"n","software_packageUrl":"pkg:pypi/n@1"}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		b, err := Parse(doc)
		if err != nil {
			if problem.Of(err).Kind == problem.KindInternal {
				t.Fatalf("not a clear refusal: %v", err)
			}
			return
		}
		b.Quality()
		for _, c := range b.Components {
			if c.Name == "" || len(c.Package) > maxIdentity {
				t.Fatalf("component %+v", c)
			}
		}
	})
}
