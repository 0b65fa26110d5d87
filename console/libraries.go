// SPDX-License-Identifier: AGPL-3.0-only

package console

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
)

// Library is a package of others that is embedded for browsers.
type Library struct {
	Name, Version string
	Licence       string // of the SPDX list
	SHA512        string // of the package as the registry hands it out, in hex: what the lock file demanded when it was fetched
}

// Libraries lists what `make assets` fetched, from the lock file that it went by and that is embedded beside it. A build
// without them lists none.
func Libraries() []Library {
	lock, err := assetsFS.ReadFile("assets/vendor/.lock")
	if err != nil {
		return nil
	}
	return libraries(lock)
}

func libraries(lock []byte) (out []Library) {
	var doc struct {
		Packages map[string]struct {
			Version, Integrity, License string
			Dev                         bool
		}
	}
	if err := json.Unmarshal(lock, &doc); err != nil {
		panic("console: the embedded lock file: " + err.Error())
	}
	for at, p := range doc.Packages {
		name, ok := strings.CutPrefix(at, "node_modules/")
		if !ok || p.Dev {
			continue
		}
		l := Library{Name: name, Version: p.Version, Licence: p.License}
		if sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(p.Integrity, "sha512-")); err == nil {
			l.SHA512 = hex.EncodeToString(sum)
		}
		if l.Licence == "BSD-0-Clause" { // as one of them writes it; the list has the name below
			l.Licence = "0BSD"
		}
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b Library) int { return strings.Compare(a.Name, b.Name) })
	return out
}
