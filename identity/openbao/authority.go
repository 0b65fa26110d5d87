// SPDX-License-Identifier: AGPL-3.0-only

package openbao

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openbao/openbao/api/v2"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
)

var idPattern = regexp.MustCompile(`^([a-z]+)-([1-9][0-9]{0,8})$`)

// Authorities implements identity.Issuer. Issuers and keys of other names in the same mount are not ours. The parent is
// left to who knows the roots.
func (is *Issuer) Authorities(ctx context.Context) ([]identity.Held, error) {
	issuers, err := is.named(ctx, "issuers", "issuer_name")
	if err != nil {
		return nil, err
	}
	keys, err := is.named(ctx, "keys", "key_name")
	if err != nil {
		return nil, err
	}
	var out []identity.Held
	for id := range issuers {
		h, ok := held(id)
		if !ok {
			continue
		}
		c, err := is.certificate(ctx, id)
		if err != nil {
			return nil, err
		}
		h.Cert, h.Algorithm = c.Raw, identity.AlgorithmOf(c.PublicKey)
		out = append(out, h)
	}
	for id := range keys {
		h, ok := held(id)
		if !ok || issuers[id] != "" {
			continue
		}
		csr, err := is.request(ctx, id, pkix.Name{CommonName: id})
		if problem.Is(err, problem.KindUnavailable) && answered(err, http.StatusForbidden, "") {
			continue // a request that this token may not see is for who rotates
		}
		if err != nil {
			return nil, err
		}
		h.Algorithm = identity.AlgorithmOf(csr.PublicKey)
		out = append(out, h)
	}
	return out, nil
}

// held is what the name of an issuer or key says.
func held(id string) (identity.Held, bool) {
	m := idPattern.FindStringSubmatch(id)
	if m == nil {
		return identity.Held{}, false
	}
	n, _ := strconv.ParseInt(m[2], 10, 64) // the pattern allows nothing else
	return identity.Held{ID: id, Role: identity.Role(m[1]), Generation: n, Backend: "openbao", Protection: "backend"}, true
}

// named lists issuers or keys: their references by name.
func (is *Issuer) named(ctx context.Context, path, member string) (map[string]string, error) {
	s, err := is.list(ctx, path)
	if err != nil || s == nil {
		return nil, err
	}
	out := map[string]string{}
	info, _ := s.Data["key_info"].(map[string]any)
	for ref, v := range info {
		about, _ := v.(map[string]any)
		if name, _ := about[member].(string); name != "" {
			out[name] = ref
		}
	}
	return out, nil
}

// authority is the certificate of an authority, asked for once.
func (is *Issuer) authority(ctx context.Context, id string) (*x509.Certificate, error) {
	is.mu.Lock()
	c := is.authorities[id]
	is.mu.Unlock()
	if c != nil {
		return c, nil
	}
	return is.certificate(ctx, id)
}

// certificate asks for the certificate of an issuer by name or reference.
func (is *Issuer) certificate(ctx context.Context, ref string) (*x509.Certificate, error) {
	s, err := is.read(ctx, "issuer/"+ref+"/json")
	if err != nil {
		return nil, err
	}
	b, _ := pem.Decode([]byte(text(s, "certificate")))
	if b == nil {
		return nil, fmt.Errorf("openbao: there is no authority %q", ref)
	}
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("openbao: the certificate of %s: %w", ref, err)
	}
	if idPattern.MatchString(ref) {
		is.mu.Lock()
		is.authorities[ref] = c
		is.mu.Unlock()
	}
	return c, nil
}

// keyBits are the keys that the engine makes for authorities, all on NIST curves: of an Ed25519 key it signs one request
// and cannot repeat it (Vault 1.13).
var keyBits = map[identity.Algorithm]string{identity.AlgP256: "256", identity.AlgP384: "384"}

// Generate implements identity.Rotator. Of the name the engine takes organization, organizational unit and common name.
func (is *Issuer) Generate(ctx context.Context, id string, r identity.Role, alg identity.Algorithm, name pkix.Name) ([]byte, error) {
	h, ok := held(id)
	if !ok || h.Role != r {
		return nil, fmt.Errorf("openbao: %q does not name a %s authority", id, r)
	}
	bits, ok := keyBits[alg]
	if !ok {
		return nil, fmt.Errorf("openbao: the engine makes no authority with the algorithm %q", alg)
	}
	issuers, err := is.named(ctx, "issuers", "issuer_name")
	if err != nil {
		return nil, err
	}
	if issuers[id] != "" {
		return nil, fmt.Errorf("openbao: %s exists already", id)
	}
	keys, err := is.named(ctx, "keys", "key_name")
	if err != nil {
		return nil, err
	}
	if keys[id] == "" {
		_, err := is.write(ctx, "issuers/generate/intermediate/internal", map[string]any{
			"common_name": name.CommonName, "key_name": id, "key_type": "ec", "key_bits": bits, "exclude_cn_from_sans": true})
		if err != nil {
			return nil, err
		}
	}
	csr, err := is.request(ctx, id, name)
	if err != nil {
		return nil, err
	}
	if have := identity.AlgorithmOf(csr.PublicKey); have != alg {
		return nil, fmt.Errorf("openbao: the key of %s is there already, for %s", id, have)
	}
	return csr.Raw, nil
}

// request lets the engine sign a request over the key of that name.
func (is *Issuer) request(ctx context.Context, id string, name pkix.Name) (*x509.CertificateRequest, error) {
	s, err := is.write(ctx, "issuers/generate/intermediate/existing", map[string]any{
		"common_name": name.CommonName, "organization": strings.Join(name.Organization, ","), "ou": strings.Join(name.OrganizationalUnit, ","), "key_ref": id, "exclude_cn_from_sans": true, "format": "der"})
	if err != nil {
		return nil, err
	}
	der, err := base64.StdEncoding.DecodeString(text(s, "csr"))
	if err != nil {
		return nil, fmt.Errorf("openbao: the request of %s: %w", id, err)
	}
	return x509.ParseCertificateRequest(der)
}

// Install implements identity.Rotator. The name is given last: what was imported and not named is not ours yet.
func (is *Issuer) Install(ctx context.Context, id string, der []byte) error {
	h, ok := held(id)
	if !ok {
		return fmt.Errorf("openbao: %q does not name an authority", id)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	if !cert.IsCA {
		return fmt.Errorf("openbao: the certificate of %s is not an authority's", id)
	}
	issuers, err := is.named(ctx, "issuers", "issuer_name")
	if err != nil {
		return err
	}
	if issuers[id] != "" {
		have, err := is.certificate(ctx, id)
		if err == nil && !bytes.Equal(have.Raw, der) {
			err = fmt.Errorf("openbao: %s has another certificate already", id)
		}
		return err
	}
	keys, err := is.named(ctx, "keys", "key_name")
	if err != nil {
		return err
	}
	s, err := is.write(ctx, "issuers/import/cert", map[string]any{"pem_bundle": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))})
	if err != nil {
		return err
	}
	mapping, _ := s.Data["mapping"].(map[string]any)
	for ref, key := range mapping {
		if key != keys[id] || keys[id] == "" {
			err := fmt.Errorf("openbao: the certificate is not over the key of %s", id)
			return errors.Join(err, is.forget(ctx, ref))
		}
		beyond := "err" // what a certificate may do that would outlive the authority
		if h.Role == identity.Factory {
			beyond = "permit" // an IDevID has no end
		}
		_, err := is.write(ctx, "issuer/"+ref, map[string]any{"issuer_name": id, "leaf_not_after_behavior": beyond})
		return err
	}
	return fmt.Errorf("openbao: the certificate of %s was not imported", id)
}

// forget removes an issuer that should not have been imported.
func (is *Issuer) forget(ctx context.Context, ref string) error {
	_, err := is.call(ctx, func(c *api.Client) (*api.Secret, error) {
		return c.Logical().DeleteWithContext(ctx, is.cfg.Mount+"/issuer/"+ref)
	})
	return err
}

var (
	oidDelta  = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidReason = asn1.ObjectIdentifier{2, 5, 29, 21}
)

// SignCRL implements identity.CRLSigner. thisUpdate is the engine's clock; nextUpdate lies as far after it as asked. An
// engine without the endpoint (Vault before 1.13) is errors.ErrUnsupported.
func (is *Issuer) SignCRL(ctx context.Context, id string, list *x509.RevocationList) ([]byte, error) {
	signer, err := is.authority(ctx, id)
	if err != nil {
		return nil, err
	}
	body := map[string]any{"crl_number": list.Number.String(), "format": "der", "next_update": list.NextUpdate.Sub(list.ThisUpdate).String()}
	if body["extensions"], err = crlExtensions(list, body); err != nil {
		return nil, err
	}
	if body["revoked_certs"], err = crlEntries(list); err != nil {
		return nil, err
	}
	s, err := is.write(ctx, "issuer/"+id+"/sign-revocation-list", body)
	if answered(err, http.StatusNotFound, "") {
		return nil, fmt.Errorf("openbao: this engine signs no revocation lists for others: %w", errors.ErrUnsupported)
	}
	if err != nil {
		return nil, err
	}
	der, err := base64.StdEncoding.DecodeString(text(s, "crl"))
	if err != nil {
		return nil, fmt.Errorf("openbao: the revocation list in the answer: %w", err)
	}
	signed, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("openbao: the revocation list in the answer: %w", err)
	}
	if signed.Number.Cmp(list.Number) != 0 || len(signed.RevokedCertificateEntries) != len(list.RevokedCertificateEntries) {
		return nil, fmt.Errorf("openbao: list %s of %d entries was signed, not %s of %d", signed.Number, len(signed.RevokedCertificateEntries), list.Number, len(list.RevokedCertificateEntries))
	}
	return der, signed.CheckSignatureFrom(signer)
}

// crlExtensions are the list's further extensions; the delta indicator is a parameter of its own.
func crlExtensions(list *x509.RevocationList, body map[string]any) ([]any, error) {
	out := []any{}
	for _, e := range list.ExtraExtensions {
		if !e.Id.Equal(oidDelta) {
			out = append(out, extension(e))
			continue
		}
		var number *big.Int
		if _, err := asn1.Unmarshal(e.Value, &number); err != nil {
			return nil, fmt.Errorf("openbao: the delta indicator: %w", err)
		}
		body["delta_crl_base_number"] = number.String()
	}
	return out, nil
}

func crlEntries(list *x509.RevocationList) ([]any, error) {
	out := make([]any, 0, len(list.RevokedCertificateEntries))
	for _, e := range list.RevokedCertificateEntries {
		extensions := []any{}
		for _, x := range e.ExtraExtensions {
			extensions = append(extensions, extension(x))
		}
		if e.ReasonCode != 0 {
			code, err := asn1.Marshal(asn1.Enumerated(e.ReasonCode))
			if err != nil {
				return nil, err
			}
			extensions = append(extensions, extension(pkix.Extension{Id: oidReason, Value: code}))
		}
		out = append(out, map[string]any{"serial_number": serialText(e.SerialNumber), "revocation_time": e.RevocationTime.UTC().Format(time.RFC3339), "extensions": extensions})
	}
	return out, nil
}

func extension(e pkix.Extension) map[string]any {
	return map[string]any{"id": e.Id.String(), "critical": e.Critical, "value": base64.StdEncoding.EncodeToString(e.Value)}
}

// keptPage is how many serial numbers are asked for, and handed on, at a time.
const keptPage = 1000

// Kept implements identity.Reconciler: what the engine has stored, about 60 bytes for each. OpenBao gives it in pages. Vault
// knows none and gives all in one answer, which is refused where it is longer than maxAnswer.
func (is *Issuer) Kept(ctx context.Context, each func([]*big.Int) error) error {
	for after := ""; ; {
		s, err := is.call(ctx, func(c *api.Client) (*api.Secret, error) {
			return c.Logical().ListPageWithContext(ctx, is.cfg.Mount+"/certs", after, keptPage)
		})
		if errors.Is(err, errLong) {
			return problem.TooLarge("The PKI engine at %s keeps more certificates than it can list: its answer has more than %d MiB.", is.cfg.Address, maxAnswer>>20).
				Hint("Let it tidy up what has ended. OpenBao lists in pages; or run without --bao-store, the register keeps every certificate.").Because(err)
		}
		if err != nil || s == nil {
			return err
		}
		keys, _ := s.Data["keys"].([]any)
		if len(keys) == 0 {
			return nil
		}
		page := make([]*big.Int, len(keys))
		for i, k := range keys {
			name, _ := k.(string)
			n, ok := parseSerial(name)
			if !ok {
				return fmt.Errorf("openbao: it keeps a certificate %q", name)
			}
			page[i] = n
		}
		first, last := stored(keys[0]), stored(keys[len(keys)-1])
		if first <= after { // it knows no pages: this is the first answer once more
			return nil
		}
		for some := range slices.Chunk(page, keptPage) {
			if err := each(some); err != nil {
				return err
			}
		}
		if len(keys) != keptPage {
			return nil
		}
		after = last
	}
}

// stored is a serial number as it stands in the engine's storage, whose order is that of its pages: with hyphens, and not
// with the colons that it shows.
func stored(key any) string {
	name, _ := key.(string)
	return strings.ReplaceAll(name, ":", "-")
}

// Certificate implements identity.Reconciler.
func (is *Issuer) Certificate(ctx context.Context, serial *big.Int) (der []byte, revoked bool, err error) {
	s, err := is.read(ctx, "cert/"+serialText(serial))
	if err != nil {
		return nil, false, err
	}
	b, _ := pem.Decode([]byte(text(s, "certificate")))
	if b == nil {
		return nil, false, fmt.Errorf("openbao: it does not give certificate %s", serialText(serial))
	}
	return b.Bytes, number(s, "revocation_time") > 0, nil
}
