// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"maps"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
)

// Mapping reads a device out of a certificate of birth. It is explicit: what it does not name is not looked at.
type Mapping struct {
	Serial    Source            `json:"serial" doc:"Where the serial number stands"`
	Revision  string            `json:"revision,omitempty" required:"false" doc:"Hardware revision of every device; empty: revisions says it"`
	Model     Source            `json:"model,omitzero" required:"false" doc:"Where the word stands that names the hardware revision"`
	Revisions map[string]string `json:"revisions,omitempty" required:"false" doc:"Hardware revision by that word"`
}

// Source is one field of a certificate and, if only a part of it counts, a pattern.
type Source struct {
	Field   string `json:"field,omitempty" required:"false" enum:",subject.serialNumber,subject.CN,subject.O,subject.OU,san.uri,san.dns,san.hardware-serial,san.hardware-type" doc:"Subject attribute or subject alternative name; hardware-* is of hardwareModuleName (RFC 4108)"`
	Pattern string `json:"pattern,omitempty" required:"false" maxLength:"200" doc:"Regular expression (RE2) that must match the whole field; its group, if it has one, is what counts"`
}

// Mapped is what a certificate of birth says about its device.
type Mapped struct {
	Serial   string `json:"serial"`
	Model    string `json:"model,omitempty"`
	Revision string `json:"revision"`
}

func (m Mapping) check() error {
	if err := m.Serial.check("mapping.serial"); err != nil {
		return err
	}
	if m.Serial.Field == "" {
		return problem.Invalid("Say where the serial number stands.").At("mapping.serial.field")
	}
	if (m.Revision == "") == (len(m.Revisions) == 0) || (m.Model.Field == "") != (len(m.Revisions) == 0) || len(m.Revisions) > 100 {
		return problem.Invalid("Either one hardware revision is named, or a field and the revision for each of its words.").At("mapping.revision")
	}
	return m.Model.check("mapping.model")
}

// revisions lists the hardware revisions that the mapping names.
func (m Mapping) revisions() []string {
	if m.Revision != "" {
		return []string{m.Revision}
	}
	return slices.Sorted(maps.Values(m.Revisions))
}

// Read reads a certificate, or refuses and says which field it missed.
func (m Mapping) Read(c *x509.Certificate) (out Mapped, err error) {
	if out.Serial, err = m.Serial.read(c); err != nil {
		return out, err
	}
	if err := identity.CheckSerial(out.Serial); err != nil {
		return out, problem.Forbidden(RuleCAMapping, "The field %s says %.80q, which is no serial number.", m.Serial.Field, out.Serial)
	}
	if out.Revision = m.Revision; out.Revision != "" {
		return out, nil
	}
	if out.Model, err = m.Model.read(c); err != nil {
		return out, err
	}
	if out.Revision = m.Revisions[out.Model]; out.Revision == "" {
		return out, problem.Forbidden(RuleCAMapping, "No hardware revision is mapped to %.80q, which the field %s says.", out.Model, m.Model.Field)
	}
	return out, nil
}

func (s Source) check(at string) error {
	if s.Pattern == "" {
		return nil
	}
	re, err := regexp.Compile(s.Pattern)
	if err != nil || re.NumSubexp() > 1 || len(s.Pattern) > 200 {
		return problem.Invalid("The pattern is no regular expression with at most one group.").At(at + ".pattern").Because(err)
	}
	return nil
}

func (s Source) read(c *x509.Certificate) (string, error) {
	values := fieldOf(c, s.Field)
	if s.Pattern != "" {
		re, err := regexp.Compile(`^(?:` + s.Pattern + `)$`)
		if err != nil {
			return "", err
		}
		var matched []string
		for _, v := range values {
			if m := re.FindStringSubmatch(v); m != nil {
				matched = append(matched, m[len(m)-1])
			}
		}
		values = matched
	}
	if len(values) != 1 || values[0] == "" { // of two, each could be meant
		return "", problem.Forbidden(RuleCAMapping, "The certificate has %d values for %s%s, and one is needed.", len(values), s.Field, strings.TrimSuffix(" matching "+s.Pattern, " matching "))
	}
	return values[0], nil
}

// fieldOf returns every value of a field.
func fieldOf(c *x509.Certificate, field string) (values []string) {
	attribute := func(id ...int) {
		for _, n := range c.Subject.Names {
			if v, ok := n.Value.(string); ok && n.Type.Equal(id) {
				values = append(values, v)
			}
		}
	}
	switch field {
	case "subject.serialNumber":
		attribute(2, 5, 4, 5)
	case "subject.CN":
		attribute(2, 5, 4, 3)
	case "subject.O":
		attribute(2, 5, 4, 10)
	case "subject.OU":
		attribute(2, 5, 4, 11)
	case "san.uri":
		for _, u := range c.URIs {
			values = append(values, u.String())
		}
	case "san.dns":
		values = slices.Clone(c.DNSNames)
	case "san.hardware-serial", "san.hardware-type":
		for _, h := range hardwareModules(c) {
			if field == "san.hardware-type" {
				values = append(values, h.hwType)
			} else {
				values = append(values, h.serial)
			}
		}
	}
	return values
}

type hardwareModule struct{ hwType, serial string }

var oidHardwareModuleName = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 4}

// hardwareModules reads the hardwareModuleNames of the subject alternative name (RFC 4108 5, IEEE 802.1AR 8.10.4). A
// serial number of printable characters is taken as such, any other as hex.
func hardwareModules(c *x509.Certificate) (out []hardwareModule) {
	for _, e := range c.Extensions {
		if !e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			continue
		}
		var names cryptobyte.String
		in := cryptobyte.String(e.Value)
		if !in.ReadASN1(&names, cbasn1.SEQUENCE) {
			return nil
		}
		for !names.Empty() {
			var body, value, module, serial cryptobyte.String
			var tag cbasn1.Tag
			var id, hwType asn1.ObjectIdentifier
			if !names.ReadAnyASN1(&body, &tag) {
				return nil
			}
			if tag != cbasn1.Tag(0).ContextSpecific().Constructed() || !body.ReadASN1ObjectIdentifier(&id) || !id.Equal(oidHardwareModuleName) {
				continue
			}
			if body.ReadASN1(&value, tag) && value.ReadASN1(&module, cbasn1.SEQUENCE) && module.ReadASN1ObjectIdentifier(&hwType) && module.ReadASN1(&serial, cbasn1.OCTET_STRING) {
				out = append(out, hardwareModule{hwType.String(), printable(serial)})
			}
		}
	}
	return out
}

func printable(b []byte) string {
	for _, c := range b {
		if c < 0x20 || c > 0x7e {
			return hex.EncodeToString(b)
		}
	}
	return string(b)
}
