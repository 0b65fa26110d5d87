// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"bytes"
	"context"
	"io"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/respond/pgp"
)

// What messages can be encrypted with.
const (
	cipherPGP = "pgp"
	cipherAge = "age"
)

const (
	pgpBegin = "-----BEGIN PGP MESSAGE-----"
	ageBegin = armor.Header
	ageFirst = "age-encryption.org/v1\n"
	blank    = " \t\r\n\ufeff"
)

// sniff says what b is encrypted with, by its first line alone; nothing if it is not. It decides how a message is opened,
// never whether it is taken.
func sniff(b []byte) string {
	b = bytes.TrimLeft(b[:min(len(b), 4096)], blank)
	switch {
	case bytes.HasPrefix(b, []byte(pgpBegin)), pgp.Binary(b):
		return cipherPGP
	case bytes.HasPrefix(b, []byte(ageBegin)), bytes.HasPrefix(b, []byte(ageFirst)):
		return cipherAge
	}
	return ""
}

// decrypt opens a message to the tenant, of which sniff said what it is. What it unfolds to has at most so many bytes; bytes that are no
// message are the sender's mistake, not ours.
func (s *Service) decrypt(ctx context.Context, tenant string, b []byte, most int64) ([]byte, error) {
	b = bytes.TrimLeft(b, blank)
	switch sniff(b) {
	case cipherPGP:
		return s.cfg.PGP.Decrypt(ctx, tenant, b, most)
	case cipherAge:
		ids, err := s.identities(ctx, tenant)
		if err != nil {
			return nil, err
		}
		return openAge(b, ids, most)
	}
	return nil, problem.Invalid("It is not encrypted.")
}

func openAge(b []byte, ids []age.Identity, most int64) ([]byte, error) {
	var r io.Reader = bytes.NewReader(b)
	if bytes.HasPrefix(b, []byte(ageBegin)) {
		r = armor.NewReader(r)
	}
	if len(ids) == 0 {
		return nil, problem.Invalid("There is no age key to open it with.")
	}
	plain, err := age.Decrypt(r, ids...)
	if err != nil {
		return nil, problem.Invalid("The message was not encrypted to a key of this manufacturer, or is damaged.").Because(err)
	}
	out, err := io.ReadAll(io.LimitReader(plain, most+1)) // its end says whether it is whole
	switch {
	case err != nil:
		return nil, problem.Invalid("The encrypted message is damaged.").Because(err)
	case int64(len(out)) > most:
		return nil, problem.TooLarge("The message is longer than %d bytes inside.", most)
	}
	return out, nil
}
