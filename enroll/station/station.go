// SPDX-License-Identifier: AGPL-3.0-only

package station

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// Rules that refuse at an offline station.
const (
	RuleSerial = "station.serial" // not one of the permit
	RuleQuota  = "station.quota"  // the permit is used up
	RuleTime   = "station.time"   // outside of the permit's time, or the clock was set back
)

// Station is an opened folder. It is used by one goroutine; Close ends its lock on the folder.
type Station struct {
	Config
	disk   disk
	clock  clock.Clock
	key    *ecdsa.PrivateKey
	cert   *x509.Certificate
	unlock func()

	// The rest is of an offline station.
	permit    *wire.Permit
	authority *x509.Certificate
	signer    *ecdsa.PrivateKey
	log       []wire.Signed
	head      string           // digest of the newest entry
	last      int64            // ms, when it was made
	units     map[string]*unit // by serial number
	keys      map[string]string
}

// unit is what the journal says of one.
type unit struct {
	device      string
	key         string // hex SHA-256 of its public key
	certificate []byte
}

// Open opens the folder of a station and repairs what a power cut left of its journal.
func Open(dir string, clk clock.Clock) (*Station, error) { return open(disk{dir: dir}, clk) }

func open(d disk, clk clock.Clock) (s *Station, err error) {
	if clk == nil {
		clk = clock.System
	}
	if err := folder(d.dir); err != nil {
		return nil, err
	}
	s = &Station{disk: d, clock: clk, units: map[string]*unit{}, keys: map[string]string{}}
	if s.unlock, err = d.lock(); err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close lets other processes at the folder.
func (s *Station) Close() { s.unlock() }

// Offline says whether the station works without a network.
func (s *Station) Offline() bool { return s.permit != nil }

func (s *Station) load() error {
	b, err := s.disk.read(configFile)
	if errors.Is(err, fs.ErrNotExist) {
		return problem.NotFound("%s holds no station.", s.disk.dir).Hint("openthings station open makes one.")
	}
	if err == nil {
		err = json.Unmarshal(b, &s.Config)
	}
	if err != nil {
		return err
	}
	if err := s.credential(); err != nil {
		return err
	}
	text, err := s.disk.read(permitFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if s.permit, err = readPermit(text); err != nil {
		return err
	}
	if s.authority, err = x509.ParseCertificate(s.permit.CA); err != nil {
		return err
	}
	if s.signer, err = s.disk.key(authorityKey); err != nil {
		return err
	}
	if !s.signer.PublicKey.Equal(s.authority.PublicKey) || s.permit.Station != s.ID {
		return problem.Invalid("The permit is not for this station.")
	}
	s.head = wire.Digest(text)
	return s.replay()
}

// credential reads the station's certificate and the key that it is for: a renewal may have been cut between the two.
func (s *Station) credential() error {
	var err error
	if s.cert, err = s.disk.certificate(); err != nil {
		return err
	}
	if s.key, err = s.disk.key(keyFile); err != nil {
		return err
	}
	if s.key.PublicKey.Equal(s.cert.PublicKey) {
		return nil
	}
	if !s.disk.has(nextKeyFile) {
		return problem.Invalid("The station's key is not the one of its certificate.")
	}
	if s.key, err = s.disk.key(nextKeyFile); err != nil {
		return err
	}
	if !s.key.PublicKey.Equal(s.cert.PublicKey) {
		return problem.Invalid("The station's key is not the one of its certificate.")
	}
	return s.disk.rename(nextKeyFile, keyFile)
}

// certificate reads the station's certificate.
func (d disk) certificate() (*x509.Certificate, error) {
	b, err := d.read(certFile)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, problem.Invalid("%s holds no certificate.", d.path(certFile))
	}
	return x509.ParseCertificate(block.Bytes)
}

func readPermit(text []byte) (*wire.Permit, error) {
	body, ok := strings.CutPrefix(string(text), wire.PermitHeader)
	body, _, ok2 := strings.Cut(body, "\n")
	var p wire.Permit
	if !ok || !ok2 || json.Unmarshal([]byte(body), &p) != nil {
		return nil, problem.Invalid("The permit cannot be read.")
	}
	return &p, nil
}

// replay reads the journal, cuts off an entry that the power did not last for, and refuses one that was changed.
func (s *Station) replay() error {
	b, err := s.disk.read(journalFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	whole := bytes.LastIndexByte(b, '\n') + 1
	for line := range bytes.Lines(b[:whole]) {
		var signed wire.Signed
		var e wire.Made
		if err := json.Unmarshal(line, &signed); err != nil {
			return problem.Invalid("Entry %d of the journal was changed.", len(s.log)+1).Because(err)
		}
		if err := signed.Open(s.authority.PublicKey, &e); err != nil || e.Seq != int64(len(s.log))+1 || e.Prev != s.head {
			return problem.Invalid("Entry %d of the journal was changed.", len(s.log)+1).Because(err)
		}
		s.remember(signed, e)
	}
	if whole == len(b) {
		return nil
	}
	// It was not answered: the answer comes after the flush of the whole entry.
	if err := s.disk.powered("truncate " + journalFile); err != nil {
		return err
	}
	f, err := os.OpenFile(s.disk.path(journalFile), os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(int64(whole)), f.Sync(), f.Close())
}

// remember takes an entry that is on disk into account.
func (s *Station) remember(signed wire.Signed, e wire.Made) {
	s.log = append(s.log, signed)
	s.head, s.last = wire.Digest(signed.Payload), e.At
	if len(e.Certificate) == 0 {
		return
	}
	c, err := x509.ParseCertificate(e.Certificate)
	if err != nil {
		return // it is ours and signed; the platform will say so too
	}
	u := &unit{device: e.Device, key: identity.KeyHash(c.RawSubjectPublicKeyInfo), certificate: e.Certificate}
	s.units[e.Request.Serial], s.keys[u.key] = u, e.Request.Serial
}

// append writes an entry and flushes it; only then it counts.
func (s *Station) append(signed wire.Signed, e wire.Made) error {
	line, err := json.Marshal(signed)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	fresh := !s.disk.has(journalFile)
	if err := s.disk.powered("open " + journalFile); err != nil {
		return err
	}
	f, err := os.OpenFile(s.disk.path(journalFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was flushed
	for _, part := range []struct {
		effect string
		b      []byte
	}{{"begin the entry", line[:len(line)/2]}, {"end the entry", line[len(line)/2:]}} {
		if err := s.disk.powered(part.effect); err != nil {
			return err
		}
		if _, err := f.Write(part.b); err != nil {
			return err
		}
	}
	if err := s.disk.powered("flush the entry"); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if fresh {
		if err := s.disk.sync(); err != nil {
			return err
		}
	}
	if err := s.disk.powered("answer"); err != nil {
		return err
	}
	s.remember(signed, e)
	return nil
}

// Make gives a unit its identity without a network. The same request again gives the same identity, with another claim
// code in the place of the lost one.
func (s *Station) Make(r wire.LineRequest) (wire.LineResponse, error) {
	if s.permit == nil {
		return wire.LineResponse{}, problem.Conflict("The station has no permit to work without a network.")
	}
	r.Station, r.Time = s.ID, store.Millis(s.clock.Now())
	csr, err := enroll.CheckOrder(r)
	if err != nil {
		return wire.LineResponse{}, err
	}
	if err := s.permitted(r, csr); err != nil {
		return wire.LineResponse{}, err
	}
	code, hash := enroll.NewCode()
	e := wire.Made{Station: s.ID, Seq: int64(len(s.log)) + 1, Prev: s.head, At: max(r.Time, s.last), Claim: hash, Request: r}
	u := s.units[r.Serial]
	if u == nil {
		u = &unit{device: store.NewID("dev")}
		if u.certificate, err = s.sign(u.device, r.Serial, csr); err != nil {
			return wire.LineResponse{}, err
		}
		e.Certificate = u.certificate
	}
	e.Device = u.device
	signed, err := wire.Sign(rand.Reader, s.signer, e)
	if err != nil {
		return wire.LineResponse{}, err
	}
	if err := s.append(signed, e); err != nil {
		return wire.LineResponse{}, err
	}
	return wire.LineResponse{Device: u.device, Certificate: string(encode("CERTIFICATE", u.certificate)), Chain: string(encode("CERTIFICATE", s.authority.Raw)),
		Claim: code, TrustRoot: s.permit.TrustRoot, Bundle: s.permit.Bundle}, nil
}

// permitted refuses what goes beyond the permit, and units that show what another one has.
func (s *Station) permitted(r wire.LineRequest, csr *identity.CSR) error {
	switch {
	case r.Time < s.permit.NotBefore-enroll.MaxSkew.Milliseconds() || r.Time >= s.permit.NotAfter:
		return problem.Forbidden(RuleTime, "The permit is for the time from %s to %s.", when(s.permit.NotBefore), when(s.permit.NotAfter))
	case r.Time < s.last-enroll.MaxSkew.Milliseconds():
		return problem.Forbidden(RuleTime, "The clock says %s, and the last unit was made at %s: it was set back.", when(r.Time), when(s.last))
	case !s.permit.Serials.Has(r.Serial):
		return problem.Forbidden(RuleSerial, "The permit is not for the serial number %s.", r.Serial).At("serial")
	}
	u := s.units[r.Serial]
	switch other, used := s.keys[csr.KeyHash]; {
	case u != nil && u.key != csr.KeyHash:
		return problem.Conflict("The unit with the serial number %s already has its IDevID, for another key.", r.Serial).At("serial").
			Hint("A second unit that shows this serial number is a clone, or a label was printed twice.")
	case used && other != r.Serial:
		return problem.Conflict("The unit %s already has this public key.", other).At("csr").Hint("Each unit makes a key of its own.")
	case u == nil && int64(len(s.units)) >= s.permit.Quota:
		return problem.Forbidden(RuleQuota, "The station has made all the %d units that it may.", s.permit.Quota)
	}
	return nil
}

func when(ms int64) string { return store.Time(ms).Format(time.RFC3339) }

// sign makes the IDevID: the very certificate that the platform's factory authority would have made, under ours.
func (s *Station) sign(device, serial string, csr *identity.CSR) ([]byte, error) {
	number := make([]byte, 16)
	rand.Read(number) // never fails since Go 1.24
	id := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	return x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(number), Subject: identity.Device{Tenant: s.permit.Tenant, ID: device, Serial: serial}.Subject(),
		NotBefore: s.clock.Now().Add(-time.Hour).UTC().Truncate(time.Second), NotAfter: identity.Forever, SubjectKeyId: id[:20],
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}, s.authority, csr.PublicKey, s.signer)
}
