// SPDX-License-Identifier: AGPL-3.0-only

package law

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
)

// published are the digests of the field sets as they were first published here. A set that changes breaks this test and
// nothing else: give the change a new version and leave the old file as it was, since cases were opened under it.
var published = map[string]string{
	"srp@1.1":       "c30b4036f1a701a073e73966a8778a05439f1c602ccd28996ed287939d017627",
	"srp@1.3":       "d1eb5cbaa9c9cd58c8643256bd0aead9313caf6fec8223ffed37dfc9056e5769",
	"law@2024/2847": "aace32c07b00fbfa48f710ee86b2a2bc7c2d4137dae1b792f2d39dd9c3719b66",
}

// TestFieldSetsNeverChange fails when a field, its limit or its needs change without a new version.
func TestFieldSetsNeverChange(t *testing.T) {
	for _, g := range append(SRPs(), Demanded()) {
		b, err := json.Marshal(g)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(b)
		if got := hex.EncodeToString(sum[:]); got != published[g.Name()] {
			t.Errorf("the field set %s is not the one that was published: %s. Publish the change under a new version", g.Name(), got)
		}
	}
}

// TestGlossaries compares the sets with each other and with what is known of the glossary.
func TestGlossaries(t *testing.T) {
	for _, want := range []struct {
		version string
		fields  int
	}{{"1.1", 38}, {"1.3", 40}} {
		g, ok := SRP(want.version)
		if !ok || len(g.Fields) != want.fields {
			t.Errorf("version %s has %d fields, want %d", want.version, len(g.Fields), want.fields)
		}
	}
	if _, ok := SRP("0.9"); ok {
		t.Error("an unknown version was found")
	}
	newest := NewestSRP()
	if newest.Name() != "srp@1.3" {
		t.Errorf("cases are opened under %s", newest.Name())
	}
	for _, f := range Demanded().Fields {
		if _, ok := newest.Field(f.ID); !ok {
			t.Errorf("the law asks for %q, and no field of the reporting platform takes it", f.ID)
		}
		if len(f.Rules) == 0 {
			t.Errorf("%q rests on no rule", f.ID)
		}
	}
	taken, _ := newest.Field("measures_taken")
	older, _ := SRP("1.1")
	was, _ := older.Field("measures_taken")
	law, _ := Demanded().Field("measures_taken")
	if taken.Notification != Optional || was.Notification != Required || law.Notification != AsAvailable || law.Notification.Stronger(taken.Notification) != AsAvailable {
		t.Errorf("measures taken at 72 hours: %s in 1.3, %s in 1.1, %s by law", taken.Notification, was.Notification, law.Notification)
	}
}

// TestGlossaryRefused gives faulty sets to the reader of files.
func TestGlossaryRefused(t *testing.T) {
	good := `{"profile":"srp","version":"9","as_of":"2026-09-25","basis":"text","source":"s","fields":[{"id":"a","label":"A","form":"line","early_warning":"required","notification":"carried","final":"absent"}]}`
	check := func(s string) error {
		g, err := parse[Glossary]([]byte(s))
		if err != nil {
			return err
		}
		return g.check()
	}
	if err := check(good); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"profile": strings.Replace(good, `"srp"`, `"else"`, 1),
		"date":    strings.Replace(good, `"as_of":"2026-09-25",`, "", 1),
		"need":    strings.Replace(good, `"required"`, `"perhaps"`, 1),
		"form":    strings.Replace(good, `"line"`, `"choice"`, 1),
		"label":   strings.Replace(good, `"A"`, `""`, 1),
		"kind":    strings.Replace(good, `"id"`, `"kind":"x","id"`, 1),
		"rule":    strings.Replace(good, `"id"`, `"rules":["cra.99"],"id"`, 1),
	} {
		if check(bad) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestCoordinators wants one for each Member State, none with an invented address.
func TestCoordinators(t *testing.T) {
	for _, m := range MemberStates() {
		c, ok := CoordinatorOf(m.Code)
		if !ok || strings.ContainsAny(c.Name, "@:") {
			t.Errorf("%s has the coordinator %q", m.Name, c.Name)
		}
	}
	if _, ok := CoordinatorOf("XX"); ok {
		t.Error("an unknown state has a coordinator")
	}
	if _, err := parseCoordinators([]byte(strings.Replace(string(coordinatorsJSON), `"AT"`, `"XX"`, 1))); err == nil {
		t.Error("a list without Austria was accepted")
	}
	if AllCoordinators().Source == "" {
		t.Error("the list has no source")
	}
}
