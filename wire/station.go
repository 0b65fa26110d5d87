// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// Permit lets a line station make units without a network. It travels as a note under the platform's log key whose
// text is PermitHeader and then this as JSON.
type Permit struct {
	Station   string          `json:"station"`
	Tenant    string          `json:"tenant"`
	Batch     string          `json:"batch"`
	Product   string          `json:"product"`
	Revision  string          `json:"revision"`
	Quota     int64           `json:"quota"`
	Serials   Serials         `json:"serials"`
	NotBefore int64           `json:"not_before"` // ms
	NotAfter  int64           `json:"not_after"`  // ms; nothing is made from then on
	SyncBy    int64           `json:"sync_by"`    // ms; what was made is taken until then
	CA        []byte          `json:"ca"`         // DER of the station's own authority; it signed itself
	Bundle    *SignedBundle   `json:"bundle,omitempty"`
	TrustRoot json.RawMessage `json:"trust_root,omitempty"`
}

// PermitHeader is the first line of a permit.
const PermitHeader = "openthings station permit 1\n"

// Serials says which serial numbers a station may use: those of List, or Prefix followed by a number of Digits digits
// from From to To. Empty: any.
type Serials struct {
	Prefix string   `json:"prefix,omitempty"`
	Digits int      `json:"digits,omitempty"` // 1 to 18
	From   int64    `json:"from,omitempty"`
	To     int64    `json:"to,omitempty"`
	List   []string `json:"list,omitempty"`
}

// Any says whether every serial number is meant.
func (s Serials) Any() bool { return s.Digits == 0 && len(s.List) == 0 }

// Has says whether the serial number is one of them.
func (s Serials) Has(serial string) bool {
	if s.Any() || slices.Contains(s.List, serial) {
		return true
	}
	number, ok := strings.CutPrefix(serial, s.Prefix)
	if !ok || s.Digits == 0 || len(number) != s.Digits || strings.Trim(number, "0123456789") != "" {
		return false
	}
	n, err := strconv.ParseInt(number, 10, 64)
	return err == nil && s.From <= n && n <= s.To
}

// Made is one entry of an offline station's journal. It travels as a Signed under the station's own authority.
type Made struct {
	Station string `json:"station"`
	Seq     int64  `json:"seq"`  // from 1, without gaps
	Prev    string `json:"prev"` // Digest of the payload before; of the permit's text for the first
	At      int64  `json:"at"`   // ms, the station's clock
	Device  string `json:"device"`
	// Claim is the hash of the claim code on the box. The code itself is never kept.
	Claim string `json:"claim"`
	// Certificate is the IDevID, DER; empty when a unit that was made before got another claim code.
	Certificate []byte      `json:"certificate,omitempty"`
	Request     LineRequest `json:"request"`
}

// Journal is what a station brings to POST /d/1/line/journal, in the order of its entries.
type Journal struct {
	Entries []Signed `json:"entries"`
}

// JournalState answers GET and POST /d/1/line/journal: up to where the platform has the journal.
type JournalState struct {
	Seq     int64         `json:"seq"`
	Head    string        `json:"head"` // Digest of the payload of that entry, or of the permit's text
	Refused []RefusedUnit `json:"refused,omitempty"`
}

// RefusedUnit is a unit that the platform did not take.
type RefusedUnit struct {
	Seq    int64  `json:"seq"`
	Serial string `json:"serial"`
	Device string `json:"device"`
	Rule   string `json:"rule"`
	Detail string `json:"detail"`
}

// StationRenewal asks for the next certificate of a line station (POST /d/1/line/renew).
type StationRenewal struct {
	CSR string `json:"csr"` // PEM, for a new key
}

// StationCertificate answers a StationRenewal.
type StationCertificate struct {
	Certificate string `json:"certificate"` // PEM
	Chain       string `json:"chain"`       // PEM
}
