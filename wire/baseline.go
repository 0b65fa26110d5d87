// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// What a device can say of its root of trust, from the strongest to none.
const (
	RootTPM     = "tpm2"
	RootElement = "secure-element"
	RootTEE     = "tee"
	RootNone    = "none"
)

// What a device can say of its secure boot.
const (
	BootOn          = "on"          // only signed software starts
	BootOff         = "off"         // it could, and does not
	BootUnsupported = "unsupported" // the hardware has none
)

// What a device can say of a debug interface.
const (
	DebugClosed = "closed" // fused, locked or not fitted
	DebugOpen   = "open"
)

// MaxBaselineReport bounds the body of POST /d/1/baseline, in bytes.
const MaxBaselineReport = 64 << 10

// BaselineReport is what a device says of how it is set up; on POST /d/1/baseline, with the certificate of the device.
// What a device did not look at it leaves out: absent is not the same as empty, and never counts as fulfilled.
type BaselineReport struct {
	At          int64             `json:"at,omitempty"`    // by the device's clock, ms since 1970 UTC; only ever shown
	Boot        uint64            `json:"boot,omitempty"`  // this start's number
	Agent       string            `json:"agent,omitempty"` // version of what looked
	Root        string            `json:"root,omitempty"`  // tpm2, secure-element, tee, none
	SecureBoot  string            `json:"secure_boot,omitempty"`
	Ports       *[]string         `json:"ports,omitempty"`               // on which something listens beyond loopback: "tcp/443"
	Debug       map[string]string `json:"debug,omitempty"`               // by interface, such as jtag, uart, adb: closed or open
	Credentials *[]string         `json:"default_credentials,omitempty"` // accounts that still have a factory password; empty: looked, none
	TLS         string            `json:"tls,omitempty"`                 // least version that the device speaks: "1.2", "1.3"
	Privileges  map[string]bool   `json:"least_privilege,omitempty"`     // by item, such as agent-unprivileged: whether it holds
}

// BaselineAnswer is what the platform says to a report.
type BaselineAnswer struct {
	OK      bool     `json:"ok"`
	Version int64    `json:"version,omitempty"` // of the product's baseline; 0: nothing is demanded
	Failed  []string `json:"failed,omitempty"`  // one sentence for each item
}

var (
	portPattern = regexp.MustCompile(`^(tcp|udp)/([1-9][0-9]{0,4})$`)
	itemPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)
)

// maxItems bounds each list of a report.
const maxItems = 256

// CheckPort refuses what does not name a port as "tcp/443".
func CheckPort(s string) error {
	m := portPattern.FindStringSubmatch(s)
	if m != nil {
		if n, err := strconv.Atoi(m[2]); err == nil && n < 1<<16 {
			return nil
		}
	}
	return fmt.Errorf("%q is no port such as tcp/443", s)
}

// CheckItem refuses what cannot name a debug interface or an item of least privilege.
func CheckItem(s string) error {
	if !itemPattern.MatchString(s) {
		return fmt.Errorf("%q is no name of 1 to 40 of a-z, 0-9 and -", s)
	}
	return nil
}

// ParseBaselineReport reads a report and refuses what has no meaning, so that nothing odd is kept or shown.
func ParseBaselineReport(b []byte) (BaselineReport, error) {
	var r BaselineReport
	if len(b) > MaxBaselineReport {
		return r, fmt.Errorf("a report has at most %d bytes", MaxBaselineReport)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return BaselineReport{}, err
	}
	return r, r.check()
}

func (r BaselineReport) check() error {
	oneOf := func(what, v string, known ...string) error {
		if v != "" && !slices.Contains(known, v) {
			return fmt.Errorf("%s is one of %s, not %q", what, strings.Join(known, ", "), v)
		}
		return nil
	}
	for _, err := range []error{
		oneOf("root", r.Root, RootTPM, RootElement, RootTEE, RootNone),
		oneOf("secure_boot", r.SecureBoot, BootOn, BootOff, BootUnsupported),
		oneOf("tls", r.TLS, "1.0", "1.1", "1.2", "1.3"),
	} {
		if err != nil {
			return err
		}
	}
	if len(r.Debug) > maxItems || len(r.Privileges) > maxItems || r.Ports != nil && len(*r.Ports) > maxItems || r.Credentials != nil && len(*r.Credentials) > maxItems {
		return fmt.Errorf("a list of a report has at most %d entries", maxItems)
	}
	if len(r.Agent) > 64 {
		return fmt.Errorf("agent has at most 64 bytes")
	}
	if r.Ports != nil {
		for _, p := range *r.Ports {
			if err := CheckPort(p); err != nil {
				return err
			}
		}
	}
	for name, state := range r.Debug {
		if err := CheckItem(name); err != nil {
			return err
		}
		if err := oneOf("debug", state, DebugClosed, DebugOpen); err != nil || state == "" {
			return fmt.Errorf("debug interface %s is %s or %s, not %q", name, DebugClosed, DebugOpen, state)
		}
	}
	for name := range r.Privileges {
		if err := CheckItem(name); err != nil {
			return err
		}
	}
	if r.Credentials != nil {
		for _, a := range *r.Credentials {
			if a == "" || len(a) > 64 || strings.ContainsFunc(a, func(c rune) bool { return c < ' ' || c == 0x7f }) {
				return fmt.Errorf("an account has 1 to 64 printable bytes")
			}
		}
	}
	return nil
}
