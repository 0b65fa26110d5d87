// SPDX-License-Identifier: AGPL-3.0-only

package advisory

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"html/template"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/vuln"
	"github.com/openthings-platform/openthings/vuln/csaf"
)

// The public pages stand outside the console's frame: they carry the publisher's name, no menu and no script.
var publicPages = template.Must(template.New("public").Funcs(template.FuncMap{
	"day":     func(t time.Time) template.HTML { return stamp(t, "2 January 2006") },
	"instant": func(t time.Time) template.HTML { return stamp(t, "2006-01-02 15:04 UTC") },
	"lower":   strings.ToLower,
}).ParseFS(pagesFS, "pages/public.html", "pages/folder.html"))

// stamp is a time for people, with the machine's beside it. The layouts hold nothing that HTML would read.
func stamp(t time.Time, layout string) template.HTML {
	t = t.UTC()
	return template.HTML(fmt.Sprintf(`<time datetime="%s">%s</time>`, t.Format(time.RFC3339), t.Format(layout)))
}

// publicRelease is one line of the table of releases.
type publicRelease struct {
	Name, Mark, Word, Tone, Why string
	Recommended                 bool
}

// publicView is an advisory as the world sees it: nothing but what its document says.
type publicView struct {
	csaf.Meta
	Vulnerability csaf.Vulnerability
	Fix           []csaf.Remediation // what helps, the fix first
	None          []csaf.Remediation // where there is no help yet
	Releases      []publicRelease
	Score         *csaf.CVSS
	Label         csaf.TLPLabel
	Document, Key string // addresses
	Root          string
	SHA256        string
}

// statusWords are the words for the statuses of a product, with a mark and a tone so that colour alone tells nothing.
var statusWords = map[vuln.Status]publicRelease{
	vuln.DecidedAffected:    {Mark: "✕", Word: "Affected", Tone: "bad"},
	vuln.UnderInvestigation: {Mark: "?", Word: "Being investigated", Tone: "open"},
	vuln.Fixed:              {Mark: "✓", Word: "Fixed", Tone: "good"},
	vuln.NotAffected:        {Mark: "–", Word: "Not affected", Tone: "calm"},
}

// whyWords say the five justifications to people.
var whyWords = map[csaf.FlagLabel]string{
	csaf.ComponentNotPresent:       "the component is not in it",
	csaf.VulnerableCodeNotPresent:  "the vulnerable code is not in it",
	csaf.VulnerableCodeNotInPath:   "the vulnerable code is never run",
	csaf.CodeNotControlledByOthers: "an attacker cannot reach the vulnerable code",
	csaf.InlineMitigationsExist:    "it is protected against the vulnerability",
}

// publicPage renders the document of a published revision.
func (s *Service) publicPage(sh *shelf, e entry) (file1, error) {
	d, err := csaf.Parse(e.document)
	if err != nil {
		return file1{}, err
	}
	v := publicView{Meta: d.Document, Label: e.TLP, Document: sh.at(e.TLP, e.initial, e.tracking, ""), Key: sh.root() + "openpgp/" + e.Fingerprint + ".asc", Root: sh.root(), SHA256: e.SHA256}
	if len(d.Vulnerabilities) > 0 {
		v.Vulnerability = d.Vulnerabilities[0]
	}
	for _, r := range v.Vulnerability.Remediations {
		if r.Category == csaf.NoneAvailable {
			v.None = append(v.None, r)
		} else {
			v.Fix = append(v.Fix, r)
		}
	}
	if len(v.Vulnerability.Scores) > 0 {
		v.Score = v.Vulnerability.Scores[0].CVSS3
	}
	v.Releases = publicReleases(d)
	return publicFile("public.html", v)
}

func publicReleases(d *csaf.Document) (out []publicRelease) {
	for _, v := range d.Vulnerabilities {
		st := v.ProductStatus
		if st == nil {
			continue
		}
		d.ProductTree.Products(func(p csaf.Product, _ csaf.Path) {
			for status, ids := range map[vuln.Status][]string{vuln.DecidedAffected: st.KnownAffected, vuln.Fixed: st.Fixed, vuln.NotAffected: st.KnownNotAffected, vuln.UnderInvestigation: st.UnderInvestigation} {
				if !slices.Contains(ids, p.ProductID) {
					continue
				}
				line := statusWords[status]
				line.Name, line.Recommended = p.Name, slices.Contains(st.Recommended, p.ProductID)
				for _, f := range v.Flags {
					if slices.Contains(f.ProductIDs, p.ProductID) {
						line.Why = whyWords[f.Label]
					}
				}
				out = append(out, line)
			}
		})
	}
	slices.Reverse(out) // the newest release first
	return out
}

// folder is the page of a folder: what a reader may see below it.
func (s *Service) folder(ctx context.Context, sh *shelf, labels []csaf.TLPLabel, year string) (file1, error) {
	type line struct {
		entry
		Page, Document, Title, Note, Tracking, Product string
	}
	var lines []line
	for _, l := range labels {
		es, err := s.entries(ctx, sh, l, "")
		if err != nil {
			return file1{}, err
		}
		for _, e := range es {
			if year == "" || year == strconv.Itoa(e.initial.Year()) {
				lines = append(lines, line{e, sh.at(l, e.initial, e.tracking, ".html"), sh.at(l, e.initial, e.tracking, ""), e.title, e.note, e.tracking, e.productName})
			}
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return b.At.Compare(a.At) })
	feeds := map[csaf.TLPLabel]string{}
	for _, l := range labels {
		feeds[l] = sh.feed(l)
	}
	return publicFile("folder.html", map[string]any{"Publisher": sh.csaf(), "Lines": lines, "Feeds": feeds, "Metadata": sh.root() + "provider-metadata.json", "Keys": sh.keys, "Root": sh.root(), "Year": year})
}

func publicFile(name string, v any) (file1, error) {
	var b bytes.Buffer
	err := publicPages.ExecuteTemplate(&b, name, v)
	return file1{"text/html; charset=utf-8", b.Bytes()}, err
}
