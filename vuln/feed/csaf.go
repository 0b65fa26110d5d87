// SPDX-License-Identifier: AGPL-3.0-only

package feed

import (
	"encoding/json"
	"io"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/vuln/record"
)

// maxCSAF bounds a document, in bytes (CSAF 2.0, section C.1).
const maxCSAF = 15 << 20

// CSAF is a document of a provider, judged only as far as telling which it is: what it says of products is read by vuln/vex.
type CSAF struct {
	Name      string // of the file in the feed
	ID        string // document/tracking/id
	Publisher string // document/publisher/namespace
	Category  string
	Revision  string // document/tracking/version
	Released  time.Time

	open func() (io.ReadCloser, error)
}

// Read gives the document's bytes.
func (d CSAF) Read() ([]byte, error) { return entry{name: d.Name, open: d.open}.read() }

func parseCSAF(b []byte) (CSAF, error) {
	if len(b) > maxCSAF {
		return CSAF{}, problem.TooLarge("the CSAF document has %d bytes; at most %d are read", len(b), maxCSAF)
	}
	var doc struct {
		Document struct {
			Category  string `json:"category"`
			Version   string `json:"csaf_version"`
			Publisher struct {
				Namespace string `json:"namespace"`
			} `json:"publisher"`
			Tracking struct {
				ID       string    `json:"id"`
				Version  string    `json:"version"`
				Released time.Time `json:"current_release_date"`
			} `json:"tracking"`
		} `json:"document"`
	}
	if !utf8.Valid(b) {
		return CSAF{}, problem.Invalid("the CSAF document is not valid UTF-8")
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return CSAF{}, problem.Invalid("the CSAF document cannot be read: %v", err)
	}
	d := doc.Document
	if d.Version != "2.0" && d.Version != "2.1" {
		return CSAF{}, problem.Invalid("the document is written in CSAF %.20q; 2.0 and 2.1 are read", d.Version)
	}
	if !record.Identifier.MatchString(d.Tracking.ID) || d.Tracking.Version == "" || d.Publisher.Namespace == "" || len(d.Publisher.Namespace) > 1000 {
		return CSAF{}, problem.Invalid("the CSAF document does not say who published it, under which id and in which version")
	}
	return CSAF{ID: d.Tracking.ID, Publisher: d.Publisher.Namespace, Category: d.Category, Revision: d.Tracking.Version, Released: d.Tracking.Released.UTC()}, nil
}
