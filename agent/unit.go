// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"os"
	"regexp"

	"github.com/openthings-platform/openthings/update/trust"
	"github.com/openthings-platform/openthings/wire"
)

// unit is what the line gave the device.
type unit struct {
	Serial string `json:"serial"`
	Device string `json:"device"`
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

// Provision makes a new device in dir: its P-256 key and the certificate request (PEM) for its IDevID. The directory
// must not hold a device already: a unit is born once.
func Provision(dir, serial string) (csrPEM []byte, err error) {
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
	if err := d.writeJSON("unit.json", unit{Serial: serial}); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: serial, SerialNumber: serial}}, key)
	if err != nil {
		return nil, err
	}
	b, err := marshalKey(key)
	if err != nil {
		return nil, err
	}
	if err := d.write("idevid.key", b); err != nil { // last: its presence says that the unit is complete
		return nil, err
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

// Install stores what the line station answered: IDevID, chain and the manufacturer's update root. The certificate must
// carry the unit's own key, and the root must sign itself.
func Install(dir string, r wire.LineResponse) error {
	d := disk{dir: dir}
	var u unit
	if err := d.readJSON("unit.json", &u); err != nil {
		return err
	}
	keyPEM, err := d.read("idevid.key")
	if err != nil {
		return err
	}
	if _, err := newCredential(keyPEM, []byte(r.Certificate)); err != nil {
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
	u.Device = r.Device
	if err := d.writeJSON("unit.json", u); err != nil {
		return err
	}
	if err := d.write("chain.pem", []byte(r.Chain)); err != nil {
		return err
	}
	return d.write("idevid.pem", []byte(r.Certificate)) // last: its presence says that the unit may run
}
