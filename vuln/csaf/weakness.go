// SPDX-License-Identifier: AGPL-3.0-only

package csaf

import (
	_ "embed"
	"strings"
	"sync"

	"github.com/openthings-platform/openthings/problem"
)

//go:embed cwe.txt
var weaknessNames string

var weaknesses = sync.OnceValue(func() map[string]string {
	names := map[string]string{}
	for line := range strings.Lines(weaknessNames) {
		if id, name, ok := strings.Cut(strings.TrimSpace(line), " "); ok && id != "#" {
			names[id] = name
		}
	}
	return names
})

// Weakness is the kind of weakness with the id, such as CWE-787.
func Weakness(id string) (*CWE, error) {
	name, ok := weaknesses()[id]
	if !ok {
		return nil, problem.Invalid("%.20q is not a weakness of the CWE list.", id).Hint("Ids are like CWE-787.")
	}
	return &CWE{ID: id, Name: name}, nil
}
