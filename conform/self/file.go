// SPDX-License-Identifier: AGPL-3.0-only

package self

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/conform"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/product/eox"
	"github.com/openthings-platform/openthings/respond/disclosure"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/vuln/vex"
)

//go:embed data/policy.md
var policy string

//go:embed data/statement.json
var statementJSON []byte

//go:embed data/risk.json
var riskJSON []byte

//go:embed data/information.json
var informationJSON []byte

//go:embed data/findings.json
var findingsJSON []byte

// statement is what the project states, with the day on which it did.
type statement struct {
	Stated  law.Date `json:"stated"`
	Support struct {
		Years  int    `json:"years"`
		Kind   string `json:"kind"`
		Reason string `json:"reason"`
	} `json:"support"`
	Classification struct {
		Core       string       `json:"core"`
		Category   string       `json:"category"`
		Reason     string       `json:"reason"`
		Considered []considered `json:"considered"`
	} `json:"classification"`
	Route struct {
		Module conform.Module `json:"module"`
		Reason string         `json:"reason"`
	} `json:"route"`
	Context conform.Context `json:"context"`
	Open    []string        `json:"open"`
}

type considered struct {
	Category string `json:"category"`
	Fits     bool   `json:"fits"`
	Reason   string `json:"reason"`
}

// item is one item of the user information; {name}, {version}, {sha256}, {support} and {home} stand for what the program
// knows of itself.
type item struct {
	ID   string `json:"id"`
	Text string `json:"text"`
}

var (
	stated   = must[statement](statementJSON)
	risks    = must[[]Row](riskJSON)
	items    = must[[]item](informationJSON)
	findings = must[[]Finding](findingsJSON)
)

// Finding is what the project decided about a vulnerability that is known of a part.
type Finding struct {
	Vulnerability string            `json:"vulnerability"`
	Part          string            `json:"part" doc:"Package URL"`
	Status        vex.Status        `json:"status"`
	Justification vex.Justification `json:"justification,omitempty"`
	Why           string            `json:"why"`
	On            law.Date          `json:"on"`
}

// Support says until when a version gets security updates.
type Support struct {
	Version string    `json:"version"`
	Years   int       `json:"years"`
	From    time.Time `json:"from,omitzero" doc:"The day on which the version was published; absent: this build is no release and has no support period"`
	Until   time.Time `json:"until,omitzero"`
	Kind    string    `json:"kind"`
	Reason  string    `json:"reason"`
	Stated  law.Date  `json:"stated"`
}

// Support is the support period of the program's version.
func (p Program) Support() Support {
	s := Support{Version: p.Version, Years: stated.Support.Years, From: p.Published, Kind: stated.Support.Kind, Reason: stated.Support.Reason, Stated: stated.Stated}
	if !p.Published.IsZero() {
		s.Until = p.Published.AddDate(s.Years, 0, 0)
	}
	return s
}

// Sentence is the period in words.
func (s Support) Sentence() string {
	if s.Until.IsZero() {
		return "This build is no release and has no support period. " + s.Kind
	}
	return fmt.Sprintf("Version %s is supported from %s until %s. %s", s.Version, s.From.Format(time.DateOnly), s.Until.Format(time.DateOnly), s.Kind)
}

// EoX is the support period as an OpenEoX Core document. What is not dated is to be announced.
func (p Program) EoX() ([]byte, error) {
	s := p.Support()
	end := eox.TBA
	if !s.Until.IsZero() {
		end = eox.At(s.Until)
	}
	updated := stated.Stated.Time
	if s.From.After(updated) {
		updated = s.From
	}
	return eox.Core{GeneralAvailability: eox.At(s.From), EndOfSecuritySupport: end, EndOfLife: end, LastUpdated: updated}.Marshal()
}

// Policy is the project's policy on vulnerabilities, as SECURITY.md has it.
func Policy() string { return policy }

// SecurityTxt is where vulnerabilities of the program are reported (RFC 9116). It names the place that hosts the source,
// where the policy says how: there is no mail address.
func SecurityTxt(now time.Time) string {
	c := disclosure.Contact{Contacts: []string{home}, Policy: home, PreferredLocales: []string{"en"}}
	return c.Text(nil, nil, now.AddDate(0, 3, 0).Truncate(24*time.Hour))
}

// Classification is the class of the platform, how it was decided and which procedures follow.
type Classification struct {
	Decided    law.Date         `json:"decided"`
	Core       string           `json:"core"`
	Category   law.Category     `json:"category"`
	Class      law.Class        `json:"class"`
	ClassName  string           `json:"class_name"`
	Reason     string           `json:"reason"`
	Considered []Considered     `json:"considered"`
	Routes     []conform.Option `json:"routes" doc:"Procedures that are open to free and open-source software with public technical documentation"`
	Module     conform.Module   `json:"module"`
	RouteWhy   string           `json:"route_reason"`
}

// Considered is another category and whether it fits.
type Considered struct {
	law.Category
	Fits   bool   `json:"fits"`
	Reason string `json:"reason"`
}

// Classify says what class the platform is of at the time, by the rules that hold for every product.
func Classify(now time.Time) Classification {
	s := stated.Classification
	c := conform.Classification{Core: s.Core, Category: s.Category, Reason: s.Reason}
	cat, _ := law.CategoryOf(s.Category)
	out := Classification{Decided: stated.Stated, Core: s.Core, Category: cat, Class: c.Class(), ClassName: c.Class().Name(), Reason: s.Reason, Module: stated.Route.Module, RouteWhy: stated.Route.Reason,
		Routes: conform.Routes(c.Class(), conform.Claims{OpenSource: true, PublicDocs: home}, law.Citations(), now)}
	for _, x := range s.Considered {
		cat, _ := law.CategoryOf(x.Category)
		out.Considered = append(out.Considered, Considered{cat, x.Fits, x.Reason})
	}
	return out
}

// Row is an essential requirement with how the platform meets it. Each test is one of this repository, as package.Test.
type Row struct {
	ID        string   `json:"id"`
	Ref       string   `json:"ref"`
	Says      string   `json:"says"`
	Applies   string   `json:"applies"`
	Why       string   `json:"why"`
	Treatment string   `json:"treatment"`
	Tests     []string `json:"tests"`
}

// Risk is the risk assessment of the platform with the rows of Annex I.
type Risk struct {
	Assessed law.Date        `json:"assessed"`
	Context  conform.Context `json:"context"`
	Rows     []Row           `json:"rows"`
}

// Assess is the risk assessment in the order of the law.
func Assess() Risk {
	out := Risk{Assessed: stated.Stated, Context: stated.Context}
	for _, r := range law.Annex("cra.i") {
		row := Row{ID: r.ID}
		for _, x := range risks {
			if x.ID == r.ID {
				row = x
			}
		}
		row.Ref, row.Says = r.Ref, r.Wording
		out.Rows = append(out.Rows, row)
	}
	return out
}

// Item is one item of the information for users and integrators (CRA Annex II).
type Item struct {
	ID   string `json:"id"`
	Ref  string `json:"ref"`
	Asks string `json:"asks"`
	Text string `json:"text"`
}

// Information is what users and integrators get with the program.
func (p Program) Information() []Item {
	fill := strings.NewReplacer("{name}", p.Name, "{version}", p.Version, "{sha256}", p.SHA256, "{support}", p.Support().Sentence(), "{home}", home)
	var out []Item
	for _, r := range law.Annex("cra.ii") {
		i := Item{ID: r.ID, Ref: r.Ref, Asks: r.Wording}
		for _, x := range items {
			if x.ID == r.ID {
				i.Text = fill.Replace(x.Text)
			}
		}
		out = append(out, i)
	}
	return out
}

// Declaration is the EU declaration of conformity as a draft. It says in each form that it is one.
type Declaration struct {
	Draft  string  `json:"draft" doc:"What it is not"`
	Points []Point `json:"points"`
}

// Point is one point of Annex V. Missing says what a person has to fill in.
type Point struct {
	Ref     string `json:"ref"`
	Asks    string `json:"asks"`
	Text    string `json:"text,omitempty"`
	Missing string `json:"missing,omitempty"`
}

// draft stands over the declaration in every form.
const draft = "DRAFT. Not signed, and nothing is declared by it. Whoever places the program on the market carries out the conformity assessment, fills in what is missing, and signs."

// Declaration drafts the declaration for the program's version.
func (p Program) Declaration(now time.Time) Declaration {
	c := Classify(now)
	said := map[string]Point{
		"cra.v.1": {Text: fmt.Sprintf("OpenThings, software, version %s, program %s, SHA-256 %s.", p.Version, p.Name, p.SHA256)},
		"cra.v.2": {Missing: "Name and address of the manufacturer. This build names none."},
		"cra.v.3": {Missing: "The statement of sole responsibility, by whoever signs."},
		"cra.v.4": {Text: "The file with the digest above, built from " + module + ", with the bill of materials at /self/sbom.json."},
		"cra.v.5": {Missing: "The statement of conformity with Regulation (EU) 2024/2847, by whoever signs."},
		"cra.v.6": {Text: "No harmonised standard is named: the Official Journal cites none for this Regulation. The solutions adopted stand in the risk assessment at /self/risk.json."},
		"cra.v.7": {Text: fmt.Sprintf("No notified body. %s. Procedure: %s, CRA Art. 32(5).", c.ClassName, c.Module.Name())},
		"cra.v.8": {Missing: "Place, date, name, function and signature."},
	}
	if len(law.Citations()) > 0 {
		said["cra.v.6"] = Point{Missing: "Whether a cited harmonised standard was applied. Some are cited since this text was written."}
	}
	out := Declaration{Draft: draft}
	for _, r := range law.Annex("cra.v") {
		point := said[r.ID]
		point.Ref, point.Asks = r.Ref, r.Wording
		out.Points = append(out.Points, point)
	}
	return out
}

// Text is the draft for people.
func (d Declaration) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "EU declaration of conformity\n\n%s\n\n", d.Draft)
	for _, p := range d.Points {
		fmt.Fprintf(&b, "%s. %s\n", p.Ref, p.Asks)
		if p.Text != "" {
			fmt.Fprintf(&b, "  %s\n", p.Text)
		}
		if p.Missing != "" {
			fmt.Fprintf(&b, "  [missing: %s]\n", p.Missing)
		}
	}
	return b.String()
}

// VEX is what the project decided about vulnerabilities of parts of the program, as OpenVEX; nothing while there is
// nothing to say.
func (p Program) VEX() ([]byte, error) {
	d := vex.Document{Version: "1", Author: project, At: stated.Stated.Time, ID: home + "/vex/" + p.SHA256}
	for _, f := range findings {
		if f.On.After(d.At) {
			d.At = f.On.Time
		}
		d.Statements = append(d.Statements, vex.Statement{Idents: []string{f.Vulnerability}, Status: f.Status, Justification: f.Justification, Detail: f.Why, At: f.On.Time,
			Products: []vex.Product{{Ref: vex.Ref{Digest: "sha256:" + p.SHA256, PURL: "pkg:generic/" + p.Name + "@" + p.Version}, Components: []vex.Ref{{PURL: f.Part}}}}})
	}
	if len(d.Statements) == 0 {
		return nil, nil
	}
	return vex.Write(d, vex.OpenVEX)
}

// Open lists what the program does not know of itself, or what a person still has to do.
func (p Program) Open() []string {
	out := stated.Open
	if p.Published.IsZero() {
		out = append([]string{"This build is no release: it has no version, no support period and no signature of the project."}, out...)
	}
	return out
}

// Document is one part of the file, at its fixed address.
type Document struct {
	Name string `json:"name"`
	Path string `json:"path"`
	Kind string `json:"-"` // media type
	body []byte
}

// File is everything that the platform publishes about itself.
type File struct {
	Program   Program          `json:"program"`
	Quality   sbom.Quality     `json:"sbom_quality"`
	Parts     int              `json:"parts"`
	Support   Support          `json:"support"`
	Class     Classification   `json:"classification"`
	Open      []string         `json:"open" doc:"What the program does not know of itself, or what a person still has to do"`
	Documents []Document       `json:"documents"`
	Bill      []sbom.Component `json:"-"`
}

// Make computes the file of a program.
func (p Program) Make(now time.Time) (File, error) {
	doc, err := p.Bill()
	if err != nil {
		return File{}, err
	}
	bill, err := sbom.Parse(doc)
	if err != nil {
		return File{}, err
	}
	eol, err := p.EoX()
	if err != nil {
		return File{}, err
	}
	statements, err := p.VEX()
	if err != nil {
		return File{}, err
	}
	f := File{Program: p, Quality: bill.Quality(), Parts: len(bill.Components), Support: p.Support(), Class: Classify(now), Open: p.Open(), Bill: bill.Components}
	const text = "text/plain; charset=utf-8"
	f.Documents = []Document{
		{"Bill of materials (CycloneDX 1.6)", "/self/sbom.json", "application/vnd.cyclonedx+json; version=1.6", doc},
		{"End of support (OpenEoX Core)", "/self/openeox.json", "application/json", eol},
		{"Classification and procedure", "/self/classification.json", "application/json", marshal(f.Class)},
		{"Risk assessment, 22 rows of Annex I", "/self/risk.json", "application/json", marshal(Assess())},
		{"Information for users and integrators (Annex II)", "/self/information.json", "application/json", marshal(p.Information())},
		{"Declaration of conformity, an unsigned draft", "/self/declaration.txt", text, []byte(p.Declaration(now).Text())},
		{"Policy on vulnerabilities", "/self/policy", "text/markdown; charset=utf-8", []byte(policy)},
		{"Where to report (security.txt)", "/self/security.txt", text, []byte(SecurityTxt(now))},
	}
	if statements != nil {
		f.Documents = append(f.Documents, Document{"Decisions on known vulnerabilities (OpenVEX)", "/self/vex.json", "application/json", statements})
	}
	return f, nil
}

// marshal writes what can always be written.
func marshal(v any) []byte {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic("self: " + err.Error())
	}
	return append(b, '\n')
}
