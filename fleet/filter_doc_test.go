// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/store"
)

const filterPage = "../docs/reference/filter.md"

// docs/reference/filter.md shows the keys that there are, and each filter that it shows selects devices.
func TestFilterReference(t *testing.T) {
	text, err := os.ReadFile(filterPage)
	must(t, err)
	page := string(text)
	var table strings.Builder
	table.WriteString("| key | asks | for example |\n|---|---|---|\n")
	for _, k := range FilterKeys {
		name := k.Name
		if strings.HasSuffix(name, ".") {
			name += "NAME"
		}
		fmt.Fprintf(&table, "| `%s` | %s | `%s` |\n", name, k.Text, k.Example)
	}
	if os.Getenv("UPDATE") != "" {
		begin := strings.Index(page, "| key |")
		end := begin + strings.Index(page[begin:], "\n\n") + 1
		page = page[:begin] + table.String() + page[end:]
		must(t, os.WriteFile(filterPage, []byte(page), 0o644))
	}
	if !strings.Contains(page, table.String()) {
		t.Errorf("the keys of the page lag behind; UPDATE=1 go test ./fleet -run TestFilterReference writes them")
	}
	filters := regexp.MustCompile("(?m)^\\| `(.+?)` \\|").FindAllStringSubmatch(page, -1)
	examples := regexp.MustCompile("`([^`]+)` \\|$")
	for line := range strings.Lines(table.String()) {
		if m := examples.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			filters = append(filters, m)
		}
	}
	h := newHouse(t)
	ctx := t.Context()
	must(t, h.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		for _, q := range []string{`INSERT INTO product(id, tenant, name, model, created) VALUES ('prd_1', 'ten', 'Street lamp', 'streetlamp', 1), ('prd_2', 'ten', 'Meter', 'meter', 1)`,
			`INSERT INTO hardware_revision(id, tenant, product, name, placed, support_end, reason, created) VALUES ('rev_1', 'ten', 'prd_1', 'B2', 1, 1, '', 1)`,
			`INSERT INTO solution(id, tenant, name, owner, at) VALUES ('sol_h', 'ten', 'harbour', 'City of Ghent', 1)`} {
			if _, err := tx.Exec(q); err != nil {
				return err
			}
		}
		for i, g := range []string{"pilot", "away"} {
			if err := insertGroup(tx, Group{ID: fmt.Sprintf("grp_%d", i), Tenant: "ten", Name: g}); err != nil {
				return err
			}
		}
		return addDelta(tx, delta{tenant: "ten", to: "rel_2.4.1", at: t0.UnixMilli()})
	}))
	n := 0
	for _, m := range filters {
		text := strings.ReplaceAll(m[1], "2.4.1", "v2.4.1")
		if !strings.ContainsAny(text, ":0") || strings.Contains(text, "NAME") {
			continue // the name of a key
		}
		n++
		if _, err := h.Select(ctx, "ten", text, "", 1); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	if n < 30 {
		t.Errorf("only %d filters were found in the page", n)
	}
}

func FuzzParseFilter(f *testing.F) {
	text, err := os.ReadFile(filterPage)
	must(f, err)
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(string(text), -1) {
		f.Add(m[1])
	}
	for _, seed := range []string{"", "-", "(", ")", `"`, `"\`, "a:b:c", "a,b", "not not -x", "or or", "and", "label.", "label.:", "x*y", "**", "seen:>", "seen:<=2026-13-45", "\xff", "\x00", "é:ü", strings.Repeat("(", 3000), strings.Repeat("-", 3000),
		"serial:" + strings.Repeat("x,", 200)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := ParseFilter(text)
		if err != nil {
			return
		}
		canonical := parsed.String()
		again, err := ParseFilter(canonical)
		if len(canonical) > MaxFilter { // quotes may make it longer
			return
		}
		if err != nil || again.String() != canonical {
			t.Fatalf("%q is written as %q, and that reads as %q, %v", text, canonical, again.String(), err)
		}
		// It writes SQL with nothing of the text in it.
		var args []any
		sql := newQuery("ten", parsed, t0).where(func(v any) string { args = append(args, v); return fmt.Sprintf("$%d", len(args)) })
		if regexp.MustCompile(`[^ -~]|;|--`).MatchString(sql) {
			t.Fatalf("%q becomes %s", text, sql)
		}
	})
}
