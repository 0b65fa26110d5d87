// SPDX-License-Identifier: AGPL-3.0-only

//go:build !pkcs11

package keystore_test

import (
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/identity/keystore"
	"github.com/openthings-platform/openthings/problem"
)

// A build without PKCS#11 says in one sentence how to get one that has it.
func TestNoToken(t *testing.T) {
	_, err := keystore.Open("pkcs11:token=ca?module-path=/usr/lib/softhsm/libsofthsm2.so")
	if err == nil || !strings.Contains(problem.Of(err).Help, "-tags pkcs11") {
		t.Errorf("%v", err)
	}
}
