// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"regexp"

	"github.com/openthings-platform/openthings/agent/keys"
	"github.com/openthings-platform/openthings/update/trust"
	"github.com/openthings-platform/openthings/wire"
)

// unit is what the line gave the device.
type unit struct {
	Serial string `json:"serial"`
	Device string `json:"device"`
	Keys   string `json:"keys,omitempty"` // the key store, as in agent/keys.Open
}

var serialShape = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// factory opens a state directory as the line finds it, and makes it if need be: no image, floor 0.
func factory(dir string) (disk, record, error) {
	d := disk{dir: dir}
	if d.exists("wiped") || d.exists("idevid.pem") {
		return disk{}, record{}, fmt.Errorf("%s holds a device that has left the line", dir)
	}
	if err := os.MkdirAll(d.path("buffer"), 0o700); err != nil {
		return disk{}, record{}, err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return disk{}, record{}, err
	}
	if r, err := d.load(); err == nil {
		return d, r, nil
	}
	r := record{Active: "a"}
	return d, r, d.save(&r)
}

// Provision makes a new device in dir with its keys in files: ProvisionIn(dir, serial, keys.KindFile).
func Provision(dir, serial string) (csrPEM []byte, err error) {
	return ProvisionIn(dir, serial, keys.KindFile)
}

// ProvisionIn makes a new device in dir: its key, in the key store that where names (agent/keys.Open), and the
// certificate request (PEM) for its IDevID. The directory must not hold a device already: a unit is born once.
func ProvisionIn(dir, serial, where string) (csrPEM []byte, err error) {
	if !serialShape.MatchString(serial) {
		return nil, fmt.Errorf("serial %q: use 1 to 64 letters, digits, dots, dashes and underscores", serial)
	}
	d, _, err := factory(dir)
	if err != nil {
		return nil, err
	}
	if d.exists("idevid.key") {
		return nil, fmt.Errorf("%s holds a device already", dir)
	}
	store, err := openKeys(where, d)
	if err != nil {
		return nil, err
	}
	defer store.Close() //nolint:errcheck // the key is in it
	if err := d.writeJSON("unit.json", unit{Serial: serial, Keys: where}); err != nil {
		return nil, err
	}
	key, err := store.New("idevid") // last on disk: its file says that the unit is complete
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: serial, SerialNumber: serial}}, key)
	if err != nil {
		return nil, errors.Join(err, store.Destroy("idevid"))
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), nil
}

// Flash puts the factory image into slot a, before or after Provision, and returns its digest, which the line reports in
// wire.LineRequest.Firmware. The factory image sets the first floor.
func Flash(dir string, image []byte, version string, securityVersion int64) (digest string, err error) {
	d, r, err := factory(dir)
	if err != nil {
		return "", err
	}
	digest = wire.Digest(image)
	if err := d.write(slotFile("a"), image); err != nil {
		return "", err
	}
	if err := d.writeJSON("slot-a.json", slotInfo{Version: version, SecurityVersion: securityVersion, Image: digest}); err != nil {
		return "", err
	}
	r.Floor = securityVersion
	return digest, d.save(&r)
}

// Install stores what the line station answered: IDevID, chain, trust bundle and the manufacturer's update root. The certificate must
// carry the unit's own key, and the root must sign itself.
func Install(dir string, r wire.LineResponse) error {
	d := disk{dir: dir}
	var u unit
	if err := d.readJSON("unit.json", &u); err != nil {
		return err
	}
	store, err := openKeys(u.Keys, d)
	if err != nil {
		return err
	}
	defer store.Close() //nolint:errcheck // it was only read
	key, err := store.Open("idevid")
	if err != nil {
		return err
	}
	if _, err := newCredential(key, []byte(r.Certificate)); err != nil {
		return fmt.Errorf("the certificate of birth: %w", err)
	}
	if _, err := parseChain([]byte(r.Chain)); err != nil {
		return fmt.Errorf("the issuer's chain: %w", err)
	}
	if len(r.TrustRoot) != 0 {
		if _, err := trust.ParseRoot(r.TrustRoot); err != nil {
			return fmt.Errorf("the update root: %w", err)
		}
		if err := d.write("root.json", r.TrustRoot); err != nil {
			return err
		}
	}
	if r.Bundle != nil { // the one moment at which somebody's word is enough: the station stands in the factory
		if _, err := r.Bundle.Pin(); err != nil {
			return err
		}
		if err := d.writeJSON("pin.json", r.Bundle); err != nil {
			return err
		}
	}
	u.Device = r.Device
	if err := d.writeJSON("unit.json", u); err != nil {
		return err
	}
	if err := d.write("chain.pem", []byte(r.Chain)); err != nil {
		return err
	}
	return d.write("idevid.pem", []byte(r.Certificate)) // last: its presence says that the unit may run
}
