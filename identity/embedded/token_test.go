// SPDX-License-Identifier: AGPL-3.0-only

//go:build pkcs11

package embedded_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/openthings-platform/openthings/hardware/hardwaretest"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/identity/keystore"
)

func TestContractToken(t *testing.T) {
	contract(t, func(t *testing.T) string { return hardwaretest.NewToken(t).URI })
}

func TestMovesIntoToken(t *testing.T) { moves(t, hardwaretest.NewToken(t).URI, keystore.Token) }

// The folder of a platform whose keys are in a token holds references only, and another token does not know them.
func TestI18_CAKeysWithoutTheirToken(t *testing.T) {
	peer, other := hardwaretest.NewToken(t), hardwaretest.NewToken(t)
	p := newPlace(t)
	p.cfg.Hardware = hardware(t, peer.URI)
	p.open(t)
	noPlainKeys(t, p.dir)
	noPlainKeys(t, peer.Folder)
	err := filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if b, err := os.ReadFile(path); err != nil || bytes.Contains(b, []byte(peer.PIN)) {
			t.Errorf("%s holds the PIN (%v)", path, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	p.cfg.Hardware = hardware(t, other.URI)
	if _, err := embedded.Open(p.cfg); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another token: %v", err)
	}
}
