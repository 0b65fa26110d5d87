// SPDX-License-Identifier: AGPL-3.0-only

package law

import (
	"slices"
	"strings"
	"testing"
)

// TestAnnexRows: each annex and article has the rows that the Official Journal counts, in its order.
func TestAnnexRows(t *testing.T) {
	for id, want := range map[string]int{"cra.i.1": 14, "cra.i.2": 8, "cra.i": 22, "cra.ii": 14, "cra.v": 8, "cra.vii": 8, "cra.13": 25} {
		if got := len(Annex(id)); got != want {
			t.Errorf("%s has %d rows, want %d", id, got, want)
		}
	}
	paragraphs := 0
	for _, r := range Annex("cra.14") {
		if strings.Count(r.ID, ".") == 2 {
			paragraphs++
		}
	}
	if paragraphs != 10 || len(Annex("cra.14")) != 16 {
		t.Errorf("Article 14 has %d paragraphs in %d rows, want 10 in 16", paragraphs, len(Annex("cra.14")))
	}
	if first := Annex("cra.i")[0].ID; first != "cra.i.1.1" {
		t.Errorf("Annex I begins with %s", first)
	}
	if Annex("cra.1") != nil {
		t.Error("Article 1 has rows: a prefix is taken for a parent")
	}
}

func TestCategories(t *testing.T) {
	count := map[Class]int{}
	for _, c := range Classes() {
		count[c.Class]++
		if c.Number != count[c.Class] || c.Title == "" || c.Says == "" || c.Checked.IsZero() || c.From.IsZero() || c.Basis != Text {
			t.Errorf("%s is faulty: %+v", c.ID, c)
		}
		if got, ok := CategoryOf(c.ID); !ok || got != c {
			t.Errorf("CategoryOf(%q) = %+v", c.ID, got)
		}
	}
	if count[ImportantI] != 19 || count[ImportantII] != 4 || count[Critical] != 3 || len(count) != 3 {
		t.Errorf("categories: %v", count)
	}
	if c, _ := CategoryOf("cra.iii.1.9"); c.Ref() != "CRA Annex III class I(9)" || c.Class.Name() != "Important, class I" {
		t.Errorf("%s %s", c.Ref(), c.Class.Name())
	}
	if _, ok := CategoryOf("cra.iii.3.1"); ok {
		t.Error("a category that is none was found")
	}
}

// TestCitations: a citation states act, dates and the rows that it covers, or it is none.
func TestCitations(t *testing.T) {
	good := `{"standard":"EN 0:2030","title":"t","act":"eli/dec_impl/2030/1","published":"2030-01-01","covers":["cra.i.2.1"],"checked":"2030-01-02"}`
	if cs, err := parseCitations([]byte("[" + good + "]")); err != nil || len(cs) != 1 || !slices.Equal(cs[0].Covers, []string{"cra.i.2.1"}) {
		t.Fatal(cs, err)
	}
	for name, bad := range map[string]string{
		"no act":                 strings.Replace(good, "eli/dec_impl/2030/1", "somewhere", 1),
		"no date":                strings.Replace(good, `"published":"2030-01-01",`, "", 1),
		"checked before it was":  strings.Replace(good, "2030-01-02", "2029-12-31", 1),
		"covers nothing":         strings.Replace(good, `["cra.i.2.1"]`, "[]", 1),
		"covers what is no row":  strings.Replace(good, "cra.i.2.1", "cra.14.1", 1),
		"a day that is not real": strings.Replace(good, "2030-01-01", "2030-02-30", 1),
	} {
		if _, err := parseCitations([]byte("[" + bad + "]")); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
