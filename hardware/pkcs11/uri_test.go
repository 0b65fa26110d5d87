// SPDX-License-Identifier: Apache-2.0

package pkcs11

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	a, err := parse("pkcs11:token=My%20CA?module-path=/usr/lib/x.so&pin-source=file:///etc/pin")
	if err != nil || a.Token != "My CA" || a.Module != "/usr/lib/x.so" || a.PINFile != "/etc/pin" {
		t.Errorf("%+v %v", a, err)
	}
	if a, err := parse("pkcs11:slot-id=3?module-path=/x.so"); err != nil || a.Slot == nil || *a.Slot != 3 {
		t.Errorf("%+v %v", a, err)
	}
	if a, err := parse("pkcs11:serial=00ff?module-path=/x.so&pin-source=/etc/pin"); err != nil || a.Serial != "00ff" || a.PINFile != "/etc/pin" {
		t.Errorf("%+v %v", a, err)
	}
	for _, bad := range []string{
		"", "pkcs11:", "tpm:/dev/tpm0", "pkcs11:token=a", "pkcs11:?module-path=/x.so", "pkcs11:token=a;serial=b?module-path=/x.so",
		"pkcs11:token=a?module-path=/x.so&pin-value=1234", "pkcs11:token=a?module-path=/x.so&pin-sauce=/etc/pin", "pkcs11:tokn=a?module-path=/x.so",
		"pkcs11:token=%zz?module-path=/x.so", "pkcs11:token=?module-path=/x.so", "pkcs11:slot-id=-1?module-path=/x.so", "pkcs11:token?module-path=/x.so",
	} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q was taken", bad)
		} else if strings.Contains(err.Error(), "1234") {
			t.Errorf("%v gives the PIN away", err)
		}
	}
}

func TestPIN(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pin")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	write("secret\n", 0o600)
	if p, err := (address{PINFile: file}).pin(); err != nil || p != "secret" {
		t.Error(p, err)
	}
	write("secret", 0o640)
	if _, err := (address{PINFile: file}).pin(); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a PIN that others can read: %v", err)
	}
	write("\n", 0o600)
	if _, err := (address{PINFile: file}).pin(); err == nil {
		t.Error("an empty PIN")
	}
	if _, err := (address{PINFile: file + "x"}).pin(); err == nil {
		t.Error("no file")
	}
	t.Setenv(PINVariable, "from outside")
	if p, err := (address{}).pin(); err != nil || p != "from outside" {
		t.Error(p, err)
	}
	t.Setenv(PINVariable, "")
	if _, err := (address{}).pin(); err == nil {
		t.Error("no PIN at all")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("pkcs11:token=My%20CA?module-path=/usr/lib/x.so&pin-source=file:///etc/pin")
	f.Add("pkcs11:slot-id=3;serial=1?pin-value=1")
	f.Fuzz(func(t *testing.T, uri string) {
		if a, err := parse(uri); err == nil && (a.Module == "" || a.Token == "" && a.Serial == "" && a.Slot == nil) {
			t.Errorf("%q names no token: %+v", uri, a)
		}
	})
}
