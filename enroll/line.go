// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
)

// Rules that refuse at the line.
const (
	RuleQuota  = "line.quota"  // the station or the batch has made all the units it may
	RuleClosed = "line.closed" // the station has expired or was killed, or its batch is closed
)

// MaxBatch is the largest size of a batch and quota of a station.
const MaxBatch = 10_000_000

// A station has a window in which it may make units. Its certificate lives a day at most and is renewed by the station
// while the window is open; that of an offline station lives until it has to have brought what it made.
const (
	DefaultWindow = 24 * time.Hour
	MaxWindow     = 30 * 24 * time.Hour
	MaxStation    = 24 * time.Hour     // longest life of a station's certificate
	SyncGrace     = 7 * 24 * time.Hour // how long after its window an offline station may bring what it made
)

// Batch is one lot of a hardware revision: Issued counts the units that got an identity, Produced what the factory
// says it made.
type Batch struct {
	ID       string `json:"id"`
	Tenant   string `json:"tenant"`
	Product  string `json:"product"`
	Revision string `json:"revision"`
	Name     string `json:"name"`
	Size     int64  `json:"size" doc:"How many units it may have"`
	Issued   int64  `json:"issued" doc:"How many units got an identity"`
	Produced int64  `json:"produced" doc:"How many units the factory says it made; set when the batch is closed"`
	Reserved int64  `json:"reserved" doc:"How many units offline stations may still bring"`
	Signed   bool   `json:"signed" doc:"Its stations must sign each request"`
	Listed   bool   `json:"listed" doc:"Only preauthorised serial numbers are made"`
	Units    int64  `json:"units" doc:"Entries of its manifest"`
	Head     string `json:"head,omitempty" doc:"Hash of the newest entry of its manifest"`
	List     string `json:"-"` // the list of serial numbers that the factory says it made

	Placed  product.Placement `json:"-"` // said when it is opened
	surplus int64             // identities that the list does not name
	Created time.Time         `json:"created"`
	Closed  time.Time         `json:"closed,omitzero"`
}

// Surplus is how many identities were given out without a unit that was made. Anything above zero is an alarm.
func (b Batch) Surplus() int64 {
	if b.Closed.IsZero() {
		return 0
	}
	return max(b.surplus, b.Issued-b.Produced)
}

// Station is a line station: it may name Quota units of its batch until Expires.
type Station struct {
	ID      string    `json:"id"`
	Tenant  string    `json:"tenant"`
	Batch   string    `json:"batch"`
	Name    string    `json:"name"`
	Quota   int64     `json:"quota"`
	Used    int64     `json:"used"`
	Refused int64     `json:"refused" doc:"How often it asked beyond its quota"`
	Skewed  int64     `json:"skewed" doc:"How often its clock was off"`
	Offline bool      `json:"offline" doc:"It makes units without a network and brings them later"`
	Seq     int64     `json:"seq" doc:"Entries of its journal that were brought"`
	Forked  bool      `json:"forked" doc:"It has shown two different journals: a copy of it is at work"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Killed  time.Time `json:"killed,omitzero"`
	Reason  string    `json:"reason,omitempty" doc:"Why it was killed"`

	permit   string // note of an offline station
	reserved int64  // units that an offline station may still bring
	head     string // digest of the newest entry that it brought
}

// State is open, expired or killed at the time given.
func (s Station) State(now time.Time) string {
	switch {
	case !s.Killed.IsZero():
		return "killed"
	case !now.Before(s.Expires):
		return "expired"
	}
	return "open"
}

// mayMake refuses a station that is no longer at work.
func (s Station) mayMake(b Batch, now time.Time) error {
	if st := s.State(now); st != "open" {
		return problem.Forbidden(RuleClosed, "The line station is %s.", st)
	}
	if !b.Closed.IsZero() {
		return problem.Forbidden(RuleClosed, "The batch %s is closed.", b.Name)
	}
	return nil
}

func checkName(s string) error {
	if s != strings.TrimSpace(s) || s == "" || len(s) > 120 || !utf8.ValidString(s) {
		return problem.Invalid("A name has 1 to 120 bytes and no space around it.").At("name")
	}
	return nil
}

func checkCount(n int64, what string) error {
	if n < 1 || n > MaxBatch {
		return problem.Invalid("A %s is 1 to %d units.", what, MaxBatch).At(what)
	}
	return nil
}
