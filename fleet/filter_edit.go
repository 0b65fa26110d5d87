// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import "slices"

// parts are what every match fulfils.
func (f Filter) parts() []expr {
	switch root := f.root.(type) {
	case nil:
		return nil
	case all:
		return root
	}
	return []expr{f.root}
}

// Chosen returns the values of the one condition on the key that every match fulfils, or nil.
func (f Filter) Chosen(key string) (values []string) {
	for _, p := range f.parts() {
		if t, ok := p.(*term); ok && t.key == key && t.op == "" {
			for _, v := range t.values {
				values = append(values, v.text)
			}
		}
	}
	return values
}

// Without drops the conditions on the key that every match fulfils.
func (f Filter) Without(key string) Filter {
	kept := slices.DeleteFunc(slices.Clone(f.parts()), func(p expr) bool {
		t, ok := p.(*term)
		return ok && t.key == key
	})
	return Filter{all(kept)}
}

// With asks for the value of the key, instead of what was asked of the key before.
func (f Filter) With(key, text string) Filter {
	k, name, _ := keyOf(key)
	t := &term{key: key, of: k.Name, name: name, values: []value{{text: text}}}
	return Filter{all(append(f.Without(key).parts(), t))}
}
