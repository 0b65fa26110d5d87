// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"slices"
	"strings"

	"github.com/package-url/packageurl-go"

	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/vuln/vex"
)

// subject is what a finding is about, by everything that a statement may call it.
type subject struct {
	release, image string
	bill           sbom.Subject
	part           sbom.Part
	all            func() ([]sbom.Part, error) // of the release
}

// fitter finds out which statements fit which findings. What a document may hold thousands of is looked at once.
type fitter struct {
	purls map[string]*packageurl.PackageURL // nil: it cannot be read
	near  map[[2]string]near                // by statement, and spelling of the component
}

func newFitter() *fitter { return &fitter{map[string]*packageurl.PackageURL{}, map[[2]string]near{}} }

// near is what a statement says of a component, before it is asked in which release.
type near struct {
	always bool          // it speaks of the component itself
	within []vex.Product // of whole products, or of the component inside them
}

// fits reports whether the statement speaks of the component in the release. Its product may be the release itself, or a
// component of it; a component that is named besides must be the one of the finding. What somebody says of a component
// inside another product of theirs says nothing of ours, unless it is a package of a distribution, which is built once.
func (t *fitter) fits(st statement, f subject) (bool, error) {
	key := [2]string{st.id, f.part.ID}
	n, ok := t.near[key]
	if !ok {
		n = t.nearTo(st, f.part)
		t.near[key] = n
	}
	if n.always {
		return true, nil
	}
	for _, p := range n.within {
		if t.is(p.Ref, f) {
			return true, nil
		}
		if len(p.Components) == 0 {
			continue
		}
		all, err := f.all()
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(all, func(other sbom.Part) bool { return t.same(p.Ref, other) }) {
			return true, nil
		}
	}
	return false, nil
}

func (t *fitter) nearTo(st statement, part sbom.Part) (n near) {
	for _, p := range st.Products {
		if len(p.Components) == 0 {
			if t.same(p.Ref, part) {
				return near{always: true}
			}
			n.within = append(n.within, p)
			continue
		}
		i := slices.IndexFunc(p.Components, func(c vex.Ref) bool { return t.same(c, part) })
		if i < 0 {
			continue
		}
		if st.doc.Origin == vex.Distribution && t.distributed(p.Components[i].PURL) {
			return near{always: true}
		}
		n.within = append(n.within, p)
	}
	return n
}

// is reports whether the reference means the release itself, or its bill.
func (t *fitter) is(r vex.Ref, f subject) bool {
	if r.Release() == f.release || r.Digest != "" && r.Digest == f.image {
		return true
	}
	if r.PURL != "" && f.bill.PURL != "" && t.same(vex.Ref{PURL: r.PURL, Range: r.Range}, sbom.Part{PURL: f.bill.PURL}) {
		return true
	}
	link, ok := strings.CutPrefix(r.ID, "urn:cdx:") // "urn:cdx:SERIAL/VERSION"
	serial, _, whole := strings.Cut(link, "/")
	return ok && whole && !strings.Contains(link, "#") && f.bill.URI == "urn:uuid:"+serial
}

func (t *fitter) purl(text string) *packageurl.PackageURL {
	p, ok := t.purls[text]
	if !ok {
		if parsed, err := packageurl.FromString(text); err == nil {
			p = &parsed
		}
		t.purls[text] = p
	}
	return p
}

func (t *fitter) distributed(purl string) bool {
	p := t.purl(purl)
	return p != nil && slices.Contains([]string{"deb", "rpm", "apk"}, p.Type)
}

// same reports whether the reference means the part. A package URL without a version means every version; what it says
// besides, such as the architecture, must not contradict the part's.
func (t *fitter) same(r vex.Ref, part sbom.Part) bool {
	if r.PURL != "" && part.PURL != "" {
		a, b := t.purl(r.PURL), t.purl(part.PURL)
		if a == nil || b == nil {
			return r.PURL == part.PURL
		}
		return r.Range == "" && samePackage(a, b)
	}
	if r.CPE != "" && part.CPE != "" {
		return sameCPE(r.CPE, part.CPE)
	}
	if r.PURL != "" && part.PURL == "" {
		if p := t.purl(r.PURL); p != nil && p.Type == packageurl.TypeGeneric {
			r.Name, r.Version = p.Name, p.Version // how a part without a package is called elsewhere
		}
	}
	return r.Name != "" && r.Range == "" && r.Name == part.Name && (r.Version == "" || r.Version == part.Version)
}

func samePackage(a, b *packageurl.PackageURL) bool {
	if a.Type != b.Type || !strings.EqualFold(a.Namespace, b.Namespace) || !strings.EqualFold(a.Name, b.Name) {
		return false
	}
	if a.Version != "" && strings.TrimPrefix(a.Version, "v") != strings.TrimPrefix(b.Version, "v") {
		return false
	}
	for _, q := range a.Qualifiers {
		for _, have := range b.Qualifiers {
			if q.Key == have.Key && q.Value != have.Value {
				return false
			}
		}
	}
	return true
}

// sameCPE compares part, vendor, product and version of two CPE names, 2.2 or 2.3; ANY in the first means every one.
func sameCPE(a, b string) bool {
	fields := func(s string) []string {
		s = strings.ToLower(s)
		if rest, ok := strings.CutPrefix(s, "cpe:2.3:"); ok {
			s = strings.ReplaceAll(rest, `\:`, "%3a")
		} else {
			s = strings.TrimPrefix(s, "cpe:/")
		}
		f := strings.SplitN(s, ":", 5)
		for len(f) < 4 {
			f = append(f, "*")
		}
		return f[:4]
	}
	x, y := fields(a), fields(b)
	for i := range x {
		if x[i] != y[i] && x[i] != "*" && x[i] != "" && !(i == 0 && y[i] == "*") {
			return false
		}
	}
	return true
}
