// SPDX-License-Identifier: AGPL-3.0-only

package record

import "testing"

func TestReached(t *testing.T) {
	for _, c := range []struct {
		space, version, fixed string
		want                  bool
	}{
		{"Go", "1.2.3", "1.2.3", true}, {"Go", "1.2.4", "1.2.3", true}, {"Go", "1.2.2", "1.2.3", false}, {"Go", "master", "1.2.3", false},
		{"Debian:12", "1:2.10-15", "1:2.10-15", true}, {"Debian:12", "1:2.10-14", "1:2.10-15", false}, {"Debian:12", "2:1.0-1", "1:2.10-15", true},
		{"kernel", "6.1.55", "6.1.50", true}, {"kernel", "6.1.55", "6.1.60", false}, {"cpe", "1.1.1za", "1.1.1k", true}, {"product", "8.3.0", "8.4.0", false},
		{"git", "0123456789012345678901234567890123456789", "1.0", false}, {"Go", "1.2.3", "", false},
	} {
		if got := Reached(c.space, c.version, c.fixed); got != c.want {
			t.Errorf("%s %s, fixed in %q: %v", c.space, c.version, c.fixed, got)
		}
	}
}
