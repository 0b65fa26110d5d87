// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"net/url"
	"strings"

	"rsc.io/qr"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
)

// quiet is the blank border of a QR code in modules (ISO/IEC 18004).
const quiet = 4

// Label is what stands on a unit or its box: the claim code, and a QR code of it or of the link that leads to the public
// page of the unit (package evidence), from where its owner claims it.
type Label struct {
	Serial string
	Code   string // with its hyphens
	Link   string // address of the platform, such as https://things.example; empty: the code alone
}

// Text is what the QR code says.
func (l Label) Text() string {
	if l.Link == "" {
		return l.Code
	}
	return strings.TrimSuffix(l.Link, "/") + "/label?" + url.Values{"code": {l.Code}}.Encode()
}

// codeOf is the claim code in what a label says: the code itself, or the link to it.
func codeOf(text string) string {
	if u, err := url.Parse(strings.TrimSpace(text)); err == nil && u.Host != "" && (strings.HasSuffix(u.Path, "/label") || strings.HasSuffix(u.Path, "/claim")) {
		return u.Query().Get("code")
	}
	return text
}

// NewLabel checks what goes on a label and writes the code as labels have it.
func NewLabel(serial, code, link string) (Label, error) {
	if _, err := parseCode(code); err != nil {
		return Label{}, err
	}
	letters := confusable.Replace(strings.ToUpper(codeOf(code)))
	var groups []string
	for ; len(letters) > codeGroup+1; letters = letters[codeGroup:] {
		groups = append(groups, letters[:codeGroup])
	}
	u, err := url.Parse(link)
	if link != "" && (err != nil || u.Host == "" || u.Scheme != "https" || u.RawQuery != "" || len(link) > 200) {
		return Label{}, problem.Invalid("The link of a label is the https address of the platform.").At("link")
	}
	if len(serial) > 64 {
		return Label{}, problem.Invalid("A serial number has at most 64 characters.").At("serial")
	}
	return Label{Serial: serial, Code: strings.Join(append(groups, letters), "-"), Link: link}, nil
}

// encode makes the QR code; level M stands a label with 15 % of it gone.
func (l Label) encode() (*qr.Code, error) {
	c, err := qr.Encode(l.Text(), qr.M)
	if err != nil {
		return nil, problem.Invalid("The label is too long for a QR code.").Because(err)
	}
	return c, nil
}

// PNG is the QR code as an image with 8 pixels a module.
func (l Label) PNG() ([]byte, error) {
	c, err := l.encode()
	if err != nil {
		return nil, err
	}
	return c.PNG(), nil
}

// SVG is the QR code as one path, for printing at any size; a screen reader says the code.
func (l Label) SVG() (string, error) {
	svg, err := console.QR(l.Text(), "QR code of the claim code "+l.Code)
	return string(svg), err
}

// Blocks is the QR code for a terminal with light text on dark ground: two rows of modules in each line.
func (l Label) Blocks() (string, error) {
	c, err := l.encode()
	if err != nil {
		return "", err
	}
	light := func(x, y int) bool { return !c.Black(x, y) } // outside is light
	var b strings.Builder
	for y := -quiet; y < c.Size+quiet; y += 2 {
		for x := -quiet; x < c.Size+quiet; x++ {
			switch upper, lower := light(x, y), light(x, y+1); {
			case upper && lower:
				b.WriteRune('█')
			case upper:
				b.WriteRune('▀')
			case lower:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}
