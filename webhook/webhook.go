// SPDX-License-Identifier: AGPL-3.0-only

// Package webhook sends requests to addresses that tenants name, in the form of Standard Webhooks
// (https://www.standardwebhooks.com): headers webhook-id, webhook-timestamp and webhook-signature over the body.
//
// Invariants:
//   - Unless the administrator of the host allows it, nothing inside is reached: no loopback, private, link-local or
//     shared address, also not by a name that changes its mind between the check and the call.
//   - No proxy and no redirect: what is called is what was named.
//   - https only; http is for this machine.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// dialTime is how long a connection and its TLS handshake may take each.
const dialTime = 3 * time.Second

// maxURL bounds an address, in bytes.
const maxURL = 500

// Secret is the key that a receiver checks signatures with.
type Secret []byte

// NewSecret makes a secret of 32 random bytes.
func NewSecret() Secret {
	s := make(Secret, 32)
	rand.Read(s) // never fails since Go 1.24
	return s
}

// Text is how Standard Webhooks spell a secret: "whsec_" and base64. It is shown once.
func (s Secret) Text() string { return "whsec_" + base64.StdEncoding.EncodeToString(s) }

// Sign signs as Standard Webhooks have it: "v1," and base64 of HMAC-SHA256 over id, timestamp (seconds) and body.
func (s Secret) Sign(id, at string, body []byte) string {
	m := hmac.New(sha256.New, s)
	fmt.Fprintf(m, "%s.%s.", id, at)
	m.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(m.Sum(nil))
}

// Request makes the signed POST of a JSON body. id names the message: a receiver that sees it twice takes it once.
func (s Secret) Request(ctx context.Context, address, id string, at time.Time, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	seconds := strconv.FormatInt(at.Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "OpenThings")
	req.Header.Set("webhook-id", id)
	req.Header.Set("webhook-timestamp", seconds)
	req.Header.Set("webhook-signature", s.Sign(id, seconds, body))
	return req, nil
}

// Dialer reaches such addresses and no others, whatever their names resolve to. private lets it reach the inside.
func Dialer(private bool) *net.Dialer {
	return &net.Dialer{Timeout: dialTime, Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if !private && !outside(ap.Addr()) {
			return fmt.Errorf("%s is an address of the inside", ap.Addr())
		}
		return nil
	}}
}

// Client makes a client for such addresses.
func Client(private bool) *http.Client {
	return &http.Client{
		Transport:     &http.Transport{Proxy: nil, DialContext: Dialer(private).DialContext, TLSHandshakeTimeout: dialTime, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 16 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Check refuses an address that must not be called: kind invalid for what is no https address, kind forbidden with rule
// for one of the inside.
func Check(address, rule string, private bool) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || len(address) > maxURL {
		return problem.Invalid("The hook needs an address such as https://erp.example/allow.").At("url")
	}
	ip, notIP := netip.ParseAddr(u.Hostname())
	if u.Scheme != "https" && !(u.Scheme == "http" && (u.Hostname() == "localhost" || notIP == nil && ip.IsLoopback())) {
		return problem.Invalid("A hook is called over https; http is for this machine only.").At("url")
	}
	return CheckHost(u.Hostname(), rule, private)
}

// CheckHost refuses the name or number of a host of the inside: kind forbidden with rule.
func CheckHost(host, rule string, private bool) error {
	ip, notIP := netip.ParseAddr(host)
	if !private && (host == "localhost" || notIP == nil && !outside(ip)) {
		return problem.Forbidden(rule, "The hook's address is one of the inside.").At("url").
			Hint("The administrator of the host may allow it: openthings up --private-hooks.")
	}
	return nil
}

// shared are the networks that netip does not call private and that lead inside all the same (RFC 6890).
var shared = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("::/96"), netip.MustParsePrefix("2001::/32"), netip.MustParsePrefix("fec0::/10")}

// outside says whether an address is one of the public Internet.
func outside(a netip.Addr) bool {
	a = a.Unmap()
	for _, p := range shared {
		if p.Contains(a) {
			return false
		}
	}
	return a.IsGlobalUnicast() && !a.IsPrivate() && !a.IsLoopback() && !a.IsLinkLocalUnicast()
}
