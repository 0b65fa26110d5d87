// SPDX-License-Identifier: AGPL-3.0-only

package eox

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// doc writes a document: members as "name=value", $schema and last_updated added unless they are given.
func doc(members ...string) string {
	m := map[string]string{"$schema": Schema, "last_updated": "2030-05-06T07:08:09Z"}
	for _, s := range members {
		name, value, _ := strings.Cut(s, "=")
		m[name] = value
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(b)
}

const (
	eol, eos, sec, ga = "end_of_life=", "end_of_sales=", "end_of_security_support=", "general_availability="
)

// One document of our own for each of the 41 official ones. As there, numbers below 11 break the rule that the name
// begins with, and those from 11 on keep it. Other rules may be broken beside it; they are named, so that none is
// reported by chance.
var official = []struct {
	name string
	also string // other rules that it breaks
	doc  string
}{
	{"7.1.1-01", "", doc(eol+"2031-03-31T00:00:00Z", sec+"2031-04-30T00:00:00Z")},
	{"7.1.1-02", "7.3.1", doc(eol+"2031-03-31T00:00:00Z", eos+"2031-05-31T00:00:00Z", sec+"2031-01-31T00:00:00Z")},
	{"7.1.1-03", "7.1.3 7.1.3", doc(eol+"2031-03-31T00:00:00Z", sec+"2031-02-28T00:00:00Z", ga+"2032-01-01T00:00:00Z")},
	{"7.1.1-11", "", doc(eol+"2031-03-31T00:00:00Z", sec+"2031-03-31T00:00:00Z")},
	{"7.1.1-12", "7.2.1", doc(eol+"2031-03-31T00:00:00Z", sec+"tba")},
	{"7.1.1-13", "", doc(eol+"tba", sec+"tba")},
	{"7.1.1-14", "", doc(eol+"2031-03-31T00:00:00Z", eos+"2029-12-31T00:00:00Z", sec+"2031-02-28T00:00:00Z")},
	{"7.1.1-15", "", doc(eol+"tba", sec+"2031-03-31T00:00:00Z")},
	{"7.1.1-16", "", doc(eol+"2031-03-31T01:00:00+02:00", sec+"2031-03-30T23:00:00Z")}, // the same instant in two zones
	{"7.1.1-17", "", doc(eol+"2031-03-31T00:00:00Z", sec+"2031-03-01T00:00:00Z", ga+"2026-01-01T00:00:00Z")},
	{"7.1.2-01", "7.1.2 7.1.2", doc(eol+"2031-03-31 00:00:00Z", sec+"2031-03-31t00:00:00Z", "last_updated=2030-05-06T07:08:09z")},
	{"7.1.2-02", "7.1.2", doc(eol+"2017-01-01T08:59:60.5+09:00", sec+"2016-12-31T23:59:60+00:00")},
	{"7.1.2-03", "7.1.2 7.1.2", doc(eol+"2031-03-31T00:00:00Z", eos+"2029-12-31 00:00:00Z", sec+"2031-03-01T00:00:00Z", ga+"2026-01-01t00:00:00z", "last_updated=2030-05-06T07:08:09z")},
	{"7.1.2-11", "", doc(eol+"2031-03-31T00:00:00.25Z", sec+"2031-03-30T23:00:00-00:30")},
	{"7.1.2-12", "", doc(eol+"2017-01-01T08:59:59.999999+09:00", sec+"2016-12-31T23:59:59.5+00:00")},
	{"7.1.2-13", "", doc(eol+"2031-03-31T00:00:00Z", eos+"2029-12-31T23:59:59.75+05:30", sec+"2031-03-01T00:00:00Z", ga+"2026-01-01T00:00:00-11:00")},
	{"7.1.3-01", "", doc(eol+"2032-12-31T00:00:00Z", sec+"2031-03-31T00:00:00Z", ga+"2031-06-01T00:00:00Z")},
	{"7.1.3-02", "", doc(eol+"2032-12-31T00:00:00Z", eos+"2031-02-01T00:00:19.9Z", sec+"2031-09-30T00:00:00Z", ga+"2031-06-01T00:00:00Z")},
	{"7.1.3-11", "", doc(eol+"2032-12-31T00:00:00Z", sec+"2031-03-31T00:00:00Z", ga+"2031-03-31T00:00:00Z")},
	{"7.1.3-12", "", doc(eol+"2032-12-31T00:00:00Z", eos+"2029-02-01T00:00:19.9Z", sec+"2031-09-30T00:00:00Z", ga+"2026-06-01T00:00:00Z")},
	{"7.1.3-13", "7.2.2", doc(eol+"tba", sec+"2031-03-31T00:00:00Z", ga+"tba")},
	{"7.2.1-01", "", doc(eol+"2031-03-31T00:00:00Z", sec+"tba")},
	{"7.2.1-02", "", doc(eol+"2031-03-31T00:00:00Z", eos+"tba", sec+"2031-03-01T00:00:00Z")},
	{"7.2.1-03", "7.2.2", doc(eol+"2031-03-31T00:00:00Z", sec+"2031-03-01T00:00:00Z", ga+"tba")},
	{"7.2.1-04", "7.2.1 7.2.1 7.2.2", doc(eol+"2031-03-31T00:00:00Z", eos+"tba", sec+"tba", ga+"tba")},
	{"7.2.1-11", "", doc(eol+"tba", sec+"tba")},
	{"7.2.1-12", "", doc(eol+"2031-03-31T00:00:00Z", sec+"2031-03-01T00:00:00Z")},
	{"7.2.1-13", "", doc(eol+"tba", eos+"tba", sec+"tba", ga+"tba")},
	{"7.2.1-14", "", doc(eol+"2031-03-31T00:00:00Z", eos+"2029-12-31T00:00:00Z", sec+"2031-03-01T00:00:00Z", ga+"2026-01-01T00:00:00Z")},
	{"7.2.1-15", "7.2.2", doc(eol+"tba", eos+"tba", sec+"2031-03-01T00:00:00Z", ga+"tba")},
	{"7.2.2-01", "", doc(eol+"tba", sec+"2031-03-01T00:00:00Z", ga+"tba")},
	{"7.2.2-02", "", doc(eol+"tba", eos+"2029-12-31T00:00:00Z", sec+"tba", ga+"tba")},
	{"7.2.2-03", "7.2.1", doc(eol+"2031-03-31T00:00:00Z", sec+"2031-03-01T00:00:00Z", ga+"tba")},
	{"7.2.2-11", "", doc(eol+"tba", eos+"tba", sec+"tba", ga+"tba")},
	{"7.2.2-12", "", doc(eol+"tba", sec+"2031-03-01T00:00:00Z", ga+"2026-01-01T00:00:00Z")},
	{"7.2.2-13", "", doc(eol+"tba", sec+"2031-03-01T00:00:00Z")},
	{"7.3.1-01", "", doc(eol+"2032-12-31T00:00:00Z", eos+"2031-06-30T00:00:00Z", sec+"2031-03-31T00:00:00Z")},
	{"7.3.1-11", "", doc(eol+"2032-12-31T00:00:00Z", eos+"2029-06-30T00:00:00Z", sec+"2031-03-31T00:00:00Z")},
	{"7.3.1-12", "", doc(eol+"2032-12-31T00:00:00Z", eos+"2031-03-31T02:00:00+02:00", sec+"2031-03-31T00:00:00Z")},
	{"7.3.1-13", "7.2.1", doc(eol+"2032-12-31T00:00:00Z", eos+"2031-03-31T00:00:00Z", sec+"tba")},
	{"7.3.1-14", "7.2.1 7.2.1", doc(eol+"2032-12-31T00:00:00Z", eos+"tba", sec+"tba")},
}

func TestOfficialVerdicts(t *testing.T) {
	if len(official) != 41 {
		t.Fatalf("%d documents, the specification has 41", len(official))
	}
	levels := map[string]Level{"1": Error, "2": Warning, "3": Note}
	for _, c := range official {
		rule, number, _ := strings.Cut(c.name, "-")
		want := strings.Fields(c.also)
		if number < "11" {
			want = append(want, rule)
		}
		slices.Sort(want)
		var got []string
		for _, f := range Validate([]byte(c.doc)) {
			got = append(got, f.Rule)
			if f.Level != levels[strings.Split(f.Rule, ".")[1]] || !strings.HasPrefix(f.Path, "/") {
				t.Errorf("%s: %+v", c.name, f)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s breaks %v, want %v\n%s", c.name, got, want, c.doc)
		}
	}
}

// What the schema itself refuses.
func TestShape(t *testing.T) {
	good := doc(eol+"tba", sec+"tba")
	if f := Validate([]byte(good)); len(f) > 0 {
		t.Fatal(f)
	}
	for name, d := range map[string]string{
		"empty":                "",
		"no object":            `"tba"`,
		"a list":               `[]`,
		"unfinished":           good[:len(good)-1],
		"something after":      good + "{}",
		"a comma too many":     strings.Replace(good, "}", ",}", 1),
		"not UTF-8":            strings.Replace(good, "tba", "t\xffa", 1),
		"too long":             strings.Replace(good, "{", "{"+strings.Repeat(" ", MaxDocument), 1),
		"a name twice":         strings.Replace(good, "{", `{"end_of_life":"tba",`, 1),
		"null":                 strings.Replace(good, `"tba"`, `null`, 1),
		"a number":             strings.Replace(good, `"tba"`, `1`, 1),
		"an object":            strings.Replace(good, `"tba"`, `{}`, 1),
		"another member":       doc(eol+"tba", sec+"tba", "x=y"),
		"a member with a path": doc(eol+"tba", sec+"tba", "a/b~=y"),
		"another schema":       doc(eol+"tba", sec+"tba", "$schema=https://example.com"),
		"last_updated unknown": doc(eol+"tba", sec+"tba", "last_updated=tba"),
		"no end of life":       doc(sec + "tba"),
		"no security support":  doc(eol + "tba"),
	} {
		fs := Validate([]byte(d))
		if len(fs) != 1 || fs[0].Rule != "6" || fs[0].Level != Error {
			t.Errorf("%s: %v", name, fs)
		}
		if _, err := Parse([]byte(d)); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}

// Section 4.1.6: what is a date and time and what only looks like one.
func TestDateTime(t *testing.T) {
	for text, ok := range map[string]bool{
		"2031-12-31T23:59:59Z": true, "2031-12-31T23:59:59.123456789012+14:00": true, "2032-02-29T00:00:00-00:00": true, "2031-12-31T23:59:59+23:59": true,
		"2031-12-31T23:59:59": false, "2031-12-31": false, "2031-12-31T23:59Z": false, "2031-12-31T23:59:59,5Z": false, "2031-12-31T24:00:00Z": false,
		"2031-02-29T00:00:00Z": false, "2031-12-31T23:59:60Z": false, "2031-12-31T23:59:59+24:00": false, "2031-12-31T23:59:59+01:60": false, "2031-12-31T23:59:59+0100": false,
		"2031-12-31t23:59:59Z": false, "2031-12-31T23:59:59z": false, " 2031-12-31T23:59:59Z": false, "TBA": false, "": false, "+2031-12-31T23:59:59Z": false,
	} {
		if _, got := parseDate(text); got != ok {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// What is written is valid, and reads back as what it was; what would be invalid is not written.
func TestRoundTrip(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	end := time.Date(2031, 12, 31, 23, 59, 59, 0, berlin)
	c := Core{GeneralAvailability: At(end.AddDate(-5, 0, 0)), EndOfSales: At(end.AddDate(-2, 0, 0)), EndOfSecuritySupport: At(end), EndOfLife: TBA, LastUpdated: end.AddDate(-4, 0, 0)}
	b, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if want := `"end_of_security_support":"2031-12-31T23:59:59+01:00"`; !strings.Contains(string(b), want) {
		t.Errorf("%s lacks %s", b, want)
	}
	back, err := Parse(b)
	if again, e := back.Marshal(); err != nil || e != nil || string(again) != string(b) {
		t.Errorf("%s %v %v, was %s", again, err, e, b)
	}
	for name, spoil := range map[string]func(*Core){
		"life before support":  func(c *Core) { c.EndOfLife = At(end.AddDate(0, 0, -1)) },
		"sold after its life":  func(c *Core) { c.GeneralAvailability = At(end.AddDate(1, 0, 0)) },
		"no end of support":    func(c *Core) { c.EndOfSecuritySupport = Date{} },
		"no end of life":       func(c *Core) { c.EndOfLife = At(time.Time{}) },
		"never updated":        func(c *Core) { c.LastUpdated = time.Time{} },
		"a year of five digit": func(c *Core) { c.EndOfLife = At(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)) },
	} {
		bad := c
		spoil(&bad)
		if b, err := bad.Marshal(); err == nil {
			t.Errorf("%s is written: %s", name, b)
		}
	}
}

// Whatever comes in, the answer is a list of findings; what Parse accepts can be written again and means the same.
func FuzzValidate(f *testing.F) {
	for _, c := range official {
		f.Add([]byte(c.doc))
	}
	f.Add([]byte(`{"$schema":"` + Schema + `","end_of_life":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		findings := Validate(b)
		bad := slices.ContainsFunc(findings, func(f Finding) bool { return f.Level == Error })
		c, err := Parse(b)
		if bad != (err != nil) {
			t.Fatalf("%v, %v", findings, err)
		}
		if err != nil {
			return
		}
		out, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again := Validate(out)
		if fmt.Sprint(again) != fmt.Sprint(findings) {
			t.Fatalf("%v became %v", findings, again)
		}
	})
}
