// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"strings"
	"testing"
)

// The public page of a unit: anybody who holds its code reads what the maker promises, nobody by its serial number or id.
func TestLabel(t *testing.T) {
	w := newWorldWith(t, func(*Config) {})
	m := w.newMaker("Acme")
	u := m.make()
	get := func(query string) (int, string) {
		t.Helper()
		a, err := w.do(w.client(nil), "GET", w.info.URL+"/label?code="+query, "", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		return a.status, string(a.body)
	}
	status, body := get(strings.ToLower(u.claim))
	if status != 200 || !strings.Contains(body, "Lamp") || !strings.Contains(body, "Acme") || !strings.Contains(body, "Security updates") {
		t.Errorf("%d %s", status, body)
	}
	for _, never := range []string{u.id, u.serial, m.product, m.solution, "harbour", "OpenThings"} {
		if strings.Contains(body, never) {
			t.Errorf("it tells %q", never)
		}
	}
	if status, body := get(u.serial); status != 400 || strings.Contains(body, "Lamp") {
		t.Errorf("by its serial number: %d %s", status, body)
	}
	if status, body := get(u.id); status != 400 || strings.Contains(body, "Lamp") {
		t.Errorf("by its id: %d %s", status, body)
	}
	if status, _ := get("00000-00000-00000-00000-000000"); status != 404 {
		t.Errorf("a code of nobody: %d", status)
	}
}
