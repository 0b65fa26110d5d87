// SPDX-License-Identifier: Apache-2.0

//go:build !pkcs11

package pkcs11

import (
	"errors"
	"strings"
	"testing"
)

// A build without the tag says how to get one that has it, once the URI is right.
func TestAbsent(t *testing.T) {
	if _, err := Open("pkcs11:token=a?module-path=/x.so"); !errors.Is(err, ErrAbsent) || !strings.Contains(err.Error(), "-tags pkcs11") {
		t.Errorf("%v", err)
	}
	if _, err := Open("pkcs11:token=a"); err == nil || errors.Is(err, ErrAbsent) {
		t.Errorf("%v", err)
	}
}
