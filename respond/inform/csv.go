// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/problem"
)

// importHead are the columns of a file of contacts. A line is a contact and one product of it; the same address on several
// lines is one contact with several products.
var importHead = []string{"name", "role", "channel", "address", "language", "product", "revision"}

const (
	maxImport     = 1 << 20 // bytes
	maxImportRows = 1000    // lines, all written in one transaction
	maxRefusals   = 20      // that are told at once
)

// refusals collects what is wrong with lines of a file.
type refusals struct {
	told []string
	more int
}

func (r *refusals) add(line int, err error) {
	if len(r.told) == maxRefusals {
		r.more++
		return
	}
	r.told = append(r.told, fmt.Sprintf("Line %d: %s", line, problem.Of(err).Text))
}

func (r *refusals) err() error {
	if len(r.told) == 0 {
		return nil
	}
	text := strings.Join(r.told, " ")
	if r.more > 0 {
		text += fmt.Sprintf(" And %d further lines.", r.more)
	}
	return problem.Invalid("%s", text).At("file").Hint("Nothing was imported. Correct these lines and send the whole file again.")
}

// readContacts reads a file of contacts, or says which lines are wrong. find turns what a line calls product and revision
// into their ids.
func readContacts(file []byte, find func(product, revision string) (Holding, error)) ([]Contact, error) {
	file = bytes.TrimPrefix(file, []byte("\ufeff"))
	switch {
	case len(file) > maxImport:
		return nil, problem.TooLarge("A file of contacts has at most %d bytes.", maxImport).At("file").Hint("Import it in several files.")
	case !utf8.Valid(file):
		return nil, problem.Invalid("The file is not UTF-8.").At("file").Hint("Save it as “CSV UTF-8”.")
	}
	r := csv.NewReader(bytes.NewReader(file))
	if head, _, _ := bytes.Cut(file, []byte("\n")); bytes.Count(head, []byte(";")) > bytes.Count(head, []byte(",")) {
		r.Comma = ';' // as spreadsheets write it where the comma is a decimal point
	}
	head, err := r.Read()
	for i := range head {
		head[i] = strings.ToLower(strings.TrimSpace(head[i]))
	}
	if err != nil || !slices.Equal(head, importHead) {
		return nil, problem.Invalid("The first line names the columns: %s.", strings.Join(importHead, ",")).At("file")
	}
	var out []Contact
	var wrong refusals
	at := map[string]int{} // by address
	for rows := 0; ; rows++ {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		var bad *csv.ParseError
		if errors.As(err, &bad) {
			if wrong.add(bad.Line, problem.Invalid("it is not CSV with %d columns.", len(importHead))); !errors.Is(err, csv.ErrFieldCount) {
				break // what follows cannot be told apart any more
			}
			continue
		}
		line, _ := r.FieldPos(0)
		if rows == maxImportRows {
			return nil, problem.TooLarge("A file has at most %d lines of contacts.", maxImportRows).At("file").Hint("Import it in several files.")
		}
		c, err := contactOf(row, find)
		if err != nil {
			wrong.add(line, err)
			continue
		}
		i, known := at[c.Address]
		if !known {
			at[c.Address], out = len(out), append(out, c)
			continue
		}
		if was := out[i]; was.Name != c.Name || was.Role != c.Role || was.Language != c.Language {
			wrong.add(line, problem.Invalid("%.60q stands above with another name, role or language.", c.Address))
			continue
		}
		out[i].Products = append(out[i].Products, c.Products...)
		if err := out[i].check(false); err != nil {
			wrong.add(line, err)
		}
	}
	if err := wrong.err(); err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, problem.Invalid("The file names no contact.").At("file")
	}
	return out, nil
}

func contactOf(row []string, find func(product, revision string) (Holding, error)) (Contact, error) {
	for i := range row {
		row[i] = strings.TrimSpace(row[i])
	}
	c := Contact{Role: strings.ToLower(row[1]), Channel: strings.ToLower(row[2]), Language: strings.ToLower(row[4]), Person: Person{Name: row[0], Address: row[3]}}
	if c.Channel == Webhook {
		return c, problem.Invalid("A webhook is added by itself: its secret is shown once.")
	}
	has, err := find(row[5], row[6])
	if err != nil {
		return c, err
	}
	c.Products = []Holding{has}
	return c, c.check(false)
}
