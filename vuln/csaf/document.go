// SPDX-License-Identifier: AGPL-3.0-only

package csaf

import "time"

// Version is the version of the standard that is read and written.
const Version = "2.0"

// The profiles of section 4 that are written here. A document of another category is read as well.
const (
	SecurityAdvisory = "csaf_security_advisory" // section 4.4
	VEX              = "csaf_vex"               // section 4.5
)

// Document is a whole CSAF file (section 3.2). The members of each type stand in alphabetical order, as they are written.
type Document struct {
	Document        Meta            `json:"document"`
	ProductTree     *ProductTree    `json:"product_tree,omitempty"`
	Vulnerabilities []Vulnerability `json:"vulnerabilities,omitempty"`
}

// Meta is about the document itself (section 3.2.1).
type Meta struct {
	Acknowledgments   []Acknowledgment `json:"acknowledgments,omitempty"`
	AggregateSeverity *Severity        `json:"aggregate_severity,omitempty"`
	Category          string           `json:"category"`     // one of the profiles, or free
	CSAFVersion       string           `json:"csaf_version"` // Version
	Distribution      *Distribution    `json:"distribution,omitempty"`
	Lang              string           `json:"lang,omitempty"` // BCP 47
	Notes             []Note           `json:"notes,omitempty"`
	Publisher         Publisher        `json:"publisher"`
	References        []Reference      `json:"references,omitempty"`
	SourceLang        string           `json:"source_lang,omitempty"` // of a translation
	Title             string           `json:"title"`
	Tracking          Tracking         `json:"tracking"`
}

// Acknowledgment thanks somebody (section 3.1.1); one of its members is needed.
type Acknowledgment struct {
	Names        []string `json:"names,omitempty"`
	Organization string   `json:"organization,omitempty"`
	Summary      string   `json:"summary,omitempty"`
	URLs         []string `json:"urls,omitempty"`
}

// Severity is how bad the publisher calls it, in the words of a namespace.
type Severity struct {
	Namespace string `json:"namespace,omitempty"`
	Text      string `json:"text"`
}

// Distribution says who may see the document (section 3.2.1.5).
type Distribution struct {
	Text string `json:"text,omitempty"`
	TLP  *TLP   `json:"tlp,omitempty"`
}

// TLP is the traffic light label (version 1, which CSAF 2.0 uses).
type TLP struct {
	Label TLPLabel `json:"label"`
	URL   string   `json:"url,omitempty"`
}

// TLPLabel is one of the four colours.
type TLPLabel string

// The labels, from the widest circle to the closest. Only documents with TLPWhite are for everybody.
const (
	TLPWhite TLPLabel = "WHITE"
	TLPGreen TLPLabel = "GREEN"
	TLPAmber TLPLabel = "AMBER"
	TLPRed   TLPLabel = "RED"
)

// Note is a text for people (section 3.1.5).
type Note struct {
	Audience string       `json:"audience,omitempty"`
	Category NoteCategory `json:"category"`
	Text     string       `json:"text"`
	Title    string       `json:"title,omitempty"`
}

// NoteCategory is what a note is for.
type NoteCategory string

// The categories of notes.
const (
	NoteDescription     NoteCategory = "description"
	NoteDetails         NoteCategory = "details"
	NoteFAQ             NoteCategory = "faq"
	NoteGeneral         NoteCategory = "general"
	NoteLegalDisclaimer NoteCategory = "legal_disclaimer"
	NoteOther           NoteCategory = "other"
	NoteSummary         NoteCategory = "summary"
)

// Publisher is who issued the document (section 3.2.1.8).
type Publisher struct {
	Category         PublisherCategory `json:"category"`
	ContactDetails   string            `json:"contact_details,omitempty"`
	IssuingAuthority string            `json:"issuing_authority,omitempty"`
	Name             string            `json:"name"`
	Namespace        string            `json:"namespace"` // an address under the publisher's control
}

// PublisherCategory is the publisher's part in the matter.
type PublisherCategory string

// The categories of publishers.
const (
	PublisherCoordinator PublisherCategory = "coordinator"
	PublisherDiscoverer  PublisherCategory = "discoverer"
	PublisherOther       PublisherCategory = "other"
	PublisherTranslator  PublisherCategory = "translator"
	PublisherUser        PublisherCategory = "user"
	PublisherVendor      PublisherCategory = "vendor"
)

// Reference leads to more about the document or a vulnerability (section 3.1.10).
type Reference struct {
	Category ReferenceCategory `json:"category,omitempty"` // empty: external
	Summary  string            `json:"summary"`
	URL      string            `json:"url"`
}

// ReferenceCategory tells other places of this document from everything else.
type ReferenceCategory string

// The categories of references.
const (
	ReferenceExternal ReferenceCategory = "external"
	ReferenceSelf     ReferenceCategory = "self"
)

// Tracking is the document's identity and its history (section 3.2.1.12).
type Tracking struct {
	Aliases            []string   `json:"aliases,omitempty"`
	CurrentReleaseDate time.Time  `json:"current_release_date"`
	Generator          *Generator `json:"generator,omitempty"`
	ID                 string     `json:"id"` // unique within the publisher; it makes the file's name, see Filename
	InitialReleaseDate time.Time  `json:"initial_release_date"`
	RevisionHistory    []Revision `json:"revision_history"`
	Status             Status     `json:"status"`
	Version            string     `json:"version"` // a whole number or SemVer; the last one of the history
}

// Status is how finished a document is.
type Status string

// The statuses: draft is not published, interim changes soon.
const (
	Draft   Status = "draft"
	Final   Status = "final"
	Interim Status = "interim"
)

// Generator is the program that wrote the document.
type Generator struct {
	Date   *time.Time `json:"date,omitempty"`
	Engine Engine     `json:"engine"`
}

// Engine is a program's name and version.
type Engine struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
}

// Revision is one entry of the history.
type Revision struct {
	Date          time.Time `json:"date"`
	LegacyVersion string    `json:"legacy_version,omitempty"`
	Number        string    `json:"number"`
	Summary       string    `json:"summary"`
}
