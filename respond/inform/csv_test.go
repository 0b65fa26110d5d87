// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/problem"
)

const goodFile = "\ufeffname,role,channel,address,language,product,revision\r\nAnna Berg,customer,mail,anna@buyer.example,de,s1,\r\n\"Berg, Bruno\",Importer,MAIL,bruno@buyer.example,FR,Sensor,B\r\nAnna Berg,customer,mail,anna@buyer.example,de,s1,B\r\n"

// TestImport: a file comes in whole; the same file again adds nothing.
func TestImport(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		n, err := h.ImportContacts(ann, []byte(goodFile))
		if err != nil || n != (Imported{Added: 2}) {
			t.Fatalf("%+v, %v", n, err)
		}
		if n, err = h.ImportContacts(ann, []byte(strings.ReplaceAll(strings.ReplaceAll(goodFile, "\"Berg, Bruno\"", "Bruno"), ",", ";"))); err != nil || n != (Imported{Changed: 2}) {
			t.Fatalf("again: %+v, %v", n, err)
		}
		cs, err := h.Contacts(ann, "", "", 10)
		h.must(err)
		if len(cs) != 2 {
			t.Fatalf("%d contacts", len(cs))
		}
		i := slices.IndexFunc(cs, func(c Contact) bool { return c.Name == "Anna Berg" })
		if i < 0 || cs[i].Address != "anna@buyer.example" || !slices.Equal(cs[i].Products, []Holding{{Product: h.product}, {h.product, h.revision}}) {
			t.Errorf("%+v", cs)
		}
	})
}

// TestImportAllOrNothing: a file with a wrong line brings nobody in, and every wrong line is named with its number.
func TestImportAllOrNothing(t *testing.T) {
	h := alone(t)
	bad := goodFile + "Carl,visitor,mail,carl@x.example,en,s1,\n,customer,mail,dora@x.example,en,s1,\nEve,customer,mail,not an address,en,s1,\nFred,customer,mail,fred@x.example,english,s1,\n" +
		"Gina,customer,mail,gina@x.example,en,lamp,\nHans,customer,mail,hans@x.example,en,s1,Z\nIda,customer,webhook,https://x.example/h,en,s1,\nAnna,customer,mail,anna@buyer.example,de,s1,\nshort,line\n"
	_, err := h.ImportContacts(ann, []byte(bad))
	if !problem.Is(err, problem.KindInvalid) {
		t.Fatal(err)
	}
	for line := 5; line <= 13; line++ {
		if !strings.Contains(problem.Of(err).Text, fmt.Sprintf("Line %d: ", line)) {
			t.Errorf("line %d is not named: %v", line, err)
		}
	}
	if cs, err := h.Contacts(ann, "", "", 10); err != nil || len(cs) > 0 {
		t.Errorf("%d contacts came in, %v", len(cs), err)
	}
	for name, file := range map[string]string{"no head": "Anna,customer,mail,a@x.example,en,s1,\n", "nobody": goodFile[:strings.Index(goodFile, "\n")+1], "not UTF-8": goodFile + "\xff",
		"two spellings": goodFile + "Anna Berg,customer,mail,Anna@buyer.example,de,s1,\n"} {
		if _, err := h.ImportContacts(ann, []byte(file)); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := h.ImportContacts(ann, []byte(goodFile+strings.Repeat("x,customer,mail,x@x.example,en,s1,\n", maxImportRows))); !problem.Is(err, problem.KindTooLarge) {
		t.Errorf("too many lines: %v", err)
	}
}

// FuzzContacts: whatever a file holds, it is read or refused, and what was read is fit to be told.
func FuzzContacts(f *testing.F) {
	f.Add([]byte(goodFile))
	f.Add([]byte(strings.ReplaceAll(goodFile, ",", ";")))
	f.Add([]byte("name,role,channel,address,language,product,revision\n\"a\nb\",customer,mail,a@b,en,s1,\n"))
	f.Add([]byte("name,role,channel,address,language,product,revision\n\"unclosed,customer,mail,a@b.example,en,s1,\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		cs, err := readContacts(b, func(p, revision string) (Holding, error) { return Holding{p, revision}, nil })
		if (err == nil) == (len(cs) == 0) {
			t.Fatalf("%d contacts and %v", len(cs), err)
		}
		seen := map[string]bool{}
		for _, c := range cs {
			if seen[c.Address] {
				t.Fatalf("%q is two contacts", c.Address)
			}
			seen[c.Address] = true
			if err := c.check(false); err != nil {
				t.Fatal(err)
			}
		}
	})
}
