// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// Contact is where vulnerabilities are reported to a manufacturer; it becomes security.txt (RFC 9116).
type Contact struct {
	Hosts            []string `json:"hosts,omitempty" maxItems:"16" doc:"Names under which this platform answers for the manufacturer; none: any, while only one manufacturer named none"`
	Contacts         []string `json:"contacts" minItems:"1" maxItems:"8" doc:"https:, mailto: or tel: addresses, best first; one must reach a human. The form of this platform follows them"`
	Policy           string   `json:"policy,omitempty" doc:"https: address of the disclosure policy; default: the page of this platform"`
	Encryption       string   `json:"encryption,omitempty" doc:"https:, dns: or openpgp4fpr: address of a key; default: the OpenPGP and age keys that this platform keeps"`
	Acknowledgments  string   `json:"acknowledgments,omitempty" doc:"https: address of the thanks to finders; default: the page of this platform"`
	CSAF             string   `json:"csaf,omitempty" doc:"https: address of the CSAF provider metadata; default: this platform's, once an advisory is published"`
	PreferredLocales []string `json:"languages,omitempty" maxItems:"16" doc:"Language tags, such as en"`

	tenant string // whose it is
}

// expiresAfter keeps the file well under the year that RFC 9116 section 2.5.5 recommends. What is served is signed anew
// every renewEvery; expiringAhead before a file ends that was not replaced, people are told.
const (
	expiresAfter  = 180 * day
	renewEvery    = 7 * day
	expiringAhead = 30 * day
)

var (
	languageTag = regexp.MustCompile(`^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$`)
	hostName    = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
)

// Check refuses what RFC 9116 does not allow, line breaks above all.
func (c Contact) Check() error {
	for i, h := range c.Hosts {
		if !hostName.MatchString(h) || slices.Contains(c.Hosts[:i], h) {
			return problem.Invalid("%q is not a host name in lower case without a port, or stands twice.", h).At("hosts")
		}
	}
	if len(c.Contacts) == 0 || len(c.Contacts) > 8 {
		return problem.Invalid("Name one to eight contacts.").At("contacts")
	}
	for _, v := range c.Contacts {
		if err := address(v, "contacts", "https", "mailto", "tel"); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		at, value string
		schemes   []string
	}{
		{"policy", c.Policy, []string{"https"}},
		{"encryption", c.Encryption, []string{"https", "dns", "openpgp4fpr"}},
		{"acknowledgments", c.Acknowledgments, []string{"https"}},
		{"csaf", c.CSAF, []string{"https"}},
	} {
		if f.value != "" {
			if err := address(f.value, f.at, f.schemes...); err != nil {
				return err
			}
		}
	}
	for _, l := range c.PreferredLocales {
		if len(l) > 35 || !languageTag.MatchString(l) {
			return problem.Invalid("%q is not a language tag.", l).At("languages")
		}
	}
	return nil
}

func address(v, at string, schemes ...string) error {
	u, err := url.Parse(v)
	if err == nil && len(v) <= 500 && !strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		for _, s := range schemes {
			if u.Scheme == s && u.Host+u.Opaque != "" {
				return nil
			}
		}
	}
	return problem.Invalid("%q is not an address of the kind %s.", v, strings.Join(schemes, ", ")).At(at)
}

// Text is the file as RFC 9116 writes it: for these places, until expires.
func (c Contact) Text(canonical, encryption []string, expires time.Time) string {
	var b strings.Builder
	line := func(name string, values ...string) {
		for _, v := range values {
			if v != "" {
				fmt.Fprintf(&b, "%s: %s\n", name, v)
			}
		}
	}
	line("Contact", c.Contacts...)
	line("Expires", expires.UTC().Format(time.RFC3339))
	line("Canonical", canonical...)
	line("Policy", c.Policy)
	line("Encryption", encryption...)
	line("Acknowledgments", c.Acknowledgments)
	line("CSAF", c.CSAF)
	line("Preferred-Languages", strings.Join(c.PreferredLocales, ", "))
	return b.String()
}
