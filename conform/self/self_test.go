// SPDX-License-Identifier: AGPL-3.0-only

package self

import (
	"database/sql"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // says which SQLite it carries

	"github.com/openthings-platform/openthings/conform"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/product/eox"
	"github.com/openthings-platform/openthings/sbom"
)

const repo = "../.."

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// build builds a program of the repository and returns its file.
func build(t *testing.T, name string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", out, "./cmd/"+name)
	cmd.Dir, cmd.Env = repo, append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", name, err, msg)
	}
	return out
}

// The bill of each program names what "go version -m" shows of its file, in the same versions, and beside that the
// standard library and what the build embeds; every part has a licence, a supplier and a name to be matched by.
func TestBillIsWhatTheFileSays(t *testing.T) {
	for _, name := range []string{"openthings", "openthings-agent", "openthings-verify"} {
		t.Run(name, func(t *testing.T) {
			file := build(t, name)
			p, err := ReadFile(file, Release{Version: "1.4.0", Published: now.Truncate(24 * time.Hour)})
			if err != nil {
				t.Fatal(err)
			}
			doc, err := p.Bill()
			if err != nil {
				t.Fatal(err)
			}
			if again, err := p.Bill(); err != nil || string(again) != string(doc) {
				t.Errorf("the same file gives another bill: %v", err)
			}
			b, err := sbom.Parse(doc)
			if err != nil {
				t.Fatal(err)
			}
			listed, err := exec.Command("go", "version", "-m", file).Output()
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{}
			for line := range strings.Lines(string(listed)) {
				if f := strings.Fields(line); len(f) >= 3 && f[0] == "dep" {
					want[f[1]] = f[2]
				}
			}
			if len(want) == 0 {
				t.Fatalf("go version -m names no module:\n%s", listed)
			}
			for _, c := range b.Components {
				switch v, known := want[c.Name]; {
				case known && v == c.Version:
					delete(want, c.Name)
				case known:
					t.Errorf("%s is %s in the file and %s in the bill", c.Name, v, c.Version)
				case !slices.Contains([]string{"stdlib", "sqlite", "htmx.org", "uplot"}, c.Name):
					t.Errorf("the bill names %s, which is not in the file", c.Name)
				}
				if c.Licence() == "" || c.Supplier.Name == "" || c.Supplier.Contact == "" || !c.Matchable() {
					t.Errorf("%s %s: licence %q, supplier %+v, matchable %v", c.Name, c.Version, c.Licence(), c.Supplier, c.Matchable())
				}
			}
			if len(want) > 0 {
				t.Errorf("the bill lacks %v", want)
			}
			if !b.Names("sha256:"+p.SHA256) || b.Name != name || b.Version != "1.4.0" {
				t.Errorf("the bill is of %s %s, digests %v", b.Name, b.Version, b.Digests)
			}
			q := b.Quality()
			_, given := q.List(sbom.ListNTIA)
			facts, bsi := q.List(sbom.ListBSI)
			t.Logf("%d parts, grade %s, NTIA %d of 7, BSI %d of %d: %v", q.Total, q.Grade, given, bsi, len(facts), q.Missing)
			if !q.Grade.AtLeast(sbom.GradeUsable) || given != 7 {
				t.Errorf("grade %s, NTIA %d of 7: %v", q.Grade, given, q.Missing)
			}
		})
	}
}

// What the browser gets is what package-lock.json pins, with its licence and digest, and SQLite is the one that answers.
func TestEmbeddedParts(t *testing.T) {
	doc, err := exec.Command(build(t, "openthings"), "self", "sbom").Output()
	if err != nil {
		t.Fatal(err)
	}
	b, err := sbom.Parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	var lock struct {
		Packages map[string]struct {
			Version string
			Dev     bool
		}
	}
	text, err := os.ReadFile(filepath.Join(repo, "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &lock); err != nil {
		t.Fatal(err)
	}
	n := 0
	for at, l := range lock.Packages {
		name, ok := strings.CutPrefix(at, "node_modules/")
		if !ok || l.Dev {
			continue
		}
		n++
		if !slices.ContainsFunc(b.Components, func(c sbom.Component) bool {
			return c.PURL == "pkg:npm/"+name+"@"+l.Version && len(c.Hashes) == 1 && len(c.Licences) == 1 && c.Licences[0].ID != ""
		}) {
			t.Errorf("the bill lacks %s %s, or its licence or digest", name, l.Version)
		}
	}
	if n < 2 {
		t.Fatalf("the lock file pins %d packages", n)
	}
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var version string
	if err := db.QueryRow(`SELECT sqlite_version()`).Scan(&version); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(b.Components, func(c sbom.Component) bool {
		return c.Name == "sqlite" && c.Version == version && strings.HasPrefix(c.CPE, "cpe:2.3:a:sqlite:sqlite:"+version+":")
	}) {
		t.Errorf("the bill lacks SQLite %s", version)
	}
}

// Every module that a program links has a licence on record, no other has, and it is the one of the file in the module.
func TestModules(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-tags", "pkcs11", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}", "./cmd/...")
	cmd.Dir, cmd.Env = repo, append(os.Environ(), "CGO_ENABLED=1", "GOOS=linux")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	linked := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 2 {
			linked[f[0]] = f[1]
		}
	}
	for path := range modules {
		if linked[path] == "" {
			t.Errorf("data/modules.json has a licence of %s, which no program links", path)
		}
	}
	for path, dir := range linked {
		if modules[path][0] == "" || modules[path][1] == "" {
			t.Errorf("data/modules.json does not say under which licence %s stands, and who supplies it", path)
			continue
		}
		got := licenceOf(t, dir)
		if want := strings.Split(modules[path][0], " AND "); !slices.Contains(want, got) {
			t.Errorf("%s stands under %s, not under %s", path, got, modules[path][0])
		}
	}
}

// licenceOf reads which licence the text in a module's folder is.
func licenceOf(t *testing.T, dir string) string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.IsDir() || !regexp.MustCompile(`(?i)^licen[cs]e(\.md|\.txt)?$`).MatchString(f.Name()) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		s := strings.ToLower(strings.Join(strings.Fields(string(b)), " "))
		for _, l := range []struct{ id, says string }{
			{"MPL-2.0", "mozilla public license"}, {"Apache-2.0", "apache license version 2.0"}, {"BSD-3-Clause", "neither the name"}, {"BSD-2-Clause", "redistribution and use in source and binary forms"},
			{"MIT", "permission is hereby granted, free of charge, to any person obtaining a copy"},
		} {
			if strings.Contains(s, l.says) {
				return l.id
			}
		}
		t.Fatalf("%s/%s is no licence that is known here", dir, f.Name())
	}
	t.Fatalf("%s has no file with its licence", dir)
	return ""
}

// The risk assessment has the 22 rows of Annex I, each treated and backed by tests that are in the tree; none that always
// applies is left out.
func TestRiskIsWhole(t *testing.T) {
	r := Assess()
	if len(r.Rows) != 22 || len(risks) != 22 {
		t.Fatalf("%d rows, %d on record", len(r.Rows), len(risks))
	}
	for _, x := range r.Rows {
		if x.Applies != "yes" || x.Why == "" || x.Treatment == "" || len(x.Tests) == 0 {
			t.Errorf("%s is not decided: %+v", x.ID, x)
		}
		for _, name := range x.Tests {
			dot := strings.LastIndexByte(name, '.')
			room, test := name[:dot], name[dot+1:]
			if room == "openthings" {
				room = "."
			}
			files, err := filepath.Glob(filepath.Join(repo, room, "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(files, func(f string) bool {
				b, err := os.ReadFile(f)
				return err == nil && strings.Contains(string(b), "\nfunc "+test+"(t *testing.T)")
			}) {
				t.Errorf("%s rests on %s, which does not exist", x.ID, name)
			}
		}
	}
	for name, s := range map[string]string{"purpose": r.Context.Purpose, "use": r.Context.Use, "environment": r.Context.Environment, "assets": r.Context.Assets, "threats": r.Context.Threats} {
		if s == "" {
			t.Errorf("the assessment does not say: %s", name)
		}
	}
}

// The policy is the one of the repository, and keeps what the rows of Annex I Part II say of it. It names no host and
// invents no mail address.
func TestPolicy(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(repo, "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != Policy() {
		t.Error("conform/self/data/policy.md is not SECURITY.md: copy it")
	}
	for _, want := range []string{"Report it privately", "three working days", "90 days", "advisory", "free of charge", "five years", stated.Stated.String()} {
		if !strings.Contains(Policy(), want) {
			t.Errorf("the policy does not say %q", want)
		}
	}
	if strings.Contains(Policy(), "@") || strings.Contains(Policy(), "https://") {
		t.Error("the policy names a host or an address")
	}
	if stated.Support.Years != 5 {
		t.Errorf("the policy says five years, the statement %d", stated.Support.Years)
	}
}

// security.txt has what RFC 9116 demands: a contact, and an expiry ahead that is less than a year away.
func TestSecurityTxt(t *testing.T) {
	s := SecurityTxt(now)
	if !strings.Contains(s, "Contact: "+home+"\n") || strings.Count(s, "Expires: ") != 1 {
		t.Fatal(s)
	}
	_, rest, _ := strings.Cut(s, "Expires: ")
	at, _, _ := strings.Cut(rest, "\n")
	end, err := time.Parse(time.RFC3339, at)
	if err != nil || !end.After(now) || end.Sub(now) > 365*24*time.Hour {
		t.Errorf("it expires %s: %v", at, err)
	}
}

// A release is supported for five years from its day, and its OpenEoX document says so; a build that is none has no
// support period, and says that.
func TestSupportPeriodOfThePlatform(t *testing.T) {
	r, err := ParseRelease("1.4.0", "2027-02-28")
	if err != nil {
		t.Fatal(err)
	}
	p := Program{Name: "openthings", Release: r}
	if s := p.Support(); !s.Until.Equal(time.Date(2032, 2, 28, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("supported until %s", s.Until)
	}
	for _, p := range []Program{p, {Name: "openthings", Release: Release{Version: "devel"}}} {
		b, err := p.EoX()
		if err != nil {
			t.Fatal(err)
		}
		core, err := eox.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		end, dated := core.EndOfSecuritySupport.Time()
		if dated == p.Published.IsZero() || dated && !end.Equal(p.Support().Until) {
			t.Errorf("%s: %s", p.Version, b)
		}
	}
	if s := (Program{}).Support().Sentence(); !strings.Contains(s, "no release") {
		t.Error(s)
	}
	for _, bad := range [][2]string{{"1.4", "2027-02-28"}, {"1.4.0", "28.2.2027"}, {"", ""}, {"devel", "2027-02-28"}} {
		if _, err := ParseRelease(bad[0], bad[1]); err == nil {
			t.Errorf("%v is taken as a release", bad)
		}
	}
}

// The class follows by the rules that hold for every product, from descriptions that are quoted; the procedure is open.
func TestClassOfThePlatform(t *testing.T) {
	c := Classify(now)
	if c.Class != law.ImportantI || c.Category.Says == "" || c.Reason == "" {
		t.Fatalf("%+v", c)
	}
	if !slices.ContainsFunc(c.Routes, func(o conform.Option) bool { return o.Module == c.Module && o.Open && o.Rule == "cra.32.5" }) {
		t.Errorf("procedure %s is not open: %+v", c.Module, c.Routes)
	}
	for _, x := range c.Considered {
		if x.Says == "" || x.Reason == "" || x.Fits && x.Class != c.Class {
			t.Errorf("%s: %+v", x.ID, x)
		}
	}
}

// The draft cannot be mistaken for a declaration: it says what it is, and leaves to a person what only a person can say.
func TestDeclarationIsADraft(t *testing.T) {
	d := Program{Name: "openthings", SHA256: strings.Repeat("a", 64), Release: Release{Version: "1.4.0"}}.Declaration(now)
	text := d.Text()
	if !strings.Contains(text, "DRAFT. Not signed") || len(d.Points) != 8 {
		t.Fatal(text)
	}
	for _, p := range d.Points {
		if (p.Text == "") == (p.Missing == "") {
			t.Errorf("%s: %+v", p.Ref, p)
		}
	}
	for _, ref := range []string{"CRA Annex V(2)", "CRA Annex V(3)", "CRA Annex V(5)", "CRA Annex V(8)"} {
		at := slices.IndexFunc(d.Points, func(p Point) bool { return p.Ref == ref })
		if at < 0 || d.Points[at].Missing == "" {
			t.Errorf("the program fills in %s", ref)
		}
	}
}

// Nothing in the file claims what only a cited standard gives, and no sentence of the information is left unfilled.
func TestFileClaimsNothing(t *testing.T) {
	f, err := Running()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := Read(f, Stamped())
	if err != nil {
		t.Fatal(err)
	}
	file, err := p.Make(now)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range file.Documents {
		if law.Unfounded(string(d.body)) || len(d.body) == 0 || !slices.Contains(paths, d.Path) {
			t.Errorf("%s (%d bytes) claims what no standard gives, is empty or has no address", d.Path, len(d.body))
		}
	}
	for _, i := range p.Information() {
		if i.Text == "" || strings.ContainsAny(i.Text, "{}") {
			t.Errorf("%s: %q", i.Ref, i.Text)
		}
	}
	if len(p.Information()) != 14 || len(file.Open) <= len(stated.Open) {
		t.Errorf("%d items, %d open points of %d", len(p.Information()), len(file.Open), len(stated.Open))
	}
}
