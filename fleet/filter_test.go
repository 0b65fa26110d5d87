// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/problem"
)

func TestFilterForms(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "",
		"  \t ":                    "",
		"state:commissioned":       "state:commissioned",
		"State:x":                  `column 1: There is no key "State".; Did you mean state? For example state:commissioned,suspended.`,
		"state:COMMISSIONED":       "state:commissioned",
		"state:a,b":                `column 7: state is never "a".`,
		"state:commisioned":        "column 7: state is never \"commisioned\".; Did you mean state:commissioned?",
		"sn-1 -online:yes":         "sn-1 -online:yes",
		"not online:yes":           "-online:yes",
		"NOT (grade:a or grade:B)": "-(grade:A or grade:B)",
		"a and b or c":             "a b or c",
		"a (b or c)":               "a (b or c)",
		`product:"Street \"lamp"`:  `product:"Street \"lamp"`,
		`product:"a,b",c`:          `product:"a,b",c`,
		"serial:SN-*":              "serial:SN-*",
		"serial:S*N":               "column 9: A * stands only at the end",
		"seen:>7d":                 "seen:>7d",
		"seen:7d":                  "column 6: seen is compared with < or >.",
		"seen:>7y":                 `column 7: "7y" is neither an age nor a day.`,
		"created:>=2026-11-21":     "created:>=2026-11-21",
		"state:<commissioned":      "column 7: state cannot be compared with <.",
		"sate:commissioned":        `column 1: There is no key "sate".; Did you mean state?`,
		"(a":                       "column 1: This parenthesis is never closed.",
		"a )":                      "column 3: This parenthesis closes nothing.",
		"()":                       "column 1: Nothing stands between these parentheses.",
		"or a":                     "column 1: Nothing stands before this or.",
		"a or":                     "column 5: Something must follow or.",
		"a and":                    "column 6: Something must follow and.",
		"-":                        "column 1: Nothing follows",
		"state:":                   "column 7: A value is missing after state:.",
		":x":                       "column 1: A key is missing before the colon.",
		`"a`:                       "column 1: These quotes are never closed.",
		`a"b"`:                     "column 2: Quotes stand around a whole value.",
		"orange":                   "orange",
		`"or"`:                     `"or"`,
		"üx state:":                "column 10: A value is missing",
		strings.Repeat("(", 12):    "column 12: Parentheses go deeper than 10.",
		strings.Repeat("a ", 51):   "column 101: A filter has at most 50 conditions.",
	} {
		f, err := ParseFilter(text)
		got := f.String()
		if err != nil {
			got = problem.Of(err).Error()
		}
		if err != nil && !strings.Contains(got, want) || err == nil && got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
		if err == nil {
			if again, err := ParseFilter(got); err != nil || again.String() != got {
				t.Errorf("%q is written as %q, and that reads as %q, %v", text, got, again, err)
			}
		}
	}
}

func TestSelect(t *testing.T) {
	h := newHouse(t)
	must(t, h.flush(t.Context()))
	for filter, want := range map[string]int{"": 60, "SN-01": 10, "sn-000 or sn-001": 2, "release:v1": 3, "release:rel_1 -online:yes": 2, "-release:v1": 57, "release:none": 57,
		"solution:none -serial:sn-05*": 47, "online:yes": 1, "seen:<1d": 1, "seen:>1d": 0, "seen:never": 59, `product:"lamp <1>"`: 60, "created:<1h": 60, "state:manufactured,pending": 60} {
		ds, err := h.Select(t.Context(), "ten", filter, "", 100)
		if err != nil || len(ds) != want {
			t.Errorf("%s: %d devices, %v, want %d", filter, len(ds), err, want)
		}
		if ds, err := h.Select(t.Context(), "other", filter, "", 100); len(ds) != 0 || err != nil && !problem.Is(err, problem.KindInvalid) {
			t.Errorf("another tenant, %s: %d devices, %v", filter, len(ds), err)
		}
	}
	for filter, want := range map[string]bool{"online:yes release:v1": true, "online:no": false} {
		if got, err := h.Matches(t.Context(), "ten", filter, h.ids[0]); err != nil || got != want {
			t.Errorf("%s matches: %v, %v", filter, got, err)
		}
	}
	if _, err := h.Select(t.Context(), "ten", "product:lump", "", 1); err == nil || !strings.Contains(err.Error(), "Did you mean product:lamp?") {
		t.Errorf("an unknown product: %v", err)
	}
}
