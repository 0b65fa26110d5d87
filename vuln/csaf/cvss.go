// SPDX-License-Identifier: AGPL-3.0-only

package csaf

import (
	"strings"

	"github.com/openthings-platform/openthings/vuln/cvss"
)

// Score3 makes the base score of a vector of CVSS 3.0 or 3.1. Temporal and environmental metrics are left out: a record's
// are not those of a product.
func Score3(vector string) (*CVSS, error) {
	b, err := cvss.Base3(vector)
	if err != nil {
		return nil, err
	}
	return &CVSS{BaseScore: b.Score, BaseSeverity: strings.ToUpper(cvss.Severity(b.Score)), VectorString: b.Vector, Version: b.Version}, nil
}
