// SPDX-License-Identifier: Apache-2.0

package pkcs11

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// Scheme begins the URI of a token.
const Scheme = "pkcs11:"

// PINVariable is the environment variable that the PIN is taken from when the URI names no file.
const PINVariable = "OPENTHINGS_PKCS11_PIN"

// ErrAbsent is returned by a build without PKCS#11; it says how to get one that has it.
var ErrAbsent = errors.New("this build speaks no PKCS#11; build it with: CGO_ENABLED=1 go build -tags pkcs11 ./cmd/...")

// mark begins a reference to a key.
const mark = "pkcs11:object="

// IsReference says whether b is a reference to a key in a token.
func IsReference(b []byte) bool { return bytes.HasPrefix(b, []byte(mark)) }

func parseReference(b []byte) (label string, err error) {
	label, ok := strings.CutPrefix(string(bytes.TrimSpace(b)), mark)
	if !ok || label == "" || len(label) > 255 {
		return "", errors.New("pkcs11: this is no reference to a key in a token")
	}
	return label, nil
}

// address is what a URI says.
type address struct {
	Module, Token, Serial string
	Slot                  *int
	PINFile               string
}

// parse reads a PKCS#11 URI (RFC 7512). Attributes that it does not know are an error, so that a misspelt one is not
// passed over.
func parse(uri string) (a address, err error) {
	rest, ok := strings.CutPrefix(uri, Scheme)
	if !ok {
		return a, fmt.Errorf("pkcs11: %q does not begin with %s", uri, Scheme)
	}
	path, query, _ := strings.Cut(rest, "?")
	ways := 0
	each := func(list, sep string, set func(name, value string) error) error {
		for part := range strings.SplitSeq(list, sep) {
			if part == "" {
				continue
			}
			name, value, ok := strings.Cut(part, "=")
			if value, err = url.PathUnescape(value); err != nil || !ok || value == "" {
				return fmt.Errorf("pkcs11: %q says nothing that can be understood", name)
			}
			if err := set(name, value); err != nil {
				return err
			}
		}
		return nil
	}
	err = each(path, ";", func(name, value string) (err error) {
		ways++
		switch name {
		case "token":
			a.Token = value
		case "serial":
			a.Serial = value
		case "slot-id":
			n, err := strconv.Atoi(value)
			if err != nil || n < 0 {
				return errors.New("pkcs11: slot-id is no number")
			}
			a.Slot = &n
		default:
			return fmt.Errorf("pkcs11: the attribute %q is not known here", name)
		}
		return nil
	})
	if err != nil {
		return a, err
	}
	err = each(query, "&", func(name, value string) error {
		switch name {
		case "module-path":
			a.Module = value
		case "pin-source":
			a.PINFile = strings.TrimPrefix(strings.TrimPrefix(value, "file:"), "//")
		case "pin-value":
			return errors.New("pkcs11: a PIN does not belong into a command line; put it into a file and name it as pin-source")
		default:
			return fmt.Errorf("pkcs11: the attribute %q is not known here", name)
		}
		return nil
	})
	switch {
	case err != nil:
		return a, err
	case ways != 1:
		return a, errors.New("pkcs11: name the token in one way: token, serial or slot-id")
	case a.Module == "":
		return a, errors.New("pkcs11: module-path is missing: the file of the vendor's PKCS#11 library")
	}
	return a, nil
}

// pin reads the PIN. No error of it contains the PIN.
func (a address) pin() (string, error) {
	if a.PINFile == "" {
		if p := os.Getenv(PINVariable); p != "" {
			return p, nil
		}
		return "", errors.New("pkcs11: there is no PIN: name a file as pin-source, or set " + PINVariable)
	}
	info, err := os.Stat(a.PINFile)
	if err != nil {
		return "", fmt.Errorf("pkcs11: the PIN: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("pkcs11: the PIN in %s can be read by others; run: chmod 600 %[1]s", a.PINFile)
	}
	b, err := os.ReadFile(a.PINFile)
	if err != nil {
		return "", fmt.Errorf("pkcs11: the PIN: %w", err)
	}
	if p := strings.TrimRight(string(b), "\r\n"); p != "" && len(p) <= 255 {
		return p, nil
	}
	return "", fmt.Errorf("pkcs11: %s holds no PIN", a.PINFile)
}
