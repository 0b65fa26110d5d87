// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln"
	"github.com/openthings-platform/openthings/vuln/record"
)

// written fills every field that a stage still lacks, as a person would.
func (h house) written(t *testing.T, id string, st Stage) {
	t.Helper()
	p, err := h.Pack(ann, id, st)
	if err != nil {
		t.Fatal(err)
	}
	d := Data{Fields: map[string]string{}}
	for _, f := range p.Fields {
		switch {
		case f.Fault != "missing":
		case f.Form == law.Instant:
			d.Fields[f.ID] = "2026-11-21T10:00Z"
		case f.Form == law.Choice:
			d.Fields[f.ID] = f.Options[0]
		default:
			d.Fields[f.ID] = "what is known of it"
		}
	}
	if len(d.Fields) == 0 {
		return
	}
	if _, err := h.Append(ann, id, FieldsFilled, d); err != nil {
		t.Fatal(err)
	}
}

func byID(p Pack) map[string]PackField {
	out := map[string]PackField{}
	for _, f := range p.Fields {
		out[f.ID] = f
	}
	return out
}

// TestDraft lays out the early warning of a case from what other rooms know, and says of each value where it comes from.
func TestDraft(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		c, err := h.Case(ann, h.declared(t))
		if err != nil {
			t.Fatal(err)
		}
		delete(c.state.Fields, "versions") // findings name them here
		k := known{manufacturer: "Lumen GmbH", all: []string{"1.0", "1.1", "1.2"}, exposed: map[string]int64{"": 4, "DE": 1900}, found: true}
		k.record = vuln.Detail{Group: vuln.Group{Name: "CVE-2026-1", Summary: "a shell"}, Names: []string{"CVE-2026-1", "EUVD-2026-77"},
			Score: &record.Score{Version: "3.1", Vector: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H", Base: 7.5}}
		k.reach(vuln.Exposure{Releases: []vuln.ReleaseExposure{
			{Release: "rel_2", Product: h.product, Version: "1.1", Devices: 4, Exposed: true, Name: "libfoo", Has: "2.0"},
			{Release: "rel_1", Product: h.product, Version: "1.0", Devices: 1900, Exposed: true, Name: "libfoo", Has: "2.0", FixedIn: "2.1"},
			{Release: "rel_1", Product: h.product, Version: "1.0", Devices: 1900, Exposed: true, Name: "libbar"},
			{Release: "rel_3", Product: h.product, Version: "1.2", Devices: 9},
			{Release: "rel_4", Product: "prd_other", Version: "7", Devices: 70, Exposed: true}}}, h.product)
		p := assemble(c, EarlyWarning, k.drafts(c, h.now()), h.now())
		got := byID(p)
		for id, want := range map[string]string{"title": "Shells on sensors", "product": "Sensor", "versions": "1.0, 1.1", "member_states": "Germany (DE)", "aware": "2026-11-21 11:00:00 UTC",
			"cve": "CVE-2026-1", "euvd": "EUVD-2026-77", "component": "libbar, libfoo 2.0", "manufacturer": "Lumen GmbH", "general": "a shell",
			"attack_vector": "Over a network, low complexity, no privileges needed, no user interaction. (CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H)",
			"severity":      "High: CVSS 3.1 base score 7.5 (CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H). No loss of confidentiality, no loss of integrity, high loss of availability.",
			"impact":        "1904 devices run a version that is affected as of 2026-11-21 12:00 UTC. By country: DE 1900, country unknown 4.",
			"update":        "The component's maker fixed it in: libfoo 2.1."} {
			if got[id].Value != want {
				t.Errorf("%s = %q, want %q", id, got[id].Value, want)
			}
			if got[id].Source == "" {
				t.Errorf("%s does not say where it comes from", id)
			}
		}
		if _, ok := got["malicious"]; ok {
			t.Error("a field of incidents stands in the pack of a vulnerability")
		}
		if !p.Complete() || got["title"].Used != 17 || got["title"].Limit != 255 {
			t.Errorf("title and summary are there, and yet: %+v", p.Faults)
		}
	})
}

// TestUnionOfProfiles: at 72 hours the law asks for measures that the reporting platform leaves optional in version 1.3 and
// required in 1.1. The pack shows both, and asks for the stricter.
func TestUnionOfProfiles(t *testing.T) {
	for version, want := range map[string]law.Need{"1.1": law.Required, "1.3": law.AsAvailable, "unknown": law.AsAvailable} {
		p := byID(assemble(Case{Kind: AEV, Glossary: version}, Notification, nil, time.Time{}))
		f := p["measures_taken"]
		if f.Need != want || len(f.Asks) != 2 || f.Asks[0].Ref != "CRA Art. 14(2)(b)" || f.Asks[0].Need != law.AsAvailable {
			t.Errorf("%s: %s, %+v", version, f.Need, f.Asks)
		}
		if f, ok := p["update"]; !ok || version == "1.1" && len(f.Asks) != 0 {
			t.Errorf("%s: the update that the law asks for at the end has %+v", version, f)
		}
	}
	final := byID(assemble(Case{Kind: AEV, Glossary: "1.1"}, Final, nil, time.Time{}))
	if f := final["update"]; f.Need != law.Required || len(f.Asks) != 1 || f.Asks[0].Profile != law.Demanded().Name() {
		t.Errorf("only the law asks for it in 1.1: %+v", f)
	}
	for _, k := range []Kind{AEV, SI} {
		for _, st := range (Pack{}).Stages() {
			for _, f := range assemble(Case{Kind: k}, st, nil, time.Time{}).Fields {
				if f.Need == law.Required && f.Form != law.Fact && f.Fault != "missing" {
					t.Errorf("%s, %s: %s is required and empty, and that is no fault", k, st, f.ID)
				}
			}
		}
	}
}

// TestACaseKeepsItsVersion: a case that was opened under an older field set is asked what that one asked.
func TestACaseKeepsItsVersion(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		id := h.declared(t)
		if p, err := h.Pack(ann, id, ""); err != nil || p.Glossary != law.NewestSRP().Version || p.Stage != EarlyWarning || len(p.Digest) != 64 {
			t.Fatalf("%+v, %v", p, err)
		}
		if err := h.db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE respond_case SET glossary = '1.1' WHERE id = $1`, id)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		p, err := h.Pack(ann, id, Final)
		if err != nil || p.Glossary != "1.1" || byID(p)["title"].Number != "2" {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

// TestIncompleteIsRefusedByName: what is missing or too long keeps a submission from being recorded, each field named with
// who asks for it. A draft may be too long; what the reporting platform took all the same is recorded with the reason.
func TestIncompleteIsRefusedByName(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		id := h.declared(t)
		attempt := func(why string) error {
			_, err := h.Append(ann, id, SubmissionAttempted, Data{Stage: EarlyWarning, At: h.hand.Now(), Deviation: why})
			return err
		}
		write := func(fields map[string]string, reset ...string) error {
			_, err := h.Append(ann, id, FieldsFilled, Data{Fields: fields, Reset: reset})
			return err
		}
		long := strings.Repeat("é", 4001)
		if err := write(map[string]string{"summary": long, "versions": ""}); err != nil {
			t.Fatal(err)
		}
		err := attempt("")
		if problem.Of(err).Rule != "respond.pack" || !strings.Contains(err.Error(), "“Summary”: has 4001 characters, 4000 at most (srp@1.3)") || !strings.Contains(err.Error(), "“Product version”: missing (srp@1.3)") {
			t.Fatalf("%v", err)
		}
		c, _ := h.Case(ann, id)
		if c.state.Fields["summary"].Value != long || c.Summary == long {
			t.Error("the draft was lost, or became the summary of the case although it is too long")
		}
		if err := attempt("the field takes more since yesterday"); err != nil {
			t.Errorf("what was submitted all the same: %v", err)
		}
		if err := write(map[string]string{"summary": strings.Repeat("x", draftLimit+1)}); !problem.Is(err, problem.KindTooLarge) {
			t.Errorf("a draft without bounds: %v", err)
		}
		if err := write(map[string]string{"aware": "2026-01-01T00:00Z"}); problem.Of(err).Rule != "respond.fact" {
			t.Errorf("the time of awareness was typed over: %v", err)
		}
		if err := write(map[string]string{"malicious": "Yes"}); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("a field of incidents in the report of a vulnerability: %v", err)
		}
		if err := write(map[string]string{"exploited": "yesterday"}); err != nil {
			t.Errorf("a draft may be wrong: %v", err)
		}
		if p, err := h.Pack(ann, id, Notification); err != nil || byID(p)["exploited"].Fault == "" {
			t.Errorf("a time that is none: %+v, %v", byID(p)["exploited"], err)
		}
	})
}

// TestEditedIsKept: a value that a person wrote stays when the draft changes, the difference is shown, and one step goes
// back to the draft. Two people who write into one field are told.
func TestEditedIsKept(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		id := h.declared(t)
		if _, err := h.Append(ann, id, FieldsFilled, Data{Fields: map[string]string{"product": "Sensor S1 of the 2026 series"}}); err != nil {
			t.Fatal(err)
		}
		f := func() PackField {
			p, err := h.Pack(ann, id, "")
			if err != nil {
				t.Fatal(err)
			}
			return byID(p)["product"]
		}
		if got := f(); got.Value != "Sensor S1 of the 2026 series" || !got.Edited || got.By != "per_ann" || got.Draft != "Sensor" {
			t.Errorf("%+v", got)
		}
		_, err := h.Append(bob, id, FieldsFilled, Data{Fields: map[string]string{"product": "mine"}, Seen: 1})
		if !problem.Is(err, problem.KindConflict) || !pointsAt(err, "product") {
			t.Errorf("what somebody else wrote meanwhile was overwritten: %v", err)
		}
		if _, err := h.Append(bob, id, FieldsFilled, Data{Reset: []string{"product"}, Seen: 2}); err != nil {
			t.Fatal(err)
		}
		if got := f(); got.Value != "Sensor" || got.Edited || got.Source != "the product" {
			t.Errorf("%+v", got)
		}
	})
}

// TestWhatWasSubmittedIsKept: the bytes of a submitted report stay as they were, whatever is written later, and their
// digest stands in the log.
func TestWhatWasSubmittedIsKept(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		id := h.declared(t)
		before, err := h.Pack(ann, id, "")
		if err != nil {
			t.Fatal(err)
		}
		e, err := h.Append(ann, id, SubmissionAttempted, Data{Stage: EarlyWarning, At: h.hand.Now(), Pack: "forged", File: "forged"})
		if err != nil || e.Data.Pack != before.Digest || e.Data.File != "" {
			t.Fatalf("%+v, %v", e, err)
		}
		if _, err := h.Append(ann, id, FieldsFilled, Data{Fields: map[string]string{"versions": "all of them"}}); err != nil {
			t.Fatal(err)
		}
		b, err := h.Submitted(bob, id, e.Seq)
		if sum := sha256.Sum256(b); err != nil || hex.EncodeToString(sum[:]) != e.Data.Pack || !bytes.Contains(b, []byte(`"value":"1.0"`)) {
			t.Errorf("%s, %v", b, err)
		}
		if after, _ := h.Pack(ann, id, EarlyWarning); after.Digest == before.Digest {
			t.Error("the report says something else and has the same digest")
		}
		if _, err := h.Submitted(bob, id, 1); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("awareness is no submission: %v", err)
		}
		if err := h.db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE respond_pack SET body = '{}' WHERE case_id = $1`, id)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Submitted(bob, id, e.Seq); err == nil {
			t.Error("an altered report was handed out")
		}
	})
}

// TestCanonical: the bytes that are digested are what a program in any language makes of the same report by RFC 8785.
func TestCanonical(t *testing.T) {
	p := Pack{Case: "cas_1", Kind: AEV, Stage: Final, Profiles: []string{"law@1", "srp@2"}, Fields: []PackField{
		{ID: "title", Label: "Title", Value: clean(" <b> & \u2028 \"é\"\r\n\ttail ")}, {ID: "empty", Label: "Empty"}}}
	b, err := p.Canonical()
	want := `{"annex":[],"case":"cas_1","drill":false,"fields":[{"id":"title","label":"Title","value":"<b> & \n \"é\"\n\ttail"}],"kind":"aev","profiles":["law@1","srp@2"],"stage":"final"}`
	if err != nil || string(b) != want {
		t.Errorf("%s\n%v", b, err)
	}
	if !json.Valid(b) {
		t.Error("no JSON")
	}
	drill := p
	drill.Drill = true
	if d, _ := drill.Canonical(); bytes.Equal(b, d) {
		t.Error("a drill has the bytes of a report")
	}
}

// TestCompress: what does not fit becomes ranges, and a range holds no version that is not affected.
func TestCompress(t *testing.T) {
	var all, some []string
	for i := range 100 {
		v := fmt.Sprintf("10.20.%d", i)
		if all = append(all, v); i != 50 {
			some = append(some, v)
		}
	}
	for name, c := range map[string]struct {
		affected, all []string
		want          string
	}{
		"few":       {some[:3], all, "10.20.0, 10.20.1, 10.20.2"},
		"ranges":    {some, all, "10.20.0 to 10.20.49, 10.20.51 to 10.20.99"},
		"unordered": {some, nil, "10.20.0, 10.20.1, "},
		"none":      {nil, all, ""},
	} {
		got := compress(c.affected, c.all, versionRoom)
		if len(got) > versionRoom || !strings.HasPrefix(got, c.want) || c.all != nil && got != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := compress(some, nil, versionRoom); !strings.HasSuffix(got, " more versions, see the annex") {
		t.Errorf("%q does not say that there are more", got)
	}
	if got := cut([]string{strings.Repeat("x", 300)}, 255, "components"); got != "1 components" {
		t.Errorf("%q", got)
	}
}

// TestVectorWords puts vectors of three versions into words; what has none says nothing.
func TestVectorWords(t *testing.T) {
	for vector, want := range map[string]string{
		"CVSS:3.1/AV:L/AC:H/PR:H/UI:R/S:U/C:L/I:L/A:L":                    "With local access, high complexity, high privileges needed, user interaction needed. (CVSS:3.1/AV:L/AC:H/PR:H/UI:R/S:U/C:L/I:L/A:L)",
		"CVSS:4.0/AV:A/AC:L/AT:P/PR:N/UI:P/VC:H/VI:N/VA:N/SC:N/SI:N/SA:N": "From an adjacent network, low complexity, special conditions needed, no privileges needed, passive user interaction needed. (CVSS:4.0/AV:A/AC:L/AT:P/PR:N/UI:P/VC:H/VI:N/VA:N/SC:N/SI:N/SA:N)",
		"": "", "nonsense": "",
	} {
		if got := attack(vector); got != want {
			t.Errorf("%q: %q", vector, got)
		}
	}
}

// TestMemberStatesCompared: countries of the fleet and the declared availability are held against the case, and nothing is
// changed by it.
func TestMemberStatesCompared(t *testing.T) {
	c := compare([]string{"DE", "FR"}, []string{"DE", "AT"}, map[string]int64{"DE": 5, "IT": 1, "CH": 9, "": 3, "ES": 0})
	if fmt.Sprint(c.Seen, c.Undeclared, c.Unseen, c.Unnamed) != "[CH DE IT] [IT] [FR] [AT]" || !c.Mismatch() {
		t.Errorf("%+v", c)
	}
	if c := compare([]string{"DE"}, []string{"DE"}, nil); c.Mismatch() || len(c.Unseen) != 0 {
		t.Errorf("a manufacturer without devices is warned: %+v", c)
	}
	each(t, func(t *testing.T, h house) {
		if _, err := h.cfg.Products.SetAvailability(t.Context(), maker, h.product, []string{"DE", "AT"}, "per_ann"); err != nil {
			t.Fatal(err)
		}
		id := h.declared(t)
		p, err := h.Pack(ann, id, "")
		if err != nil || strings.Join(p.Countries.Unnamed, " ") != "AT" || byID(p)["member_states"].Value != "Germany (DE)" {
			t.Errorf("%+v, %v", p.Countries, err)
		}
	})
}

// TestDeclarationIsCompleted: with a confirmed coordinator and a declared availability, awareness with a title and a
// summary is a complete early warning.
func TestDeclarationIsCompleted(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		if _, err := h.cfg.Products.SetAvailability(t.Context(), maker, h.product, []string{"FR", "AT"}, "per_ann"); err != nil {
			t.Fatal(err)
		}
		if _, err := h.ConfirmCoordinator(ann, Seat{InUnion: true, Decisions: "FR"}, "FR", ""); err != nil {
			t.Fatal(err)
		}
		d := h.aware(true, true)
		d.Coordinator, d.MemberStates, d.Fields = "", nil, map[string]string{"versions": "1.0", "malicious": "Unknown"}
		_, cases, err := h.Decide(ann, h.assessed(t).ID, d)
		if err != nil || len(cases) != 2 {
			t.Fatalf("%v, %v", cases, err)
		}
		for _, id := range cases {
			p, err := h.Pack(ann, id, "")
			if err != nil || !p.Complete() || byID(p)["member_states"].Value != "Austria (AT), France (FR)" {
				t.Errorf("%+v, %v", p.Faults, err)
			}
			if _, err := h.Append(ann, id, SubmissionAttempted, Data{Stage: EarlyWarning, At: h.hand.Now()}); err != nil {
				t.Error(err)
			}
		}
	})
}

// pointsAt reports whether a refusal points at a field.
func pointsAt(err error, field string) bool {
	fs := problem.Of(err).Fields
	return len(fs) == 1 && fs[0].At == field
}
