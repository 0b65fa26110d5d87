// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"net/url"
	"time"
)

// Kind is what a certificate is for.
type Kind string

// The kinds of certificate in the register.
const (
	IDevID  Kind = "idevid"  // of birth (IEEE 802.1AR); only for enrolment
	LDevID  Kind = "ldevid"  // of operation; short, renewed by the device
	Station Kind = "station" // of a line station; a day, or longer for one that works without a network
)

// Phase is where a certificate stands.
type Phase string

// The phases. Only pending and active certificates are admitted.
const (
	PhasePending    Phase = "pending"    // issued, not yet used
	PhaseActive     Phase = "active"     // in use
	PhaseSuperseded Phase = "superseded" // its successor has been used
	PhaseRevoked    Phase = "revoked"    // refused for ever
)

// Certificate is one entry of the register. DER is whole and of any size: a post-quantum one has more than 5 kB.
type Certificate struct {
	Fingerprint string    `json:"fingerprint" doc:"Hex SHA-256 of the DER"`
	Tenant      string    `json:"tenant"`
	Subject     string    `json:"subject" doc:"Id of the device or line station"`
	Kind        Kind      `json:"kind" enum:"idevid,ldevid,station"`
	Phase       Phase     `json:"phase" enum:"pending,active,superseded,revoked"`
	Serial      string    `json:"serial" doc:"Serial number, hex"`
	KeyHash     string    `json:"key_hash" doc:"Hex SHA-256 of the subject public key info"`
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	Revoked     time.Time `json:"revoked,omitzero"`
	Reason      string    `json:"reason,omitempty"`
	Shard       int64     `json:"shard,omitempty" doc:"Of its authority's revocation lists; absent without one"`
	DER         []byte    `json:"der"`
	Authority   string    `json:"authority,omitempty" doc:"Id of the authority that signed it; empty if it is not one of the platform's"`
	Origin      string    `json:"origin,omitempty" doc:"Line station or trusted CA that brought it in; empty for EST"`
}

// Parse decodes the certificate.
func (c Certificate) Parse() (*x509.Certificate, error) { return x509.ParseCertificate(c.DER) }

// Fingerprint is the name of a certificate in the register: the hex SHA-256 of its DER.
func Fingerprint(der []byte) string {
	h := sha256.Sum256(der)
	return hex.EncodeToString(h[:])
}

// KeyHash is the hex SHA-256 of a subject public key info.
func KeyHash(spki []byte) string { return Fingerprint(spki) }

// Forever is the end of a certificate that has none (RFC 5280 4.1.2.5, IEEE 802.1AR 8.7).
var Forever = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// Profile says what a certificate may be; it is policy, so it is ours and never the issuer's.
type Profile struct {
	Name  string
	Role  Role
	Usage x509.ExtKeyUsage
	Life  time.Duration // 0: Forever
	Most  time.Duration // the longest life that may be asked for; 0: Life
	Phase Phase         // a new certificate's first
	Slack time.Duration // how far notBefore lies back, for devices whose clock is behind
	// Truncate cuts the life short where the authority ends before it; without it, such a certificate is refused.
	Truncate bool
}

// Profiles are the certificate profiles by kind.
var Profiles = map[Kind]Profile{
	IDevID:  {Name: "idevid", Role: Factory, Usage: x509.ExtKeyUsageClientAuth, Phase: PhaseActive, Slack: time.Hour},
	LDevID:  {Name: "ldevid", Role: Operational, Usage: x509.ExtKeyUsageClientAuth, Life: 60 * 24 * time.Hour, Most: 90 * 24 * time.Hour, Phase: PhasePending, Slack: time.Hour},
	Station: {Name: "station", Role: Factory, Usage: x509.ExtKeyUsageClientAuth, Life: 24 * time.Hour, Most: 40 * 24 * time.Hour, Phase: PhaseActive, Slack: 5 * time.Minute, Truncate: true},
}

// The profiles of the platform's own doors: what everybody sees, and what a device sees that knows no root of today.
var (
	serverProfile    = Profile{Name: "server", Role: Server, Usage: x509.ExtKeyUsageServerAuth, Life: 30 * 24 * time.Hour, Slack: time.Hour, Truncate: true}
	bootstrapProfile = Profile{Name: "bootstrap", Role: Bootstrap, Usage: x509.ExtKeyUsageServerAuth, Life: 30 * 24 * time.Hour, Slack: time.Hour, Truncate: true}
)

// deviceName is the subject of both certificates of a device; IEEE 802.1AR 8.6 demands serialNumber.
func deviceName(d Device) pkix.Name {
	return pkix.Name{Organization: []string{d.Tenant}, CommonName: d.ID, SerialNumber: d.Serial}
}

// DeviceURI is the subject alternative name of an LDevID.
func DeviceURI(tenant, device string) *url.URL {
	return &url.URL{Scheme: "urn", Opaque: "openthings:device:" + tenant + ":" + device}
}

// StationURI is the subject alternative name of a station's certificate.
func StationURI(tenant, station string) *url.URL {
	return &url.URL{Scheme: "urn", Opaque: "openthings:station:" + tenant + ":" + station}
}

// newSerial makes a certificate serial number of 128 random bits (RFC 5280 4.1.2.2 allows 20 octets).
func newSerial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	return new(big.Int).SetBytes(b)
}

// template is the certificate that p allows, ready to sign.
func (p Profile) template(name pkix.Name, serial *big.Int, from, until time.Time, key crypto.PublicKey) (*x509.Certificate, error) {
	id, err := KeyID(key)
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: name, NotBefore: from, NotAfter: until, SubjectKeyId: id,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{p.Usage}, BasicConstraintsValid: true,
	}, nil
}

// validity is the profile's span from now on, in whole seconds as X.509 has them.
func (p Profile) validity(now time.Time, life time.Duration) (from, until time.Time) {
	from = now.Add(-p.Slack).UTC().Truncate(time.Second)
	if p.Life == 0 {
		return from, Forever
	}
	if life <= 0 {
		life = p.Life
	}
	life = min(life, max(p.Life, p.Most))
	return from, now.Add(life).UTC().Truncate(time.Second)
}
