// SPDX-License-Identifier: AGPL-3.0-only

package feed

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/openthings-platform/openthings/problem"
)

// maxPGPKey bounds a public key, in bytes.
const maxPGPKey = 256 << 10

// keyring holds the OpenPGP keys that documents of a provider may be signed with.
type keyring struct{ keys openpgp.EntityList }

// keyring reads the provider's keys. Keys that a person named here, as text or by fingerprint, are the only ones that count;
// without them the provider's own list does, over TLS. Nil: there are none.
func (f *Fetcher) keyring(ctx context.Context, s Source, meta metadata) (*keyring, error) {
	var ring keyring
	pinned := map[string]bool{}
	for _, k := range s.Keys {
		if strings.Contains(k, "BEGIN PGP") {
			list, err := openpgp.ReadArmoredKeyRing(strings.NewReader(k))
			if err != nil {
				return nil, problem.Invalid("A key of the source cannot be read.").Because(err)
			}
			ring.keys = append(ring.keys, list...)
			continue
		}
		pinned[fingerprint(k)] = true
	}
	for _, k := range meta.Keys {
		print := fingerprint(k.Fingerprint)
		if len(s.Keys) > 0 && !pinned[print] {
			continue
		}
		b, err := f.small(ctx, k.URL, maxPGPKey)
		if err != nil {
			return nil, err
		}
		list, err := readPGP(b)
		if err != nil {
			return nil, problem.Invalid("The OpenPGP key at %s cannot be read.", host(k.URL)).Because(err)
		}
		for _, e := range list {
			if print != "" && hex.EncodeToString(e.PrimaryKey.Fingerprint) != print {
				return nil, problem.Forbidden(RuleForeign, "The OpenPGP key at %s is another than the provider names.", host(k.URL))
			}
			ring.keys = append(ring.keys, e)
		}
	}
	if len(ring.keys) == 0 && len(s.Keys) > 0 {
		return nil, problem.Forbidden(RuleForeign, "The provider does not offer the key that this source was told to trust.")
	}
	if len(ring.keys) == 0 {
		return nil, nil
	}
	return &ring, nil
}

func readPGP(b []byte) (openpgp.EntityList, error) {
	if bytes.Contains(b, []byte("BEGIN PGP")) {
		return openpgp.ReadArmoredKeyRing(bytes.NewReader(b))
	}
	return openpgp.ReadKeyRing(bytes.NewReader(b))
}

// check verifies a detached armoured signature over a document.
func (r *keyring) check(doc, sig []byte, now time.Time) error {
	_, err := openpgp.CheckArmoredDetachedSignature(r.keys, bytes.NewReader(doc), bytes.NewReader(sig), &packet.Config{Time: func() time.Time { return now }})
	return err
}

// fingerprint folds the ways in which people write one.
func fingerprint(s string) string {
	return strings.ToLower(strings.TrimPrefix(strings.NewReplacer(" ", "", ":", "").Replace(s), "0x"))
}

// checkPGP refuses what is neither a fingerprint nor a public key.
func checkPGP(k string) error {
	if strings.Contains(k, "BEGIN PGP") {
		list, err := openpgp.ReadArmoredKeyRing(strings.NewReader(k))
		for _, e := range list {
			if e.PrivateKey != nil {
				err = errors.New("it is a private key")
			}
		}
		if err != nil || len(k) > maxPGPKey {
			return problem.Invalid("A key of the source is no OpenPGP public key.").Because(err)
		}
		return nil
	}
	if b, err := hex.DecodeString(fingerprint(k)); err != nil || len(b) != 20 && len(b) != 32 {
		return problem.Invalid("%.80q is neither the fingerprint of an OpenPGP key nor one in armour.", k)
	}
	return nil
}
