// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// manifestHeader is the first line of what is signed of a manifest. No checkpoint of a log begins with it.
const manifestHeader = "openthings batch manifest 1\n"

// Unit is one entry of a batch's manifest. Its hash covers the entry before, so that the newest hash covers all.
type Unit struct {
	Seq         int64  `json:"seq"` // from 1, without gaps
	Serial      string `json:"serial"`
	Device      string `json:"device"`
	Key         string `json:"key"`         // hex SHA-256 of the public key (SubjectPublicKeyInfo)
	Fingerprint string `json:"fingerprint"` // hex SHA-256 of the IDevID
	Station     string `json:"station"`
	Made        int64  `json:"made"`               // ms
	Envelope    string `json:"envelope,omitempty"` // digest of the request as the station signed it
}

// firstHash is what the first entry of a batch follows.
func firstHash(batch string) string { return wire.Digest([]byte(manifestHeader + batch)) }

// after is the hash of the entry that follows the hash prev.
func (u Unit) after(prev string) (string, error) {
	b, err := json.Marshal(u)
	if err != nil {
		return "", err
	}
	return wire.Digest(append([]byte(prev+"\n"), b...)), nil
}

// Manifest is what is signed about a batch: how many identities it has, and the hash that covers every one of them.
type Manifest struct {
	Batch    string    `json:"batch"`
	Tenant   string    `json:"tenant"`
	Product  string    `json:"product"`
	Revision string    `json:"revision"`
	Name     string    `json:"name"`
	Size     int64     `json:"size"`
	Count    int64     `json:"count"`
	Head     string    `json:"head"`
	Produced int64     `json:"produced"`
	Closed   time.Time `json:"closed,omitzero"`
	At       time.Time `json:"at"`
	LogKey   string    `json:"log_key"` // who signed; a claim until it is compared with the key that one had before
}

// text is the one encoding of a manifest: what is signed.
func (m Manifest) text() (string, error) {
	b, err := json.MarshalIndent(m, "", " ")
	return manifestHeader + string(b) + "\n", err
}

// record writes the next entry of a batch's manifest. It belongs to the transaction that makes the certificate known;
// the row of the batch keeps two of them from taking the same place. A batch that was closed while the issuer signed takes
// no more: its identities have been compared with what was made.
func record(tx *store.Tx, tenant, batch string, u Unit, envelope []byte) error {
	var prev string
	err := tx.QueryRow(`UPDATE batch SET units = units + 1 WHERE tenant = $1 AND id = $2 AND closed = 0 RETURNING units, head`, tenant, batch).Scan(&u.Seq, &prev)
	if errors.Is(err, store.ErrNoRows) {
		return problem.Forbidden(RuleClosed, "The batch is closed.")
	}
	if err != nil {
		return err
	}
	hash, err := u.after(prev)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(`UPDATE batch SET head = $1 WHERE id = $2`, hash, batch); err != nil {
		return err
	}
	if envelope == nil {
		envelope = []byte{}
	}
	_, err = tx.Exec(`INSERT INTO made(batch, seq, tenant, device, serial, key_hash, fp, station, at, envelope, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
		batch, u.Seq, tenant, u.Device, u.Serial, u.Key, u.Fingerprint, u.Station, u.Made, envelope, hash)
	return err
}

const unitColumns = `seq, serial, device, key_hash, fp, station, at, envelope`

func scanUnit(r scanner) (u Unit, envelope []byte, err error) {
	err = r.Scan(&u.Seq, &u.Serial, &u.Device, &u.Key, &u.Fingerprint, &u.Station, &u.Made, &envelope)
	if len(envelope) > 0 {
		u.Envelope = wire.Digest(envelope)
	}
	return u, envelope, err
}

// WriteManifest writes the signed manifest of a batch as JSON: "manifest", the signed note, then "units", each entry
// in its order. VerifyManifest reads it.
func (s *Service) WriteManifest(ctx context.Context, w io.Writer, b Batch) error {
	if s.cfg.Sign == nil {
		return problem.Unavailable("This platform has no log key to sign a manifest with.")
	}
	text, err := Manifest{Batch: b.ID, Tenant: b.Tenant, Product: b.Product, Revision: b.Revision, Name: b.Name, Size: b.Size, Count: b.Units, Head: b.Head,
		Produced: b.Produced, Closed: b.Closed, At: s.now(), LogKey: s.cfg.LogKey()}.text()
	if err != nil {
		return err
	}
	signed, err := s.cfg.Sign(text)
	if err != nil {
		return err
	}
	quoted, err := json.Marshal(string(signed))
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "{\"manifest\":%s,\n\"units\":[", quoted); err != nil {
		return err
	}
	for after := int64(0); after < b.Units; {
		rows, err := s.cfg.DB.Query(ctx, `SELECT `+unitColumns+` FROM made WHERE batch = $1 AND seq > $2 AND seq <= $3 ORDER BY seq LIMIT 1000`, b.ID, after, b.Units)
		units, err := store.Collect(rows, err, func(r *sql.Rows) (Unit, error) { u, _, err := scanUnit(r); return u, err })
		if err != nil {
			return err
		}
		if len(units) == 0 {
			return fmt.Errorf("enroll: the manifest of %s ends after %d of %d entries", b.ID, after, b.Units)
		}
		for _, u := range units {
			line, err := json.Marshal(u)
			if err != nil {
				return err
			}
			if u.Seq > 1 {
				line = append([]byte(",\n"), line...)
			}
			if _, err := w.Write(line); err != nil {
				return err
			}
		}
		after = units[len(units)-1].Seq
	}
	_, err = io.WriteString(w, "]}\n")
	return err
}

// ErrUnpinned is returned for a manifest that agrees with itself when there was no key to compare with: anybody could
// have made it.
var ErrUnpinned = errors.New("consistent, origin unproven: give the log key that you got from the manufacturer over a way that you trust")

// VerifyManifest checks a manifest with no server: its signature under the log key that the verifier had before, that
// every entry follows the one before, that they are as many as was signed, and that no device, key or serial number
// stands in it twice. The manifest is what was proven up to the error.
func VerifyManifest(r io.Reader, logKey string) (Manifest, error) {
	dec := json.NewDecoder(r)
	var signed string
	for _, want := range []string{"{", "manifest"} {
		if err := expect(dec, want); err != nil {
			return Manifest{}, err
		}
	}
	if err := dec.Decode(&signed); err != nil {
		return Manifest{}, fmt.Errorf("the manifest cannot be read: %w", err)
	}
	m, err := openManifest(signed, logKey)
	if err != nil {
		return Manifest{}, err
	}
	for _, want := range []string{"units", "["} {
		if err := expect(dec, want); err != nil {
			return m, err
		}
	}
	if err := m.follow(dec); err != nil {
		return m, err
	}
	for _, want := range []string{"]", "}"} {
		if err := expect(dec, want); err != nil {
			return m, err
		}
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return m, errors.New("something follows the manifest")
	}
	if logKey == "" {
		return m, ErrUnpinned
	}
	return m, nil
}

func expect(dec *json.Decoder, want string) error {
	t, err := dec.Token()
	if err != nil {
		return fmt.Errorf("the manifest breaks off before %q: %w", want, err)
	}
	if got := fmt.Sprint(t); got != want {
		return fmt.Errorf("this is not a manifest: %q stands where %q should", got, want)
	}
	return nil
}

// openManifest checks the signature under the pinned key, or under the manifest's own without one.
func openManifest(signed, logKey string) (Manifest, error) {
	var m Manifest
	body, ok := strings.CutPrefix(signed, manifestHeader)
	end := strings.LastIndex(body, "\n\n")
	if !ok || end < 0 {
		return m, errors.New("this is not a signed manifest")
	}
	d := json.NewDecoder(strings.NewReader(body[:end+1]))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return m, fmt.Errorf("the manifest cannot be read: %w", err)
	}
	text, err := m.text()
	if err != nil || text != signed[:len(manifestHeader)+end+1] {
		return m, errors.New("the manifest is not in its canonical form")
	}
	key := logKey
	if key == "" {
		key = m.LogKey
	}
	v, err := note.NewVerifier(key)
	if err != nil {
		return m, fmt.Errorf("the log key: %w", err)
	}
	n, err := note.Open([]byte(signed), note.VerifierList(v))
	if err != nil {
		return m, fmt.Errorf("the manifest is not signed by the log key: %w", err)
	}
	for _, sig := range n.Sigs { // the last letter of a signature has bits that note.Open does not look at
		if _, err := base64.StdEncoding.Strict().DecodeString(sig.Base64); err != nil {
			return m, fmt.Errorf("the manifest's signature is not in its canonical form: %w", err)
		}
	}
	return m, nil
}

// follow reads the entries and compares their chain with what was signed.
func (m Manifest) follow(dec *json.Decoder) error {
	head, seen := firstHash(m.Batch), map[string]int64{}
	n := int64(0)
	for dec.More() {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return fmt.Errorf("entry %d cannot be read: %w", n+1, err)
		}
		var u Unit
		if err := json.Unmarshal(raw, &u); err != nil {
			return fmt.Errorf("entry %d cannot be read: %w", n+1, err)
		}
		again, err := json.Marshal(u)
		if err != nil || !bytes.Equal(raw, again) {
			return fmt.Errorf("entry %d is not in its canonical form", n+1)
		}
		if n++; u.Seq != n {
			return fmt.Errorf("entry %d stands where entry %d should", u.Seq, n)
		}
		for _, name := range []string{"serial number " + u.Serial, "device " + u.Device, "key " + u.Key} {
			if at := seen[name]; at > 0 {
				return fmt.Errorf("the %s stands in entries %d and %d", name, at, n)
			}
			seen[name] = n
		}
		if head, err = u.after(head); err != nil {
			return err
		}
	}
	if n != m.Count || head != m.Head {
		return fmt.Errorf("the entries are not those that were signed: %d of %d, with the hash %s instead of %s", n, m.Count, head, m.Head)
	}
	return nil
}

// Manufacture is how a device was made, for its page and its evidence: the entry of the manifest, and the request as
// the station signed it (a wire.Signed; absent when it was not signed).
type Manufacture struct {
	Batch    string          `json:"batch"`
	Unit     Unit            `json:"unit"`
	Hash     string          `json:"hash" doc:"Of the entry; the manifest's head covers it"`
	Making   *Making         `json:"making,omitempty"`
	Envelope json.RawMessage `json:"envelope,omitempty" doc:"Verify it with the key of the station's certificate"`
	Station  []byte          `json:"station_certificate,omitempty" doc:"DER; its key signed the envelope"`
}

// Manufacture returns how the device was made; not-found for one that no line made.
func (s *Service) Manufacture(ctx context.Context, tenant, device string) (m Manufacture, err error) {
	var envelope []byte
	err = s.cfg.DB.QueryRow(ctx, `SELECT batch, hash, `+unitColumns+` FROM made WHERE tenant = $1 AND device = $2`, tenant, device).
		Scan(&m.Batch, &m.Hash, &m.Unit.Seq, &m.Unit.Serial, &m.Unit.Device, &m.Unit.Key, &m.Unit.Fingerprint, &m.Unit.Station, &m.Unit.Made, &envelope)
	if errors.Is(err, store.ErrNoRows) {
		return m, problem.NotFound("No line of this platform made the device.")
	}
	if err != nil {
		return m, err
	}
	d, err := s.cfg.Identity.Get(ctx, tenant, device)
	if err != nil {
		return m, err
	}
	if d.Made != "" {
		m.Making = &Making{}
		if err := json.Unmarshal([]byte(d.Made), m.Making); err != nil {
			return m, fmt.Errorf("enroll: device %s: %w", device, err)
		}
	}
	if len(envelope) == 0 {
		return m, nil
	}
	m.Unit.Envelope, m.Envelope = wire.Digest(envelope), envelope
	m.Station, err = s.signerOf(ctx, tenant, m.Unit.Station, envelope)
	return m, err
}

// signerOf finds the certificate of the station whose key signed the envelope: a station renews, and an offline one
// signs with its own authority.
func (s *Service) signerOf(ctx context.Context, tenant, station string, envelope []byte) ([]byte, error) {
	var signed wire.Signed
	if err := json.Unmarshal(envelope, &signed); err != nil {
		return nil, err
	}
	cs, err := s.cfg.Identity.Certificates(ctx, tenant, station)
	if err != nil {
		return nil, err
	}
	for _, c := range cs {
		if x, err := c.Parse(); err == nil && signed.Open(x.PublicKey, &json.RawMessage{}) == nil {
			return c.DER, nil
		}
	}
	st, err := stationByID(s.reads(ctx), tenant, station)
	if err != nil || !st.Offline {
		return nil, err
	}
	p, err := st.readPermit()
	return p.CA, err
}
