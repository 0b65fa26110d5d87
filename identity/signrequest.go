// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"crypto/x509"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/problem"
)

// Check is the last fence before a key is used: it refuses a certificate that no profile allows, whatever went wrong
// before. Every Issuer calls it first.
func (r SignRequest) Check() error {
	p, ok := profileNamed(r.Profile)
	if !ok {
		return problem.Forbidden("issuer.profile", "There is no certificate profile %q.", r.Profile)
	}
	t := r.Template
	switch {
	case p.Role != "" && !strings.HasPrefix(r.Authority, string(p.Role)+"-"):
		return problem.Forbidden("issuer.profile", "%s does not sign certificates of the profile %s.", r.Authority, p.Name)
	case t.IsCA, !t.BasicConstraintsValid:
		return problem.Forbidden("issuer.profile", "A certificate of the profile %s is no authority, and says so.", p.Name)
	case t.KeyUsage != x509.KeyUsageDigitalSignature, !slices.Equal(t.ExtKeyUsage, []x509.ExtKeyUsage{p.Usage}), len(t.UnknownExtKeyUsage) > 0:
		return problem.Forbidden("issuer.profile", "A certificate of the profile %s is for another use.", p.Name)
	}
	return nil
}

func profileNamed(name string) (Profile, bool) {
	for _, p := range []Profile{serverProfile, bootstrapProfile, ocspProfile} {
		if p.Name == name {
			return p, true
		}
	}
	for _, p := range Profiles {
		if p.Name == name {
			return p, true
		}
	}
	return Profile{}, false
}
