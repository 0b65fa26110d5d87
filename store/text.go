// SPDX-License-Identifier: AGPL-3.0-only

package store

import (
	"database/sql/driver"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/problem"
)

// checked replaces arguments that PostgreSQL cannot keep as text (a NUL, bytes that are no UTF-8) by one that fails
// with a problem of kind invalid: what a stranger sent is the stranger's mistake on both engines, and never reaches
// either. It returns args itself when all is well.
func checked(args []any) []any {
	for i, a := range args {
		s, ok := a.(string)
		if !ok {
			v := reflect.ValueOf(a)
			if v.Kind() != reflect.String {
				continue
			}
			s = v.String()
		}
		if strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s) {
			args = slices.Clone(args)
			args[i] = noText{}
		}
	}
	return args
}

// noText is an argument that fails before anything is sent, so that the transaction around it goes on.
type noText struct{}

func (noText) Value() (driver.Value, error) {
	return nil, problem.Invalid("The text holds a NUL or bytes that are not UTF-8.")
}
