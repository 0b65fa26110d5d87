// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"cmp"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// Bounds of a record of the CVE List beside those of every record.
const (
	maxText     = 4096    // bytes of a vendor, product or version: sentences stand there too
	maxDetails  = 1 << 16 // bytes of a description
	maxFiles    = 10_000  // source files named
	maxCriteria = 10_000  // CPE names
	maxCopies   = 500_000 // versions times the names that they stand under
)

// cveDocument is a record of the CVE List, formats 5.0 to 5.2, as far as it is read
// (https://github.com/CVEProject/cve-schema/blob/main/schema/CVE_Record_Format.json).
type cveDocument struct {
	Commits     []Commits `json:"x_commits"`
	DataVersion string    `json:"dataVersion"`
	Metadata    struct {
		ID        string `json:"cveId"`
		State     string `json:"state"`
		Published string `json:"datePublished"`
		Updated   string `json:"dateUpdated"`
		Rejected  string `json:"dateRejected"`
		Assigner  string `json:"assignerShortName"`
	} `json:"cveMetadata"`
	Containers struct {
		CNA container   `json:"cna"`
		ADP []container `json:"adp"`
	} `json:"containers"`
}

// container is what one author says: the numbering authority (CNA), or a data publisher (ADP) such as CISA.
type container struct {
	Provider struct {
		Name string `json:"shortName"`
	} `json:"providerMetadata"`
	Title        string          `json:"title"`
	Descriptions []prose         `json:"descriptions"`
	Reasons      []prose         `json:"rejectedReasons"`
	Affected     []cveAffected   `json:"affected"`
	Applies      []applicable    `json:"cpeApplicability"`
	Metrics      []metric        `json:"metrics"`
	References   []cveReference  `json:"references"`
	Source       json.RawMessage `json:"source"`
}

type prose struct {
	Lang  string `json:"lang"`
	Value string `json:"value"`
}

type cveReference struct {
	URL  string   `json:"url"`
	Tags []string `json:"tags"`
}

// cveAffected is what a container says about one product.
type cveAffected struct {
	Vendor        string       `json:"vendor,omitempty"`
	Product       string       `json:"product,omitempty"`
	Collection    string       `json:"collectionURL,omitempty"`
	Package       string       `json:"packageName,omitempty"`
	PURL          string       `json:"packageURL,omitempty"` // since 5.2, without a version
	Repo          string       `json:"repo,omitempty"`
	CPEs          []string     `json:"cpes,omitempty"`
	Modules       []string     `json:"modules,omitempty"`
	Files         []string     `json:"programFiles,omitempty"`
	Platforms     []string     `json:"platforms,omitempty"`
	DefaultStatus string       `json:"defaultStatus,omitempty"`
	Versions      []cveVersion `json:"versions,omitempty"`
}

// cveVersion gives one version or a range of versions a status. By the letter of the format the first that matches decides.
type cveVersion struct {
	Version     string      `json:"version"`
	Status      string      `json:"status"`
	Type        string      `json:"versionType,omitempty"`
	LessThan    string      `json:"lessThan,omitempty"`
	LessOrEqual string      `json:"lessThanOrEqual,omitempty"`
	Changes     []cveChange `json:"changes,omitempty"`
}

type cveChange struct {
	At     string `json:"at"`
	Status string `json:"status"`
}

var cveNumber = regexp.MustCompile(`^CVE-[0-9]{4}-[0-9]{4,19}$`)

// parseCVE reads a record of the CVE List into what all records have in common.
func parseCVE(b []byte) (Record, error) {
	var d cveDocument
	if err := json.Unmarshal(b, &d); err != nil {
		return Record{}, problem.Invalid("the record is not valid CVE JSON: %v", err)
	}
	m := d.Metadata
	switch {
	case !cveNumber.MatchString(m.ID):
		return Record{}, problem.Invalid("%.80q is not the number of a CVE record", m.ID)
	case !strings.HasPrefix(d.DataVersion, "5."):
		return Record{}, problem.Invalid("record %s is of the format %.20q; 5.0 to 5.2 are read", m.ID, d.DataVersion)
	case m.State != "PUBLISHED" && m.State != "REJECTED":
		return Record{}, problem.Invalid("record %s is in the unknown state %.20q", m.ID, m.State)
	}
	r := Record{ID: m.ID, Commits: d.Commits, Modified: clean(m.Updated, 64), Published: cveTime(m.Published)}
	d.Containers.CNA.Provider.Name = cmp.Or(d.Containers.CNA.Provider.Name, m.Assigner, "CNA")
	r.containers = append([]container{d.Containers.CNA}, d.Containers.ADP...)
	if m.State == "REJECTED" {
		r.Details = english(d.Containers.CNA.Reasons)
		r.Summary = firstSentence(r.Details)
		if r.Withdrawn = cveTime(cmp.Or(m.Rejected, m.Updated)); r.Withdrawn.IsZero() {
			r.Withdrawn = time.Unix(0, 0).UTC() // rejected, nobody says when
		}
		r.containers = nil
		return r, nil
	}
	if err := r.readContainers(); err != nil {
		return Record{}, err
	}
	return r, nil
}

// readContainers tidies what the authors wrote, bounds it, and lifts out what is said of the vulnerability as a whole.
func (r *Record) readContainers() error {
	names, versions, files, criteria, copies := 0, 0, 0, 0, 0
	for i := range r.containers {
		c := &r.containers[i]
		c.Provider.Name = cmp.Or(clean(c.Provider.Name, 64), "ADP")
		r.Details = cmp.Or(r.Details, english(c.Descriptions))
		if i == 0 {
			r.Summary = clean(c.Title, 512)
			r.Aliases = advisory(c.Source)
		}
		for _, ref := range c.References {
			if u := clean(ref.URL, 2048); u != "" && !slices.ContainsFunc(r.References, func(x Reference) bool { return x.URL == u }) {
				r.References = append(r.References, Reference{Type: strings.Join(ref.Tags, " "), URL: u})
			}
		}
		for _, m := range c.Metrics {
			r.readMetric(m, c.Provider.Name)
		}
		for j := range c.Affected {
			a := &c.Affected[j]
			names++
			versions += len(a.Versions)
			files += len(a.Files)
			criteria += len(a.CPEs)
			copies += len(a.CPEs) * (1 + len(a.Versions)) // each name gets the versions
			a.tidy()
			r.files = append(r.files, a.Files...)
		}
		for _, a := range c.Applies {
			for _, n := range a.Nodes {
				criteria += len(n.Match)
			}
		}
	}
	if names > maxAffected || versions > maxEvents || copies > maxCopies || files > maxFiles || criteria > maxCriteria || len(r.References) > maxAffected {
		return problem.TooLarge("record %s names %d products, %d versions, %d files and %d CPE names; too many", r.ID, names, versions, files, criteria)
	}
	slices.Sort(r.files)
	r.files = slices.Compact(r.files)
	r.Summary = cmp.Or(r.Summary, firstSentence(r.Details))
	return nil
}

func (a *cveAffected) tidy() {
	for _, s := range []*string{&a.Vendor, &a.Product, &a.Collection, &a.Package, &a.PURL, &a.Repo, &a.DefaultStatus} {
		*s = clean(*s, maxText)
	}
	for _, list := range [][]string{a.CPEs, a.Modules, a.Files, a.Platforms} {
		for i := range list {
			list[i] = clean(list[i], maxText)
		}
	}
	for i := range a.Versions {
		v := &a.Versions[i]
		for _, s := range []*string{&v.Version, &v.Status, &v.Type, &v.LessThan, &v.LessOrEqual} {
			*s = clean(*s, maxText)
		}
		for j := range v.Changes {
			v.Changes[j] = cveChange{clean(v.Changes[j].At, maxText), clean(v.Changes[j].Status, maxText)}
		}
	}
}

// clean makes one line of a text and cuts it: authors write what they like, and one field must not cost the record.
func clean(s string, most int) string {
	s = strings.TrimSpace(strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, s))
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}

func english(texts []prose) string {
	for _, t := range texts {
		if t.Lang == "" || strings.HasPrefix(strings.ToLower(t.Lang), "en") {
			s := strings.ReplaceAll(t.Value, "\x00", " ")
			if len(s) > maxDetails {
				s = strings.ToValidUTF8(s[:maxDetails], "")
			}
			return strings.TrimSpace(s)
		}
	}
	return ""
}

func firstSentence(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	s, _, _ = strings.Cut(s, ". ")
	return clean(s, 256)
}

var githubAdvisory = regexp.MustCompile(`^GHSA(-[0-9a-z]{4}){3}$`)

// advisory reads the one alias that a CNA states: the number of its own advisory.
func advisory(source json.RawMessage) []string {
	var s struct {
		Advisory string `json:"advisory"`
	}
	if json.Unmarshal(source, &s) == nil && githubAdvisory.MatchString(s.Advisory) {
		return []string{s.Advisory}
	}
	return nil
}

// cveTime reads the times of the format; the older ones have no zone and mean UTC.
func cveTime(s string) time.Time {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}
