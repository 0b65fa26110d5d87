// SPDX-License-Identifier: AGPL-3.0-only

package law

import (
	_ "embed"
	"fmt"
	"strings"
)

// Row is a rule that stands in an annex or an article, under an id such as cra.i.1.2.a, cra.ii.14 or cra.13.25.
type Row = Rule

// Annex lists the rows below an id, in the order of the text: "cra.i" are the 22 essential requirements of Annex I,
// "cra.i.2" those of its Part II, "cra.13" the paragraphs of Article 13. Points within a paragraph follow it. No row: nil.
func Annex(id string) (rows []Row) {
	for _, r := range rules {
		if strings.HasPrefix(r.ID, id+".") {
			rows = append(rows, r)
		}
	}
	return rows
}

// Class is how much of a third party the law demands before a product may be placed on the market.
type Class string

// The classes (CRA Articles 7 and 8, Annexes III and IV).
const (
	Default     Class = "default"
	ImportantI  Class = "important-1" // Annex III class I
	ImportantII Class = "important-2" // Annex III class II
	Critical    Class = "critical"    // Annex IV
)

// Name is the class in words for people.
func (c Class) Name() string {
	switch c {
	case ImportantI:
		return "Important, class I"
	case ImportantII:
		return "Important, class II"
	case Critical:
		return "Critical"
	}
	return "Default"
}

// Category is one category of important or critical products. What decides is the core functionality of a product
// (CRA Article 7(1)); a component of a category does not bring the product that integrates it into the category.
type Category struct {
	ID      string `json:"id" doc:"Stable id, such as cra.iii.1.9"`
	Class   Class  `json:"class" enum:"important-1,important-2,critical"`
	Number  int    `json:"number" doc:"In the list of its class"`
	Title   string `json:"title" doc:"As the annex has it"`
	Says    string `json:"says" doc:"The heart of the technical description of Implementing Regulation (EU) 2025/2392, quoted"`
	Source  string `json:"source"`
	From    Date   `json:"from"`
	Checked Date   `json:"checked"`
	Basis   Basis  `json:"basis" enum:"text,secondary,recalled"`
}

// Ref is where the category stands.
func (c Category) Ref() string {
	switch c.Class {
	case ImportantI:
		return fmt.Sprintf("CRA Annex III class I(%d)", c.Number)
	case ImportantII:
		return fmt.Sprintf("CRA Annex III class II(%d)", c.Number)
	}
	return fmt.Sprintf("CRA Annex IV(%d)", c.Number)
}

// Citation is a harmonised standard whose reference the Official Journal has published: the only thing by which a
// document may claim what Article 27(1) attaches to it. The list is empty until there is one.
type Citation struct {
	Standard  string   `json:"standard" doc:"With its edition, such as EN 40000-1-3:2027"`
	Title     string   `json:"title"`
	Act       string   `json:"act" doc:"The implementing decision, as an ELI path"`
	Published Date     `json:"published" doc:"In the Official Journal"`
	Until     Date     `json:"until,omitzero" doc:"Withdrawn from this day"`
	Covers    []string `json:"covers" doc:"Ids of the rows of Annex I that it covers"`
	Checked   Date     `json:"checked"`
}

//go:embed classes.json
var classesJSON []byte

//go:embed citations.json
var citationsJSON []byte

var (
	categories = must(parse[[]Category](classesJSON))
	citations  = must(parseCitations(citationsJSON))
)

// Classes lists the categories of Annexes III and IV. The caller must not change it.
func Classes() []Category { return categories }

// CategoryOf returns the category with that id.
func CategoryOf(id string) (Category, bool) {
	for _, c := range categories {
		if c.ID == id {
			return c, true
		}
	}
	return Category{}, false
}

// Citations lists the harmonised standards that are cited for this Regulation. The caller must not change it.
func Citations() []Citation { return citations }

// parseCitations refuses a citation without standard, act, dates, or whose rows are none of Annex I.
func parseCitations(b []byte) ([]Citation, error) {
	cs, err := parse[[]Citation](b)
	if err != nil {
		return nil, fmt.Errorf("citations: %w", err)
	}
	for _, c := range cs {
		if c.Standard == "" || !strings.HasPrefix(c.Act, "eli/") || c.Published.IsZero() || c.Checked.Before(c.Published.Time) || len(c.Covers) == 0 {
			return nil, fmt.Errorf("citation %q lacks a part", c.Standard)
		}
		for _, id := range c.Covers {
			if !strings.HasPrefix(id, "cra.i.") {
				return nil, fmt.Errorf("citation %q covers %q, which is no row of Annex I", c.Standard, id)
			}
		}
	}
	return cs, nil
}
