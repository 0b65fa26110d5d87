// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"encoding/json"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire"
)

// Rules that refuse at the line.
const (
	RuleQuota  = "line.quota"  // the station or the batch has made all the units it may
	RuleClosed = "line.closed" // the station has expired or was killed, or its batch is closed
)

// MaxBatch is the largest size of a batch and quota of a station.
const MaxBatch = 10_000_000

// MaxStation is the longest life of a station's certificate, and the default.
const MaxStation = 24 * time.Hour

// Batch is one lot of a hardware revision: Issued counts the units that got an identity, Produced what the factory
// says it made.
type Batch struct {
	ID       string    `json:"id"`
	Tenant   string    `json:"tenant"`
	Product  string    `json:"product"`
	Revision string    `json:"revision"`
	Name     string    `json:"name"`
	Size     int64     `json:"size" doc:"How many units it may have"`
	Issued   int64     `json:"issued" doc:"How many units got an identity"`
	Produced int64     `json:"produced" doc:"How many units the factory says it made; set when the batch is closed"`
	Created  time.Time `json:"created"`
	Closed   time.Time `json:"closed,omitzero"`
}

// Surplus is how many identities are out there without a unit that was made. Anything above zero is an alarm.
func (b Batch) Surplus() int64 {
	if b.Closed.IsZero() {
		return 0
	}
	return max(0, b.Issued-b.Produced)
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
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Killed  time.Time `json:"killed,omitzero"`
	Reason  string    `json:"reason,omitempty" doc:"Why it was killed"`
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

// MaxLineRequest bounds the body of POST /d/1/line/devices, in bytes.
const MaxLineRequest = 64 << 10

var digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// readLineRequest decodes and checks what a station sends.
func readLineRequest(b []byte) (wire.LineRequest, *identity.CSR, error) {
	var r wire.LineRequest
	if len(b) > MaxLineRequest {
		return r, nil, problem.TooLarge("A line request has at most %d bytes.", MaxLineRequest)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, nil, problem.Invalid("The line request is not the JSON that it should be.").Because(err)
	}
	if err := identity.CheckSerial(r.Serial); err != nil {
		return r, nil, err
	}
	if r.Firmware != "" && !digestPattern.MatchString(r.Firmware) {
		return r, nil, problem.Invalid("The firmware is named by its digest, sha256: and 64 hex digits.").At("firmware")
	}
	csr, err := identity.ParseCSRPEM(r.CSR)
	if err != nil {
		return r, nil, err
	}
	if n := len(csr.DNSNames) + len(csr.EmailAddresses) + len(csr.IPAddresses) + len(csr.URIs); n > 0 {
		return r, nil, problem.Forbidden("identity.csr-name", "An IDevID has no subject alternative name.").At("csr")
	}
	return r, csr, nil
}
