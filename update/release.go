// SPDX-License-Identifier: AGPL-3.0-only

package update

import (
	"slices"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/update/trust"
)

// State is where a release stands.
type State string

// The states of a release.
const (
	Draft     State = "draft"     // uploaded and signed; a check is open or has failed
	Checked   State = "checked"   // every check of the policy has passed
	Published State = "published" // may be deployed
	Withdrawn State = "withdrawn" // may not be deployed any more
	Watched   State = "watched"   // the platform's own program: it has a bill of materials and is never deployed
)

// Release is one version of a product's software.
type Release struct {
	ID              string    `json:"id"`
	Tenant          string    `json:"tenant"`
	Product         string    `json:"product"`
	Version         string    `json:"version" doc:"For people; security_version decides"`
	SecurityVersion int64     `json:"security_version"`
	DataFloor       int64     `json:"data_floor"`
	MinFrom         int64     `json:"min_from" doc:"Lowest security_version it may be installed over"`
	Class           string    `json:"class" enum:"security,feature"`
	Path            string    `json:"path" doc:"Target path in the signed list"`
	HW              []string  `json:"hw" doc:"Names of the hardware revisions it is made for"`
	Image           string    `json:"image" doc:"Digest of the image"`
	Length          int64     `json:"length" doc:"Bytes of the image"`
	SBOM            string    `json:"sbom" doc:"Digest of the bill of materials, under the manufacturer's signature"`
	Targets         int64     `json:"targets" doc:"Version of the newest signed list that names it"`
	Signers         []string  `json:"signers" doc:"Ids of the keys that signed it"`
	State           State     `json:"state" enum:"draft,checked,published,withdrawn,watched"`
	Actor           string    `json:"actor" doc:"Who uploaded it"`
	Created         time.Time `json:"created"`
	Published       time.Time `json:"published,omitzero"`
	Withdrawn       time.Time `json:"withdrawn,omitzero"`
}

// Names of checks. Others are welcome: the policy says which a release waits for.
const (
	CheckSignature = "signature"
	CheckSBOM      = "sbom"
	CheckExploited = "known-exploited"
	CheckQuality   = "sbom-quality" // only where the house demands a grade
)

// DefaultChecks is the policy of a tenant that has none of its own.
var DefaultChecks = []string{CheckSignature, CheckSBOM, CheckExploited}

// Verdicts of a check. One that has not spoken is pending.
const (
	Pass    = "pass"
	Fail    = "fail"
	Pending = "pending"
)

// Check is what one check says of a release.
type Check struct {
	Name     string    `json:"name"`
	Verdict  string    `json:"verdict" enum:"pass,fail,pending"`
	Evidence string    `json:"evidence,omitempty"`
	By       string    `json:"by,omitempty"`
	At       time.Time `json:"at,omitzero"`
}

// gate completes checks with those that the policy waits for, and says whether the release may be published.
func gate(policy []string, checks []Check) (all []Check, open bool) {
	open = true
	all = slices.Clone(checks)
	for _, name := range policy {
		if !slices.ContainsFunc(checks, func(c Check) bool { return c.Name == name }) {
			all = append(all, Check{Name: name, Verdict: Pending})
		}
	}
	for _, c := range all {
		open = open && c.Verdict == Pass
	}
	slices.SortStableFunc(all, func(a, b Check) int { return order(policy, a.Name) - order(policy, b.Name) })
	return all, open
}

// order is the place of a check in the policy; others come after it.
func order(policy []string, name string) int {
	if i := slices.Index(policy, name); i >= 0 {
		return i
	}
	return len(policy)
}

// Rules by which an upload is refused, beside those of update/trust, which appear as "update.signature" and so on.
const (
	RuleSupport   = "update.support"    // support of every hardware revision named has ended
	RuleFloor     = "update.floor"      // security_version below the last published one
	RuleSBOMFile  = "update.sbom"       // not the bill of materials that was signed for
	RuleSBOMImage = "update.sbom-image" // the bill of materials does not name the image
	RuleChecks    = "update.checks"     // a check is open or has failed
)

// admit decides whether a signed target may become a release of a product: its hardware is known and supported, and it
// is no step back behind the last one published.
func admit(t trust.Target, revisions []product.Revision, published int64, now time.Time) error {
	supported := false
	for _, hw := range t.HW {
		i := slices.IndexFunc(revisions, func(r product.Revision) bool { return r.Name == hw })
		if i < 0 {
			return problem.Forbidden("update."+trust.RuleHardware, "The product has no hardware revision %q.", hw)
		}
		supported = supported || now.Before(revisions[i].SupportEnd)
	}
	if !supported {
		return problem.Forbidden(RuleSupport, "Support of every hardware revision that the release names has ended.").
			Hint("Extend the support period of a revision first: whoever brings out releases supports the product.")
	}
	if t.SecurityVersion < published {
		return problem.Forbidden(RuleFloor, "Security version %d lies below %d, which is published already.", t.SecurityVersion, published).
			Hint("Devices would refuse it. Sign it with a security version of at least %d.", published)
	}
	return nil
}
