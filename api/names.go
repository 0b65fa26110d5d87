// SPDX-License-Identifier: AGPL-3.0-only

package api

import (
	"path"
	"reflect"
	"regexp"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// qualified is a type of another package inside the name of a generic one: Page[example.org/x/vuln.Summary].
var qualified = regexp.MustCompile(`[\w./-]*/(\w+)\.(\w+)`)

// schemaName names a type in the OpenAPI document by room and noun (FleetSummary, VulnSummary): rooms use the same plain
// nouns, and huma refuses two schemas of one name.
func schemaName(t reflect.Type, hint string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	name := huma.DefaultSchemaNamer(t, hint)
	pkg := path.Base(t.PkgPath())
	if t.Name() == "" || pkg == "." {
		return name
	}
	if inner := qualified.FindAllStringSubmatch(t.Name(), -1); len(inner) > 0 {
		outer, _, _ := strings.Cut(t.Name(), "[")
		name = ""
		for _, m := range inner {
			name += room(m[1]) + m[2]
		}
		name += outer
	}
	return room(pkg) + name
}

// room is the prefix that a package gives; the kit's own types have none.
func room(pkg string) string {
	if pkg == "api" || pkg == "time" || pkg == "json" {
		return ""
	}
	return strings.ToUpper(pkg[:1]) + pkg[1:]
}
