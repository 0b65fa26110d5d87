// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openthings-platform/openthings/identity"
)

var (
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidExtensionRequest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}
	oidRequestTemplate  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 61} // id-aa-certificationRequestInfoTemplate
)

// estKey is how a key algorithm is written in CSR attributes.
type estKey struct {
	key, curve, signature asn1.ObjectIdentifier // no curve: the key's own identifier says all
}

var estKeys = map[identity.Algorithm]estKey{
	identity.AlgP256:    {asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}},
	identity.AlgP384:    {asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, asn1.ObjectIdentifier{1, 3, 132, 0, 34}, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}},
	identity.AlgEd25519: {key: asn1.ObjectIdentifier{1, 3, 101, 112}, signature: asn1.ObjectIdentifier{1, 3, 101, 112}},
}

type builder = *cryptobyte.Builder

// attribute adds an Attribute: a type and the set of its values.
func attribute(b builder, kind asn1.ObjectIdentifier, values func(builder)) {
	b.AddASN1(cbasn1.SEQUENCE, func(b builder) {
		b.AddASN1ObjectIdentifier(kind)
		b.AddASN1(cbasn1.SET, values)
	})
}

// csrAttributes tells a client what request to make: for which key and, if the server knows whom it speaks to, with
// which names. It says so twice, as RFC 9908 allows: in the attributes that clients have read since RFC 7030 4.5.2
// (RFC 9908 3.2, 3.3), and as a template of the whole request (RFC 9908 3.4), which newer clients take instead.
func csrAttributes(alg identity.Algorithm, device *identity.Device) ([]byte, error) {
	k := estKeys[alg]
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b builder) {
		attribute(b, k.key, k.parameters)
		b.AddASN1ObjectIdentifier(k.signature)
		if device != nil {
			attribute(b, oidExtensionRequest, func(b builder) { alternativeName(b, *device) })
		}
		attribute(b, oidRequestTemplate, func(b builder) { requestTemplate(b, k, device) })
	})
	return b.Bytes()
}

func (k estKey) parameters(b builder) {
	if k.curve != nil {
		b.AddASN1ObjectIdentifier(k.curve)
	}
}

// requestTemplate is a CertificationRequestInfoTemplate: what is in it is wanted as it stands, what is absent is the
// client's to fill in.
func requestTemplate(b builder, k estKey, device *identity.Device) {
	b.AddASN1(cbasn1.SEQUENCE, func(b builder) {
		b.AddASN1Int64(0) // v1
		if device != nil {
			subjectTemplate(b, device.Subject().ToRDNSequence())
		}
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b builder) { // SubjectPublicKeyInfoTemplate without a key
			b.AddASN1(cbasn1.SEQUENCE, func(b builder) {
				b.AddASN1ObjectIdentifier(k.key)
				k.parameters(b)
			})
		})
		b.AddASN1(cbasn1.Tag(1).ContextSpecific().Constructed(), func(b builder) { // attributes
			if device != nil {
				attribute(b, oidExtensionRequest, func(b builder) { alternativeName(b, *device) })
			}
		})
	})
}

// subjectTemplate is a NameTemplate with every value filled in, which has the encoding of a Name.
func subjectTemplate(b builder, name pkix.RDNSequence) {
	der, err := asn1.Marshal(name)
	if err != nil {
		b.SetError(err)
		return
	}
	b.AddBytes(der)
}

// alternativeName adds Extensions with the subject alternative name of the device.
func alternativeName(b builder, device identity.Device) {
	uri := identity.DeviceURI(device.Tenant, device.ID).String()
	b.AddASN1(cbasn1.SEQUENCE, func(b builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b builder) {
			b.AddASN1ObjectIdentifier(oidSubjectAltName)
			b.AddASN1(cbasn1.OCTET_STRING, func(b builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b builder) {
					b.AddASN1(cbasn1.Tag(6).ContextSpecific(), func(b builder) { b.AddBytes([]byte(uri)) })
				})
			})
		})
	})
}

// preferred is the key that a policy asks for when it takes several.
func preferred(p Policy) identity.Algorithm {
	if i := slices.IndexFunc(p.Keys, func(a identity.Algorithm) bool { _, ok := estKeys[a]; return ok }); i >= 0 {
		return p.Keys[i]
	}
	return identity.AlgP256
}
