// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire"
)

// Baseline is what each device of a product must fulfil before it is commissioned (secure by default: CRA annex I part
// I 2(b), ETSI EN 303 645). A member that is empty demands nothing; so does a product without a baseline.
type Baseline struct {
	SecureBoot   bool      `json:"secure_boot,omitempty" required:"false" doc:"Secure boot is on"`
	HardwareRoot bool      `json:"hardware_root,omitempty" required:"false" doc:"The root of trust is a TPM, a secure element or a TEE"`
	Ports        *[]string `json:"ports,omitempty" required:"false" maxItems:"256" doc:"The only ports on which something may listen, such as tcp/443; an empty list allows none"`
	Debug        []string  `json:"debug_closed,omitempty" required:"false" maxItems:"256" doc:"Debug interfaces that are closed, such as jtag, uart, adb"`
	NoDefaults   bool      `json:"no_default_credentials,omitempty" required:"false" doc:"No account has a factory password"`
	TLS          string    `json:"least_tls,omitempty" required:"false" enum:"1.2,1.3" doc:"Least TLS version that it speaks"`
	Privileges   []string  `json:"least_privilege,omitempty" required:"false" maxItems:"256" doc:"Items that hold, such as agent-unprivileged, root-read-only"`
}

// BaselineVersion is one state of a product's baseline. A later one replaces it, none is ever changed or removed.
type BaselineVersion struct {
	Baseline
	Product string    `json:"product"`
	Version int64     `json:"version"`
	Created time.Time `json:"created"`
	Actor   string    `json:"actor"`
	Note    string    `json:"note" doc:"The document under the platform's signature (C2SP signed note, the key of the audit log)"`
}

// Demands says whether there is anything to fulfil.
func (b Baseline) Demands() bool {
	return b.SecureBoot || b.HardwareRoot || b.Ports != nil || len(b.Debug) > 0 || b.NoDefaults || b.TLS != "" || len(b.Privileges) > 0
}

func (b Baseline) check() error {
	if b.Ports != nil {
		for _, p := range *b.Ports {
			if err := wire.CheckPort(p); err != nil {
				return problem.Invalid("%s", sentence(err.Error())).At("ports")
			}
		}
	}
	for at, list := range map[string][]string{"debug_closed": b.Debug, "least_privilege": b.Privileges} {
		for _, item := range list {
			if err := wire.CheckItem(item); err != nil {
				return problem.Invalid("%s", sentence(err.Error())).At(at)
			}
		}
	}
	if b.TLS != "" && b.TLS != "1.2" && b.TLS != "1.3" {
		return problem.Invalid("The least TLS version is 1.2 or 1.3.").At("least_tls")
	}
	return nil
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }

// Check holds a device's report against the baseline and returns one sentence for each item that is not fulfilled. What
// the device did not look at is not fulfilled.
func (b Baseline) Check(r wire.BaselineReport) (failed []string) {
	fail := func(format string, args ...any) { failed = append(failed, fmt.Sprintf(format, args...)) }
	if b.SecureBoot && r.SecureBoot != wire.BootOn {
		fail("Secure boot is %s.", said(r.SecureBoot))
	}
	if b.HardwareRoot && (r.Root == "" || r.Root == wire.RootNone) {
		fail("The hardware root of trust is %s.", said(r.Root))
	}
	if b.Ports != nil {
		if r.Ports == nil {
			fail("The open ports are not reported.")
		} else {
			for _, p := range uniq(*r.Ports) {
				if !slices.Contains(*b.Ports, p) {
					fail("The port %s is open.", p)
				}
			}
		}
	}
	for _, name := range uniq(b.Debug) {
		if state := r.Debug[name]; state != wire.DebugClosed {
			fail("The debug interface %s is %s.", name, said(state))
		}
	}
	if b.NoDefaults {
		if r.Credentials == nil {
			fail("Whether accounts have a factory password is not reported.")
		} else {
			for _, a := range uniq(*r.Credentials) {
				fail("The account %s has a factory password.", a)
			}
		}
	}
	if b.TLS != "" && r.TLS < b.TLS { // "1.2" < "1.3", and absent is below all
		fail("The least TLS version is %s, and must be %s.", said(r.TLS), b.TLS)
	}
	for _, item := range uniq(b.Privileges) {
		if holds, known := r.Privileges[item]; !known {
			fail("%s is not reported.", item)
		} else if !holds {
			fail("%s does not hold.", item)
		}
	}
	return failed
}

func said(s string) string {
	if s == "" {
		return "not reported"
	}
	return s
}

// uniq is the list sorted and without repeats, so that one fault is named once and in a stable order.
func uniq(list []string) []string { return slices.Compact(slices.Sorted(slices.Values(list))) }

// The first line of what is signed says what it is, so that no other note of the platform passes for one.
const baselineNote = "openthings baseline 1"

// text is what is signed: what it is, whose, which version, and the document.
func (v BaselineVersion) text() (string, error) {
	b, err := json.Marshal(v.Baseline)
	return fmt.Sprintf("%s\n%s\n%d\n%s\n", baselineNote, v.Product, v.Version, b), err
}

// readBaseline reads what text wrote, for the product and version given.
func readBaseline(text, product string, version int64) (b Baseline, err error) {
	doc, ok := strings.CutPrefix(text, fmt.Sprintf("%s\n%s\n%d\n", baselineNote, product, version))
	if !ok {
		return Baseline{}, fmt.Errorf("the signed text is about something else")
	}
	return b, json.Unmarshal([]byte(doc), &b)
}
