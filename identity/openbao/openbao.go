// SPDX-License-Identifier: AGPL-3.0-only

package openbao

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openbao/openbao/api/v2"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
)

// Config says where the engine is. Address and one of TokenFile and Token are mandatory.
type Config struct {
	Address   string        // https://host:port; http on loopback only
	Mount     string        // of the PKI engine; empty: DefaultMount
	CA        string        // PEM file with the authority of the engine's TLS certificate; empty: the system's
	TokenFile string        // read at start, and again when the engine refuses what it said
	Token     string        // instead of TokenFile
	Store     bool          // let the engine keep what it signs
	Timeout   time.Duration // of one call; 0: 10 s
	Clock     clock.Clock   // nil: clock.System
	Log       *slog.Logger  // nil: none
}

// DefaultMount is where the engine is mounted unless Config says otherwise.
const DefaultMount = "openthings"

// Issuer implements identity.Issuer, Rotator, CRLSigner and Reconciler. Its methods are safe for concurrent use.
type Issuer struct {
	cfg    Config
	config *api.Config
	client *api.Client // without a token
	token  token

	mu          sync.Mutex  // guards what follows
	shows       *api.Client // with the token of its last call
	authorities map[string]*x509.Certificate
	roles       map[string]bool // that this process has written and signed through
}

var (
	_ identity.Issuer     = (*Issuer)(nil)
	_ identity.Rotator    = (*Issuer)(nil)
	_ identity.CRLSigner  = (*Issuer)(nil)
	_ identity.Reconciler = (*Issuer)(nil)
)

// New reads the token and makes the client. It does not speak to the engine, which may be away now.
func New(cfg Config) (*Issuer, error) {
	if cfg.Mount == "" {
		cfg.Mount = DefaultMount
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := checkAddress(cfg.Address); err != nil {
		return nil, err
	}
	if strings.Trim(cfg.Mount, "/") != cfg.Mount {
		return nil, problem.Invalid("The mount of the PKI engine %q begins or ends with a slash.", cfg.Mount)
	}
	c := api.NewConfig() // reads no environment: a BAO_… of the machine's other programs is not meant for us
	c.Address, c.Timeout, c.MaxRetries = cfg.Address, cfg.Timeout, 0
	c.HttpClient.Transport.(*http.Transport).MaxIdleConnsPerHost = 32
	if cfg.CA != "" {
		if err := c.ConfigureTLS(&api.TLSConfig{CACert: cfg.CA}); err != nil {
			return nil, problem.Invalid("The TLS authority of the PKI engine cannot be read.").Because(err)
		}
	}
	c.HttpClient.Transport = bounded{c.HttpClient.Transport}
	client, err := api.NewClient(c)
	if err != nil {
		return nil, problem.Invalid("The address of the PKI engine is no good.").Because(err)
	}
	is := &Issuer{cfg: cfg, config: c, client: client, token: token{file: cfg.TokenFile, value: cfg.Token},
		authorities: map[string]*x509.Certificate{}, roles: map[string]bool{}}
	return is, is.token.load()
}

// checkAddress refuses a link without TLS, unless it stays on this machine.
func checkAddress(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "":
		return problem.Invalid("The address of the PKI engine %q is no URL.", address)
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && (u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback()):
		return nil
	}
	return problem.Forbidden("issuer.tls", "The PKI engine at %s is beyond loopback and the address is not https.", u.Host)
}

// Sign implements identity.Issuer.
func (is *Issuer) Sign(ctx context.Context, r identity.SignRequest) ([]byte, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	signer, err := is.authority(ctx, r.Authority)
	if err != nil {
		return nil, err
	}
	role, err := is.role(ctx, r)
	if err != nil {
		return nil, err
	}
	t := r.Template
	body := map[string]any{
		"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: r.CSR})), "format": "der",
		"common_name": t.Subject.CommonName, "exclude_cn_from_sans": true, "not_after": t.NotAfter.UTC().Format(time.RFC3339),
	}
	if t.Subject.SerialNumber != "" {
		body["serial_number"] = t.Subject.SerialNumber
	}
	if len(t.DNSNames) > 0 {
		body["alt_names"] = strings.Join(t.DNSNames, ",")
	}
	if len(t.IPAddresses) > 0 {
		body["ip_sans"] = strings.Join(texts(t.IPAddresses), ",")
	}
	if len(t.URIs) > 0 {
		body["uri_sans"] = strings.Join(texts(t.URIs), ",")
	}
	s, err := is.write(ctx, "issuer/"+r.Authority+"/sign/"+role, body)
	if is.know(role, err == nil); err != nil {
		return nil, err
	}
	der, err := base64.StdEncoding.DecodeString(text(s, "certificate"))
	if err != nil {
		return nil, fmt.Errorf("openbao: the certificate in the answer: %w", err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("openbao: the certificate in the answer: %w", err)
	}
	if err := sameAs(t, r, c, signer); err != nil {
		err = fmt.Errorf("openbao: role %s signed something else than was asked: %w", role, err)
		return nil, errors.Join(err, is.Revoke(ctx, r.Authority, c.SerialNumber, is.cfg.Clock.Now()))
	}
	return der, nil
}

// extensions are those that a certificate of ours may have; the engine adds the last two if its mount is configured so.
var extensions = []string{"2.5.29.14", "2.5.29.35", "2.5.29.15", "2.5.29.37", "2.5.29.19", "2.5.29.17", "2.5.29.31", "1.3.6.1.5.5.7.1.1"}

// sameAs compares what was signed with what was decided.
func sameAs(t *x509.Certificate, r identity.SignRequest, c, signer *x509.Certificate) error {
	subject, err := asn1.Marshal(t.Subject.ToRDNSequence())
	if err != nil {
		return err
	}
	spki, err := x509.MarshalPKIXPublicKey(r.Key)
	if err != nil {
		return err
	}
	for _, e := range c.Extensions {
		if !slices.Contains(extensions, e.Id.String()) {
			return fmt.Errorf("the extension %s was added", e.Id)
		}
	}
	switch {
	case !bytes.Equal(c.RawSubject, subject):
		return fmt.Errorf("the subject is %q, not %q", c.Subject, t.Subject)
	case !bytes.Equal(c.RawSubjectPublicKeyInfo, spki):
		return errors.New("the key is another one")
	case !c.NotAfter.Equal(t.NotAfter):
		return fmt.Errorf("it ends on %s, not on %s", c.NotAfter, t.NotAfter)
	case c.KeyUsage != t.KeyUsage, !slices.Equal(c.ExtKeyUsage, t.ExtKeyUsage), len(c.UnknownExtKeyUsage) > 0:
		return fmt.Errorf("it is for %v %v %v, not for %v %v", c.KeyUsage, c.ExtKeyUsage, c.UnknownExtKeyUsage, t.KeyUsage, t.ExtKeyUsage)
	case c.IsCA, !c.BasicConstraintsValid:
		return errors.New("its basic constraints do not say that it is no authority")
	case !sameSet(c.DNSNames, t.DNSNames), !sameSet(texts(c.IPAddresses), texts(t.IPAddresses)), !sameSet(texts(c.URIs), texts(t.URIs)), len(c.EmailAddresses) > 0:
		return fmt.Errorf("its alternative names are %v %v %v %v", c.DNSNames, c.IPAddresses, c.URIs, c.EmailAddresses)
	}
	return c.CheckSignatureFrom(signer)
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func texts[T fmt.Stringer](in []T) []string {
	out := make([]string, len(in))
	for i, v := range in {
		out[i] = v.String()
	}
	return out
}

// Revoke implements identity.Issuer. A certificate that the engine has not stored cannot be revoked there, and need not:
// the register says so, and the revocation list is signed from the register.
func (is *Issuer) Revoke(ctx context.Context, _ string, serial *big.Int, _ time.Time) error {
	_, err := is.write(ctx, "revoke", map[string]any{"serial_number": serialText(serial)})
	if answered(err, http.StatusBadRequest, "not found") || answered(err, http.StatusBadRequest, "already expired") {
		return nil
	}
	return err
}

// Health implements identity.Issuer: the engine is open, and takes our token.
func (is *Issuer) Health(ctx context.Context) error {
	h, err := is.client.Sys().HealthWithContext(ctx)
	switch {
	case err != nil:
		return is.failed("health", err)
	case !h.Initialized || h.Sealed:
		return problem.Unavailable("The PKI engine is sealed.").Hint("An operator unseals it.")
	}
	_, err = is.call(ctx, func(c *api.Client) (*api.Secret, error) {
		return c.Logical().ReadWithContext(ctx, "auth/token/lookup-self")
	})
	return err
}

// serialText is a serial number as the engine writes it: colons between bytes.
func serialText(n *big.Int) string {
	h := hex.EncodeToString(n.Bytes())
	var parts []string
	for ; h != ""; h = h[2:] {
		parts = append(parts, h[:2])
	}
	return strings.Join(parts, ":")
}

func parseSerial(s string) (*big.Int, bool) {
	return new(big.Int).SetString(strings.NewReplacer(":", "", "-", "").Replace(s), 16)
}
