// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"regexp"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire"
)

// MaxLineRequest bounds the body of POST /d/1/line/devices, in bytes.
const MaxLineRequest = 64 << 10

// MaxSkew is how far a station's clock may be off.
const MaxSkew = 5 * time.Minute

// Rules that refuse a request of the line.
const (
	RuleUnsigned  = "line.unsigned"    // the batch demands signed requests
	RuleSignature = "line.signature"   // the signature is not the station's, or the request names another one
	RuleClock     = "line.clock"       // the station's clock is off
	RuleKey       = "line.private-key" // a private key came along
)

// order is a checked request of a line.
type order struct {
	wire.LineRequest
	csr      *identity.CSR
	envelope []byte // the wire.Signed as it came; nil for a request that was not signed
}

var (
	digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	macPattern    = regexp.MustCompile(`^[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5,7}$`)
)

// readOrder decodes and checks what a station sends: a wire.LineRequest, or one inside a wire.Signed that the key of
// the station's certificate has signed.
func readOrder(b []byte, station string, cert *x509.Certificate) (order, error) {
	var o order
	if len(b) > MaxLineRequest {
		return o, problem.TooLarge("A line request has at most %d bytes.", MaxLineRequest)
	}
	if err := noPrivateKey(b); err != nil {
		return o, err
	}
	var signed wire.Signed
	if err := json.Unmarshal(b, &signed); err != nil {
		return o, errNoOrder(err)
	}
	text := b
	if signed.Payload != nil {
		if cert == nil || signed.Open(cert.PublicKey, &json.RawMessage{}) != nil {
			return o, problem.Forbidden(RuleSignature, "The request is not signed with the key of the station's certificate.")
		}
		text, o.envelope = signed.Payload, b
	}
	if err := noPrivateKey(text); err != nil {
		return o, err
	}
	if err := json.Unmarshal(text, &o.LineRequest); err != nil {
		return o, errNoOrder(err)
	}
	if o.envelope != nil && (o.Station != station || o.Time == 0) {
		return o, problem.Forbidden(RuleSignature, "A signed request names its station and its time; this one names %q.", o.Station)
	}
	var err error
	o.csr, err = CheckOrder(o.LineRequest)
	return o, err
}

// noPrivateKey refuses a body that carries a key: what is injected was known to somebody else than the unit.
func noPrivateKey(b []byte) error {
	if !bytes.Contains(b, []byte("PRIVATE KEY")) {
		return nil
	}
	return problem.Forbidden(RuleKey, "A private key has come to the line; it was not looked at and is kept nowhere.").
		Hint("A unit makes its own key and sends a certificate request; this platform neither makes nor injects keys (no serverkeygen). Take the key that came as lost.")
}

func errNoOrder(err error) error {
	return problem.Invalid("The line request is not the JSON that it should be.").Because(err)
}

// CheckOrder checks the members of a request and its certificate request.
func CheckOrder(r wire.LineRequest) (*identity.CSR, error) {
	if err := identity.CheckSerial(r.Serial); err != nil {
		return nil, err
	}
	if r.Firmware != "" && !digestPattern.MatchString(r.Firmware) {
		return nil, problem.Invalid("The firmware is named by its digest, sha256: and 64 hex digits.").At("firmware")
	}
	if r.MAC != "" && !macPattern.MatchString(r.MAC) {
		return nil, problem.Invalid("%.40q is no MAC address.", r.MAC).At("mac")
	}
	for name, v := range map[string]string{"sbom": r.SBOM, "sku": r.SKU, "order": r.Order, "line": r.Line, "part": r.Part} {
		if err := checkWord(v, name); err != nil {
			return nil, err
		}
	}
	csr, err := identity.ParseCSRPEM(r.CSR)
	if err != nil {
		return nil, err
	}
	if err := csr.OnlyFor(""); err != nil { // a certificate of birth has no subject alternative name
		return nil, err
	}
	return csr, nil
}

// checkWord refuses what a factory's system could not have meant as an order, a line or a part number.
func checkWord(s, at string) error {
	odd := func(r rune) bool { return !unicode.IsPrint(r) }
	if len(s) > 120 || !utf8.ValidString(s) || bytes.ContainsFunc([]byte(s), odd) {
		return problem.Invalid("It has at most 120 bytes of printable text.").At(at)
	}
	return nil
}

// onTime refuses a request whose clock is off; one that names no time has none.
func (o order) onTime(now time.Time) error {
	if o.Time == 0 {
		return nil
	}
	if off := time.UnixMilli(o.Time).Sub(now); off.Abs() > MaxSkew {
		return problem.Forbidden(RuleClock, "The clock of the line station is off by %s; at most %s is allowed.", off.Round(time.Second), MaxSkew).
			Hint("Set the station's clock. Somebody may be replaying old requests.")
	}
	return nil
}

// Making is what the factory says of one unit (device.made, JSON). It never changes.
type Making struct {
	Station  string `json:"station"`
	Order    string `json:"order,omitempty" doc:"Production order"`
	Line     string `json:"line,omitempty" doc:"Production line"`
	Part     string `json:"part,omitempty" doc:"Part number"`
	SKU      string `json:"sku,omitempty"`
	MAC      string `json:"mac,omitempty"`
	Firmware string `json:"firmware,omitempty" doc:"Digest of what the line flashed"`
	SBOM     string `json:"sbom,omitempty"`
	Time     int64  `json:"time,omitempty" doc:"The station's clock, ms"`
	Envelope string `json:"envelope,omitempty" doc:"Digest of the request as the station signed it; empty when it was not signed"`
	Offline  bool   `json:"offline,omitempty" doc:"Made without a network and registered later"`
}

// making sums up an order; what a preauthorised serial number says fills what the line left out.
func (o order) making(station string, p *Preauthorised) Making {
	m := Making{Station: station, Order: o.Order, Line: o.Line, Part: o.Part, SKU: o.SKU, MAC: o.MAC, Firmware: o.Firmware, SBOM: o.SBOM, Time: o.Time}
	if o.envelope != nil {
		m.Envelope = wire.Digest(o.envelope)
	}
	if p != nil {
		for _, f := range []struct {
			to   *string
			from string
		}{{&m.Order, p.Order}, {&m.Line, p.Line}, {&m.Part, p.Part}, {&m.MAC, p.MAC}} {
			if *f.to == "" {
				*f.to = f.from
			}
		}
	}
	return m
}
