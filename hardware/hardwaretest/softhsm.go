// SPDX-License-Identifier: Apache-2.0

package hardwaretest

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Token is a SoftHSM2 token of one test.
type Token struct {
	// URI is what pkcs11.Open takes.
	URI string
	// PIN is the PIN, to look for where it must not be; PINFile holds it.
	PIN, PINFile string
	// Folder holds the token's objects, as SoftHSM2 encrypts them.
	Folder string
}

var softHSM struct {
	sync.Mutex
	folder      string
	count, live int
}

// SoftHSM is the PKCS#11 library of SoftHSM2.
func SoftHSM(t testing.TB) string {
	t.Helper()
	for _, path := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Fatal("SoftHSM2 has no library on this machine: apt-get install softhsm2 (scripts/deps.sh test does it)")
	return ""
}

// SoftHSMConfig is a configuration with a folder of its own, for programs that a test starts with SOFTHSM2_CONF.
func SoftHSMConfig(t testing.TB) string {
	t.Helper()
	need(t, "softhsm2-util", "softhsm2")
	dir := t.TempDir()
	writeSoftHSM(t, dir)
	return filepath.Join(dir, softHSMConf)
}

const softHSMConf = "softhsm2.conf"

func writeSoftHSM(t testing.TB, dir string) {
	t.Helper()
	text := fmt.Appendf(nil, "directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", dir)
	if err := os.WriteFile(filepath.Join(dir, softHSMConf), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// NewToken makes a token. SoftHSM2 reads its configuration once for each process, so the tokens of one test binary share
// a folder, which goes with the last of them. It looks for tokens when it is opened: make those that a test needs first.
func NewToken(t testing.TB) Token {
	t.Helper()
	util := need(t, "softhsm2-util", "softhsm2")
	module := SoftHSM(t)
	softHSM.Lock()
	defer softHSM.Unlock()
	if softHSM.folder == "" {
		softHSM.folder = filepath.Join(os.TempDir(), "softhsm-"+rand.Text())
	}
	if softHSM.live == 0 {
		dir := softHSM.folder
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		writeSoftHSM(t, dir)
		if err := os.Setenv("SOFTHSM2_CONF", filepath.Join(dir, softHSMConf)); err != nil {
			t.Fatal(err)
		}
	}
	softHSM.count++
	softHSM.live++
	t.Cleanup(func() {
		softHSM.Lock()
		defer softHSM.Unlock()
		if softHSM.live--; softHSM.live == 0 {
			os.RemoveAll(softHSM.folder) //nolint:errcheck // a folder in the temporary one
		}
	})
	label, pin := fmt.Sprintf("test-%d", softHSM.count), fmt.Sprintf("pin-%d-%d", os.Getpid(), softHSM.count)
	command(t, nil, util, "--init-token", "--free", "--label", label, "--so-pin", "so-"+pin, "--pin", pin)
	file := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(file, []byte(pin+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Token{URI: fmt.Sprintf("pkcs11:token=%s?module-path=%s&pin-source=%s", label, module, file), PIN: pin, PINFile: file, Folder: softHSM.folder}
}
