// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/problem"
)

// Bounds of one record.
const (
	maxRecord   = 8 << 20 // bytes
	maxAffected = 10_000  // packages of a record
	maxEvents   = 50_000  // range events and listed versions of a record
	maxWord     = 512     // ids, names, versions
)

// Record is one record as it was published, as far as matching and people need it: in the OSV format
// (https://ossf.github.io/osv-schema, 1.x) or in that of the CVE List (https://github.com/CVEProject/cve-schema, 5.x).
type Record struct {
	ID         string      `json:"id"`                 // "OSV/CVE-2024-1" for a record in the OSV format that is named as a CVE
	Modified   string      `json:"modified,omitempty"` // unreliable: a delta goes by content
	Published  time.Time   `json:"published,omitzero"`
	Withdrawn  time.Time   `json:"withdrawn,omitzero"`
	Aliases    []string    `json:"aliases,omitempty"`
	Related    []string    `json:"related,omitempty"`
	Summary    string      `json:"summary,omitempty"`
	Details    string      `json:"details,omitempty"`
	Affected   []Affected  `json:"affected,omitempty"`
	References []Reference `json:"references,omitempty"`
	Severity   []struct {
		Type  string `json:"type"`
		Score string `json:"score"`
	} `json:"severity,omitempty"`
	Specific struct {
		ReviewStatus string `json:"review_status,omitempty"`
		URL          string `json:"url,omitempty"`
	} `json:"database_specific,omitzero"`

	Commits []Commits `json:"x_commits,omitempty"` // looked up by whoever has the repository

	Hash      string    `json:"-"` // hex SHA-256 of the bytes it was read from
	Scores    []Score   `json:"-"` // as the authors state them, the CNA first
	SSVC      *SSVC     `json:"-"` // the newest assessment; nil: none
	Exploited time.Time `json:"-"` // since when CISA lists it as exploited, if the record says so

	containers []container // of the CVE List: what each author says
	files      []string
}

// Reference is where to read on.
type Reference struct {
	Type string `json:"type"`
	URL  string `json:"url"`
}

// Identifier is what the name of a vulnerability looks like.
var Identifier = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$`)

// Parse reads one record, OSV or CVE List as its members tell, and refuses what no row should hold. Every error is a
// problem.Error.
func Parse(b []byte) (Record, error) {
	if len(b) > maxRecord {
		return Record{}, problem.TooLarge("the record has %d bytes; at most %d are read", len(b), maxRecord)
	}
	if !utf8.Valid(b) {
		return Record{}, problem.Invalid("the record is not valid UTF-8")
	}
	var kind struct {
		Metadata json.RawMessage `json:"cveMetadata"`
	}
	read := parseOSV
	isCVE := bytes.Contains(b, []byte(`"cveMetadata"`)) && json.Unmarshal(b, &kind) == nil && kind.Metadata != nil
	if isCVE {
		read = parseCVE
	}
	r, err := read(b)
	if err != nil {
		return Record{}, err
	}
	// Two publishers name records by the number of a CVE: each keeps its own, as names of one vulnerability.
	if !isCVE && cveNumber.MatchString(r.ID) {
		r.Aliases, r.ID = append(r.Aliases, r.ID), "OSV/"+r.ID
	}
	if err := r.check(); err != nil {
		return Record{}, err
	}
	sum := sha256.Sum256(b)
	r.Hash = hex.EncodeToString(sum[:])
	return r, nil
}

func (r *Record) check() error {
	if r.ID == "" {
		return problem.Invalid("it is neither an OSV record nor one of the CVE list: it has no id")
	}
	for _, id := range r.Idents() {
		if !Identifier.MatchString(id) {
			return problem.Invalid("%.80q is not the identifier of a vulnerability", id)
		}
	}
	if len(r.Aliases) > 1000 || len(r.Affected) > maxAffected {
		return problem.TooLarge("record %s names %d aliases and %d packages; too many", r.ID, len(r.Aliases), len(r.Affected))
	}
	if strings.ContainsRune(r.Summary+r.Details, 0) {
		return problem.Invalid("record %s holds a NUL character", r.ID)
	}
	if err := r.checkCommits(); err != nil {
		return err
	}
	return r.checkAffected()
}

// Idents are the names by which the vulnerability is known: the record's own and its aliases.
func (r *Record) Idents() []string {
	return slices.Compact(slices.Concat([]string{r.ID}, slices.Sorted(slices.Values(r.Aliases))))
}

// Reviewed says what the record says of itself: "reviewed", "unreviewed" or "".
func (r *Record) Reviewed() string { return strings.ToLower(r.Specific.ReviewStatus) }

// Claims are what the record says, by the names that components are looked up by; in a stable order.
func (r *Record) Claims() []Claim {
	if r.containers != nil {
		return r.cveClaims()
	}
	return r.osvClaims()
}

// Files are the source files of the fault, as paths of the project's tree; sorted. Empty if the record names none.
func (r *Record) Files() []string { return r.files }
