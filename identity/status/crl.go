// SPDX-License-Identifier: AGPL-3.0-only

package status

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// PerShard is how many certificates are issued into one shard at most: a list with all of them has about 100 kB.
const PerShard = 2000

// List is one state of a shard's certificate revocation list: the complete one, and the delta against the base that
// clients fetched at the last regular issue. Both bear the same number (RFC 5280 5.2.4).
type List struct {
	URL      string // of the complete list, as certificates name it
	DeltaURL string
	Number   int64
	Updated  time.Time // thisUpdate
	Until    time.Time // nextUpdate
	Revoked  []Entry
}

// Entry is one revoked certificate.
type Entry struct {
	Serial *big.Int
	At     time.Time
	Reason Reason
}

// Complete is the template of the complete list.
func (l List) Complete() (*x509.RevocationList, error) {
	idp, err := distributionPoint(l.URL)
	if err != nil {
		return nil, err
	}
	freshest, err := freshestCRL(l.DeltaURL)
	if err != nil {
		return nil, err
	}
	return l.template(l.Revoked, idp, freshest)
}

// Delta is the template of the list of what changed since base, a complete list of an earlier number. What left the
// list meanwhile is told with RemoveFromCRL.
func (l List) Delta(base *x509.RevocationList) (*x509.RevocationList, error) {
	if base.Number == nil || base.Number.Cmp(big.NewInt(l.Number)) > 0 {
		return nil, errors.New("status: the base of a delta is not older than the delta")
	}
	idp, err := distributionPoint(l.URL)
	if err != nil {
		return nil, err
	}
	var number cryptobyte.Builder
	number.AddASN1BigInt(base.Number)
	value, err := number.Bytes()
	if err != nil {
		return nil, err
	}
	before := map[string]Reason{}
	for _, e := range base.RevokedCertificateEntries {
		before[string(e.SerialNumber.Bytes())] = Reason(e.ReasonCode)
	}
	var changed []Entry
	for _, e := range l.Revoked {
		if reason, ok := before[string(e.Serial.Bytes())]; !ok || reason != e.Reason {
			changed = append(changed, e)
		}
		delete(before, string(e.Serial.Bytes()))
	}
	for serial := range before {
		changed = append(changed, Entry{Serial: new(big.Int).SetBytes([]byte(serial)), At: l.Updated, Reason: RemoveFromCRL})
	}
	return l.template(changed, pkix.Extension{Id: oidDelta, Critical: true, Value: value}, idp)
}

func (l List) template(entries []Entry, extensions ...pkix.Extension) (*x509.RevocationList, error) {
	t := &x509.RevocationList{Number: big.NewInt(l.Number), ThisUpdate: l.Updated, NextUpdate: l.Until, ExtraExtensions: extensions}
	slices.SortFunc(entries, func(a, b Entry) int { return a.Serial.Cmp(b.Serial) })
	for _, e := range entries {
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: e.Serial, RevocationTime: e.At.UTC().Truncate(time.Second), ReasonCode: int(e.Reason)})
	}
	return t, nil
}

// distributionPoint says which certificates a list is about (RFC 5280 5.2.5): those that name the same URL, and no
// authorities. It is critical, so that nobody takes a shard for the whole.
func distributionPoint(url string) (pkix.Extension, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) { addFullName(b, url) })
		b.AddASN1(cbasn1.Tag(1).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddUint8(0xff) }) // onlyContainsUserCerts
	})
	value, err := b.Bytes()
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("status: %w", err)
	}
	return pkix.Extension{Id: oidIDP, Critical: true, Value: value}, nil
}

// freshestCRL says where the delta is (RFC 5280 5.2.6).
func freshestCRL(url string) (pkix.Extension, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) { addFullName(b, url) })
		})
	})
	value, err := b.Bytes()
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("status: %w", err)
	}
	return pkix.Extension{Id: oidFreshest, Value: value}, nil
}

func addFullName(b *cryptobyte.Builder, url string) {
	b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(url)) })
	})
}

// Point returns the URL in the issuing distribution point of a list, and the number of its base if it is a delta.
func Point(l *x509.RevocationList) (url string, base *big.Int, err error) {
	for _, e := range l.Extensions {
		switch {
		case e.Id.Equal(oidIDP):
			var body, point, names, name cryptobyte.String
			in := cryptobyte.String(e.Value)
			if !in.ReadASN1(&body, cbasn1.SEQUENCE) || !body.ReadASN1(&point, tagExplicit0) || !point.ReadASN1(&names, tagExplicit0) ||
				!names.ReadASN1(&name, cbasn1.Tag(6).ContextSpecific()) {
				return "", nil, errors.New("status: the list has an issuing distribution point of an unknown form")
			}
			url = string(name)
		case e.Id.Equal(oidDelta):
			base = new(big.Int)
			if _, err := asn1.Unmarshal(e.Value, &base); err != nil {
				return "", nil, fmt.Errorf("status: delta: %w", err)
			}
		}
	}
	return url, base, nil
}
