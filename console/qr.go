// SPDX-License-Identifier: AGPL-3.0-only

package console

import (
	"fmt"
	"html/template"
	"strings"

	"rsc.io/qr"

	"github.com/openthings-platform/openthings/problem"
)

// quiet is the blank border of a QR code in modules (ISO/IEC 18004).
const quiet = 4

// QR is the QR code of a text as one path of SVG, for printing at any size; a screen reader says the label. Level M stands
// it with 15 % of it gone.
func QR(text, label string) (template.HTML, error) {
	c, err := qr.Encode(text, qr.M)
	if err != nil {
		return "", problem.Invalid("The text is too long for a QR code.").Because(err)
	}
	size := c.Size + 2*quiet
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" class="qr" role="img" aria-label="%s" shape-rendering="crispEdges"><path fill="#fff" d="M0 0h%dv%dH0z"/><path fill="#000" d="`,
		size, size, 5*size, 5*size, template.HTMLEscapeString(label), size, size)
	for y := range c.Size {
		for x := 0; x < c.Size; x++ {
			from := x
			for x < c.Size && c.Black(x, y) {
				x++
			}
			if x > from {
				fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", from+quiet, y+quiet, x-from, x-from)
			}
		}
	}
	b.WriteString(`"/></svg>`)
	return template.HTML(b.String()), nil //nolint:gosec // everything above is a number or escaped
}
