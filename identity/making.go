// SPDX-License-Identifier: AGPL-3.0-only

package identity

import "encoding/json"

// making is what of Device.Made stands in columns of its own, by which lists are narrowed.
type making struct{ Order, Line, Part string }

// makingOf reads Made. A text that is not what a line wrote has nothing to find it by.
func makingOf(made string) (m making) {
	if made == "" || json.Unmarshal([]byte(made), &m) != nil {
		return making{}
	}
	return making{FoldMade(m.Order), FoldMade(m.Line), FoldMade(m.Part)}
}

// FoldMade writes an order, a line or a part number as the columns made_order, made_line and made_part of the row "device"
// keep it: A to Z as small letters and no others, which is what lower() does on both engines.
func FoldMade(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
