// SPDX-License-Identifier: AGPL-3.0-only

package console

import (
	"bytes"
	"html/template"
	"io/fs"
)

// Blocks parses a template of a stage that only defines blocks, and returns what renders one of them by its name: a part
// of a page that Live sends again is the same in both. Blocks may use the parts of the kit. It panics when the template
// is broken.
func (c *Console) Blocks(dir fs.FS, name string) func(block string, data any) template.HTML {
	t := c.parse(dir, name)
	return func(block string, data any) template.HTML {
		var b bytes.Buffer
		if err := t.ExecuteTemplate(&b, block, data); err != nil {
			c.cfg.Log.Error("block", "name", block, "err", err)
		}
		return template.HTML(b.String())
	}
}
