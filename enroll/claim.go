// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"strings"

	"github.com/openthings-platform/openthings/problem"
)

// crockford is base 32 without I, L, O and U, so that a code survives being read aloud and typed.
var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

const (
	codeBytes  = 16 // 128 bits
	codeLength = 26 // letters
	codeGroup  = 5
)

// newCode makes a claim code and its hash. The code is for the box, the hash for us.
func newCode() (code, hash string) {
	secret := make([]byte, codeBytes)
	rand.Read(secret) // never fails since Go 1.24
	letters := crockford.EncodeToString(secret)
	var groups []string
	for ; len(letters) > codeGroup+1; letters = letters[codeGroup:] {
		groups = append(groups, letters[:codeGroup])
	}
	return strings.Join(append(groups, letters), "-"), hashCode(secret)
}

func hashCode(secret []byte) string {
	h := sha256.Sum256(append([]byte("openthings claim\x00"), secret...))
	return hex.EncodeToString(h[:])
}

var confusable = strings.NewReplacer("-", "", " ", "", "O", "0", "I", "1", "L", "1")

// parseCode reads a code as people type it and returns its hash.
func parseCode(typed string) (hash string, err error) {
	if len(typed) > 64 {
		return "", errCode()
	}
	letters := confusable.Replace(strings.ToUpper(typed))
	secret, err := crockford.DecodeString(letters)
	if err != nil || len(letters) != codeLength || len(secret) != codeBytes {
		return "", errCode()
	}
	return hashCode(secret), nil
}

func errCode() error {
	return problem.Invalid("This is not a claim code: it has %d letters and digits.", codeLength).At("code").
		Hint("It is on the unit's box; hyphens, spaces and case do not matter.")
}
