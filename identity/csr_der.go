// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// maxDepth bounds the nesting of foreign DER; a request with a distinguished name inside an alternative name has ten.
const maxDepth = 24

// checkDER refuses what is not one value in the distinguished encoding (X.690 10 and 11): trailing bytes, indefinite and
// non-minimal lengths, integers with leading octets that say nothing, booleans other than 00 and FF. Two parsers that
// read one request differently are how a check is passed by and a certificate is not.
func checkDER(der []byte) error {
	in := cryptobyte.String(der)
	if err := checkValue(&in, 0); err != nil {
		return err
	}
	if !in.Empty() {
		return fmt.Errorf("%d bytes follow the value", len(in))
	}
	return nil
}

func checkValue(in *cryptobyte.String, depth int) error {
	var body cryptobyte.String
	var tag cbasn1.Tag
	if depth > maxDepth {
		return errors.New("it is nested too deep")
	}
	if !in.ReadAnyASN1(&body, &tag) { // refuses long tags, indefinite and non-minimal lengths
		return errors.New("a tag or length is not in distinguished encoding")
	}
	const constructed = 0x20
	if tag&constructed == 0 {
		return checkPrimitive(tag, body)
	}
	for !body.Empty() {
		if err := checkValue(&body, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func checkPrimitive(tag cbasn1.Tag, body cryptobyte.String) error {
	switch tag {
	case cbasn1.SEQUENCE &^ 0x20, cbasn1.SET &^ 0x20:
		return errors.New("a sequence or set is marked as primitive")
	case cbasn1.INTEGER, cbasn1.ENUM:
		if len(body) == 0 || len(body) > 1 && (body[0] == 0 && body[1] < 0x80 || body[0] == 0xFF && body[1] >= 0x80) {
			return errors.New("an integer is not minimal")
		}
	case cbasn1.BOOLEAN:
		if len(body) != 1 || body[0] != 0 && body[0] != 0xFF {
			return errors.New("a boolean is neither 00 nor FF")
		}
	case cbasn1.NULL:
		if len(body) != 0 {
			return errors.New("a null has content")
		}
	case cbasn1.BIT_STRING:
		if len(body) == 0 || body[0] > 7 || len(body) == 1 && body[0] != 0 || body[len(body)-1]&(1<<body[0]-1) != 0 {
			return errors.New("a bit string has unused bits that are set")
		}
	}
	return nil
}

// shape is what matters of a certification request's own structure (RFC 2986 4.1) and crypto/x509 does not tell.
type shape struct {
	attributes []asn1.ObjectIdentifier // in their order
	extensions []asn1.ObjectIdentifier // of the extensionRequest attribute (RFC 2985 5.4.2)
	san        []generalName
}

// generalName is one subject alternative name, whatever its type (RFC 5280 4.2.1.6).
type generalName struct {
	tag  cbasn1.Tag
	body string
}

var (
	oidExtensionRequest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	// oidChangeSubjectName asks for other names at a renewal (RFC 6402 2.8, RFC 7030 4.2.2).
	oidChangeSubjectName = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 7, 36}
)

var errShape = errors.New("it is not built like a certification request (RFC 2986)")

// readShape reads a request that checkDER has passed. A negative or higher version is no version 0.
func readShape(der []byte) (s shape, err error) {
	var request, info, attributes cryptobyte.String
	var version int64
	var hasAttributes bool
	in := cryptobyte.String(der)
	if !in.ReadASN1(&request, cbasn1.SEQUENCE) || !request.ReadASN1(&info, cbasn1.SEQUENCE) || !info.ReadASN1Integer(&version) || version != 0 ||
		!info.SkipASN1(cbasn1.SEQUENCE) || !info.SkipASN1(cbasn1.SEQUENCE) ||
		!info.ReadOptionalASN1(&attributes, &hasAttributes, cbasn1.Tag(0).ContextSpecific().Constructed()) || !info.Empty() ||
		!request.SkipASN1(cbasn1.SEQUENCE) || !request.SkipASN1(cbasn1.BIT_STRING) || !request.Empty() {
		return s, errShape
	}
	for !attributes.Empty() {
		var attribute, values, list cryptobyte.String
		var id asn1.ObjectIdentifier
		if !attributes.ReadASN1(&attribute, cbasn1.SEQUENCE) || !attribute.ReadASN1ObjectIdentifier(&id) ||
			!attribute.ReadASN1(&values, cbasn1.SET) || !attribute.Empty() {
			return s, errShape
		}
		s.attributes = append(s.attributes, id)
		if !id.Equal(oidExtensionRequest) {
			continue
		}
		if !values.ReadASN1(&list, cbasn1.SEQUENCE) || !values.Empty() {
			return s, errShape
		}
		for !list.Empty() {
			if err := s.extension(&list); err != nil {
				return s, err
			}
		}
	}
	return s, nil
}

func (s *shape) extension(list *cryptobyte.String) error {
	var ext, value cryptobyte.String
	var id asn1.ObjectIdentifier
	if !list.ReadASN1(&ext, cbasn1.SEQUENCE) || !ext.ReadASN1ObjectIdentifier(&id) || !ext.SkipOptionalASN1(cbasn1.BOOLEAN) ||
		!ext.ReadASN1(&value, cbasn1.OCTET_STRING) || !ext.Empty() {
		return errShape
	}
	s.extensions = append(s.extensions, id)
	if id.Equal(oidSubjectAltName) {
		names, err := generalNames(value)
		s.san = names
		return err
	}
	return nil
}

// generalNames reads the value of a subject alternative name extension.
func generalNames(value []byte) (names []generalName, err error) {
	var list cryptobyte.String
	in := cryptobyte.String(value)
	if !in.ReadASN1(&list, cbasn1.SEQUENCE) || !in.Empty() || list.Empty() {
		return nil, errors.New("the subject alternative name cannot be read")
	}
	for !list.Empty() {
		var body cryptobyte.String
		var tag cbasn1.Tag
		if !list.ReadAnyASN1(&body, &tag) {
			return nil, errors.New("the subject alternative name cannot be read")
		}
		names = append(names, generalName{tag, string(body)})
	}
	return names, nil
}

// twice returns the first id that occurs a second time.
func twice(ids []asn1.ObjectIdentifier) (asn1.ObjectIdentifier, bool) {
	seen := map[string]bool{}
	for _, id := range ids {
		if seen[id.String()] {
			return id, true
		}
		seen[id.String()] = true
	}
	return nil, false
}
