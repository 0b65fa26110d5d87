// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"cmp"
	"context"
	"slices"
	"strings"
)

// Change is a part that both bills list, and not alike.
type Change struct {
	Name            string `json:"name"`
	Before          Part   `json:"before"`
	After           Part   `json:"after"`
	VersionChanged  bool   `json:"version_changed"`
	LicenceChanged  bool   `json:"licence_changed"`
	SupplierChanged bool   `json:"supplier_changed"`
}

// Comparison is what became of one bill in another.
type Comparison struct {
	Added   []Part   `json:"added"`
	Removed []Part   `json:"removed"`
	Changed []Change `json:"changed"`
	Same    int      `json:"same"`
}

// Licences are the changes in which the licence is another one.
func (c Comparison) Licences() (list []Change) {
	for _, x := range c.Changed {
		if x.LicenceChanged {
			list = append(list, x)
		}
	}
	return list
}

// Versions are the changes in which the version is another one.
func (c Comparison) Versions() (list []Change) {
	for _, x := range c.Changed {
		if x.VersionChanged {
			list = append(list, x)
		}
	}
	return list
}

// CompareBills tells what became of the parts of one bill in another.
func CompareBills(before, after Bill) Comparison {
	parts := func(b Bill) (list []Part) {
		for _, c := range b.Components {
			list = append(list, partOf(c))
		}
		return list
	}
	return compare(parts(before), parts(after))
}

// thing is one piece of software on both sides, in whatever versions.
type thing struct{ before, after []Part }

// compare pairs the parts that are the same thing. Where a thing is listed in several versions, equal ones are pairs
// first and the others pair off in the order of their versions' spelling.
func compare(before, after []Part) Comparison {
	things := map[string]*thing{}
	gather := func(parts []Part, side func(*thing) *[]Part) {
		for _, p := range parts {
			k := p.Thing()
			if things[k] == nil {
				things[k] = &thing{}
			}
			list := side(things[k])
			if !slices.ContainsFunc(*list, func(q Part) bool { return alike(p, q) }) {
				*list = append(*list, p)
			}
		}
	}
	gather(before, func(t *thing) *[]Part { return &t.before })
	gather(after, func(t *thing) *[]Part { return &t.after })
	out := Comparison{Added: []Part{}, Removed: []Part{}, Changed: []Change{}}
	for _, t := range things {
		slices.SortFunc(t.before, byName)
		slices.SortFunc(t.after, byName)
		t.pair(&out, alike)
		t.pair(&out, func(a, b Part) bool { return a.Version == b.Version })
		t.pair(&out, func(a, b Part) bool { return true })
		out.Removed, out.Added = append(out.Removed, t.before...), append(out.Added, t.after...)
	}
	slices.SortFunc(out.Added, byName)
	slices.SortFunc(out.Removed, byName)
	slices.SortFunc(out.Changed, func(a, b Change) int { return cmp.Or(byName(a.After, b.After), byName(a.Before, b.Before)) })
	return out
}

func byName(a, b Part) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version), strings.Compare(a.ID, b.ID))
}

func alike(a, b Part) bool {
	return a.Version == b.Version && a.Licence == b.Licence && a.Supplier == b.Supplier
}

// pair takes the first two that match off both sides, again and again.
func (t *thing) pair(out *Comparison, match func(a, b Part) bool) {
	t.before = slices.DeleteFunc(t.before, func(a Part) bool {
		i := slices.IndexFunc(t.after, func(b Part) bool { return match(a, b) })
		if i < 0 {
			return false
		}
		b := t.after[i]
		t.after = slices.Delete(t.after, i, i+1)
		if alike(a, b) {
			out.Same++
			return true
		}
		out.Changed = append(out.Changed, Change{Name: b.Name, Before: a, After: b, VersionChanged: a.Version != b.Version,
			LicenceChanged: a.Licence != b.Licence, SupplierChanged: a.Supplier != b.Supplier})
		return true
	})
}

// Thing names what a part is, without its version: its package, the kernel, else its CPE name, else its own name.
func (p Part) Thing() string {
	if slices.Contains(p.Spaces, SpaceKernel) {
		return SpaceKernel // however each side calls it
	}
	if u, _, _ := strings.Cut(p.PURL, "?"); u != "" {
		if i := strings.LastIndexByte(u, '@'); i > strings.LastIndexByte(u, '/') {
			u = u[:i]
		}
		return strings.ToLower(u)
	}
	if n, ok := readCPE(p.CPE); ok {
		return "cpe " + n.vendor + ":" + n.product
	}
	return "name " + strings.ToLower(p.Name)
}

// Compare tells what became of the parts of one release in another, by what each lists now.
func (s *Service) Compare(ctx context.Context, tenant, before, after string) (Comparison, error) {
	var sides [2][]Part
	for i, release := range []string{before, after} {
		if _, err := s.Current(ctx, tenant, release); err != nil {
			return Comparison{}, err
		}
		var err error
		if sides[i], err = s.Components(ctx, tenant, release, "", MaxComponents+1); err != nil {
			return Comparison{}, err
		}
	}
	return compare(sides[0], sides[1]), nil
}
