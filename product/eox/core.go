// SPDX-License-Identifier: AGPL-3.0-only

package eox

import (
	"encoding/json"
	"fmt"
	"regexp"
	"time"
)

// Schema is the identifier that every document carries (section 6.2.1).
const Schema = "https://docs.oasis-open.org/openeox/eox-core/v1.0/schema/core.json"

// tba is the value of a date that is not announced yet (section 6.1.1).
const tba = "tba"

// Date is when something happens: an instant with its offset, or not announced yet. The zero Date is absent.
type Date struct {
	at  time.Time
	tba bool
}

// TBA is a date that is to be announced.
var TBA = Date{tba: true}

// At is a date that is known. The zero time gives the absent Date.
func At(t time.Time) Date { return Date{at: t} }

// IsZero reports whether the date is absent.
func (d Date) IsZero() bool { return !d.tba && d.at.IsZero() }

// Time is the instant; false when it is absent or to be announced.
func (d Date) Time() (time.Time, bool) { return d.at, !d.at.IsZero() }

// before compares as a consumer has to (section 6.1.1): what is to be announced lies after every date.
func (d Date) before(o Date) bool {
	if d.tba || o.tba {
		return !d.tba && o.tba
	}
	return d.at.Before(o.at)
}

// MarshalJSON writes the instant as RFC 3339 in its own zone, or "tba".
func (d Date) MarshalJSON() ([]byte, error) {
	switch {
	case d.tba:
		return json.Marshal(tba)
	case d.IsZero():
		return nil, fmt.Errorf("eox: an absent date has no text")
	}
	return json.Marshal(d.at.Format(time.RFC3339Nano))
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (d *Date) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, ok := parseDate(s)
	if !ok {
		return fmt.Errorf("eox: %q is neither a date and time nor %s", s, tba)
	}
	*d = v
	return nil
}

// dateTime is section 4.1.6: RFC 3339 with capital letters, a full stop before fractions and an offset.
var dateTime = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// parseDate reads a date; a leap second is none (section 4.1.6), which Go refuses as a second out of range.
func parseDate(s string) (Date, bool) {
	if s == tba {
		return TBA, true
	}
	if !dateTime.MatchString(s) {
		return Date{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	return Date{at: t}, err == nil
}

// Core is what is said of one product, release or cohort (section 6.2).
type Core struct {
	GeneralAvailability  Date // first day on which it is sold; absent when not told
	EndOfSales           Date // last day on which it is sold; absent when not told
	EndOfSecuritySupport Date // last day on which security updates are promised
	EndOfLife            Date // last day of any support: never before another date
	LastUpdated          time.Time
}

// document is Core as it is written, in the order of the specification.
type document struct {
	Schema               string `json:"$schema"`
	EndOfLife            Date   `json:"end_of_life"`
	EndOfSales           Date   `json:"end_of_sales,omitzero"`
	EndOfSecuritySupport Date   `json:"end_of_security_support"`
	GeneralAvailability  Date   `json:"general_availability,omitzero"`
	LastUpdated          Date   `json:"last_updated"`
}

// Marshal writes the document, or says which mandatory rule it would break.
func (c Core) Marshal() ([]byte, error) {
	b, err := json.Marshal(document{Schema, c.EndOfLife, c.EndOfSales, c.EndOfSecuritySupport, c.GeneralAvailability, Date{at: c.LastUpdated}})
	if err != nil {
		return nil, fmt.Errorf("eox: %w", err)
	}
	for _, f := range Validate(b) {
		if f.Level == Error {
			return nil, fmt.Errorf("eox: %s", f)
		}
	}
	return b, nil
}

// Parse reads a document that is valid; what is recommended or informative does not matter.
func Parse(b []byte) (Core, error) {
	for _, f := range Validate(b) {
		if f.Level == Error {
			return Core{}, fmt.Errorf("eox: %s", f)
		}
	}
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		return Core{}, fmt.Errorf("eox: %w", err)
	}
	return Core{d.GeneralAvailability, d.EndOfSales, d.EndOfSecuritySupport, d.EndOfLife, d.LastUpdated.at}, nil
}
