// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	_ "embed"
	"strings"
)

//go:embed data/spdx-licences.txt
var spdxList string

var spdxLicences = func() map[string]bool {
	known := map[string]bool{}
	for line := range strings.Lines(spdxList) {
		if id := strings.TrimSpace(line); id != "" && id[0] != '#' {
			known[id] = true
		}
	}
	return known
}()

// onTheList turns an identifier that the SPDX list does not have into words: Buildroot writes "bzip2-1.0.4" as one, and no
// document that names it so again would be valid.
func (l Licence) onTheList() Licence {
	if l.ID != "" && !spdxLicences[l.ID] {
		return Licence{Name: l.ID}
	}
	return l
}
