// SPDX-License-Identifier: AGPL-3.0-only

package embedded

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
)

var _ identity.RootKeeper = (*Issuer)(nil)

// Adopt implements identity.RootKeeper: the certificate of a root or anchor whose key is elsewhere.
func (is *Issuer) Adopt(_ context.Context, id string, der []byte) error {
	m := idPattern.FindStringSubmatch(id)
	if m == nil || identity.Role(m[1]).Above() != identity.Role(m[1]) {
		return fmt.Errorf("embedded issuer: %q does not name a root or anchor", id)
	}
	cert, err := x509.ParseCertificate(der)
	if err == nil {
		err = cert.CheckSignatureFrom(cert)
	}
	if err != nil {
		return fmt.Errorf("embedded issuer: the certificate of %s: %w", id, err)
	}
	is.mu.Lock()
	defer is.mu.Unlock()
	if a, ok := is.authorities[id]; ok {
		if a.cert != nil && a.cert.Equal(cert) {
			return nil
		}
		return fmt.Errorf("embedded issuer: %s exists already", id)
	}
	if err := is.folder.write(id+".crt", der); err != nil {
		return err
	}
	a := authority{id: id, role: identity.Role(m[1]), parent: id, cert: cert}
	a.gen, _ = strconv.ParseInt(m[2], 10, 64) // the pattern allows nothing else
	is.authorities[id] = a
	return nil
}

// RootKey implements identity.RootKeeper.
func (is *Issuer) RootKey(_ context.Context, id string) (crypto.Signer, error) {
	a, err := is.authority(id)
	if err != nil {
		return nil, err
	}
	if a.role.Above() != a.role {
		return nil, fmt.Errorf("embedded issuer: %s is neither root nor anchor", id)
	}
	if a.key == nil {
		return nil, problem.NotFound("The key of %s is not on this machine.", id).Because(ErrRootAway)
	}
	return a.key, nil
}

// RemoveRootKey implements identity.RootKeeper. The sealed file is overwritten first; what a file system or a flash
// controller keeps of it is still sealed under the platform key.
func (is *Issuer) RemoveRootKey(ctx context.Context, id string) error {
	if _, err := is.RootKey(ctx, id); err != nil {
		if problem.Is(err, problem.KindNotFound) {
			return nil
		}
		return err
	}
	is.mu.Lock()
	defer is.mu.Unlock()
	path := is.folder.path(id + ".key")
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, st.Size()))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	a := is.authorities[id]
	a.key = nil
	is.authorities[id] = a
	return is.folder.sync()
}
