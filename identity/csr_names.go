// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"regexp"
	"slices"
	"strings"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openthings-platform/openthings/problem"
)

const tagURI = cbasn1.Tag(6 | 0x80) // uniformResourceIdentifier [6]

// OnlyFor refuses a request that asks for a subject alternative name other than uri, of whatever type; uri "" refuses
// all of them.
func (c *CSR) OnlyFor(uri string) error {
	for _, n := range c.shape.san {
		if n.tag != tagURI || n.body != uri || uri == "" {
			hint := "Leave the subject alternative name out."
			if uri != "" {
				hint = "Leave the subject alternative name out, or ask for " + uri + "."
			}
			return errForeignName("%s", hint)
		}
	}
	return nil
}

// idPattern is how ids of the register look; a subject that carries one speaks of somebody in it.
var idPattern = regexp.MustCompile(`^[a-z]{3}_[0-9a-zA-Z]+$`)

// Names refuses a subject that names somebody else than the device: another id of the register, another serial number,
// another tenant. What it calls itself otherwise decides nothing and is not read.
func (c *CSR) Names(d Device) error {
	s := c.Subject
	switch {
	case idPattern.MatchString(s.CommonName) && s.CommonName != d.ID:
		return errForeignName("The device is %s; leave the common name out.", d.ID)
	case s.SerialNumber != "" && s.SerialNumber != d.Serial:
		return errForeignName("The device has the serial number %s.", d.Serial)
	}
	for _, o := range s.Organization {
		if idPattern.MatchString(o) && o != d.Tenant {
			return errForeignName("The device belongs to %s.", d.Tenant)
		}
	}
	return nil
}

func errForeignName(format string, args ...any) error {
	return problem.Forbidden(RuleCSRName, "The certificate request asks for a name that is not this subject's.").At("csr").Hint(format, args...)
}

// Keeps refuses a renewal that is not for the very subject and subject alternative name of the certificate in use
// (RFC 7030 4.2.2): the same attributes with the same values in the same order, the same names of the same types in the
// same order. Only the string type of an attribute may differ, since clients choose it. A ChangeSubjectName attribute
// asks for what a device of ours never gets.
func (c *CSR) Keeps(now *x509.Certificate) error {
	refuse := func(what string) error {
		return problem.Forbidden("enroll.same-names", "A renewal keeps the subject and the subject alternative name of the certificate in use; %s.", what).At("csr").
			Hint("Ask for subject %q and %q (RFC 7030 4.2.2).", now.Subject, now.URIs)
	}
	if slices.ContainsFunc(c.shape.attributes, oidChangeSubjectName.Equal) {
		return refuse("this one asks for a change of names")
	}
	if !bytes.Equal(c.RawSubject, now.RawSubject) { // most repeat it as it is
		asked, err := readName(c.RawSubject)
		if err != nil {
			return refuse("this one's subject cannot be read")
		}
		have, err := readName(now.RawSubject)
		if err != nil {
			return fmt.Errorf("identity: the subject of the certificate in use: %w", err)
		}
		if !slices.Equal(asked, have) {
			return refuse("this one has another subject")
		}
	}
	var names []generalName
	for _, e := range now.Extensions {
		if e.Id.Equal(oidSubjectAltName) {
			var err error
			if names, err = generalNames(e.Value); err != nil {
				return fmt.Errorf("identity: %w", err)
			}
		}
	}
	if !slices.Equal(c.shape.san, names) {
		return refuse("this one has another subject alternative name")
	}
	return nil
}

// readName spells a distinguished name out, attribute by attribute, so that two can be compared.
func readName(der []byte) (spelt []string, err error) {
	var rdns pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &rdns); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("a distinguished name: %w", err)
	}
	for _, rdn := range rdns {
		var parts []string
		for _, a := range rdn {
			parts = append(parts, fmt.Sprintf("%s=%q", a.Type, fmt.Sprint(a.Value)))
		}
		slices.Sort(parts) // a set
		spelt = append(spelt, strings.Join(parts, "+"))
	}
	return spelt, nil
}
