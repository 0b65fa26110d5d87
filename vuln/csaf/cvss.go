// SPDX-License-Identifier: AGPL-3.0-only

package csaf

import (
	"math"
	"strings"

	"github.com/openthings-platform/openthings/problem"
)

// metrics are the weights of the base metrics of CVSS 3.0 and 3.1 (specification, section 7.4).
var metrics = map[string]map[string]float64{
	"AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
	"AC": {"L": 0.77, "H": 0.44},
	"PR": {"N": 0.85, "L": 0.62, "H": 0.27},
	"UI": {"N": 0.85, "R": 0.62},
	"S":  {"U": 0, "C": 1},
	"C":  {"H": 0.56, "L": 0.22, "N": 0},
	"I":  {"H": 0.56, "L": 0.22, "N": 0},
	"A":  {"H": 0.56, "L": 0.22, "N": 0},
}

// changedPrivileges are the weights of PR where the scope changes.
var changedPrivileges = map[string]float64{"N": 0.85, "L": 0.68, "H": 0.5}

// Score3 makes the base score of a vector of CVSS 3.0 or 3.1. Temporal and environmental metrics are left out: a record's
// are not those of a product.
func Score3(vector string) (*CVSS, error) {
	version, rest, ok := strings.Cut(strings.TrimPrefix(vector, "CVSS:"), "/")
	if !strings.HasPrefix(vector, "CVSS:") || !ok || (version != "3.0" && version != "3.1") {
		return nil, problem.Invalid("%.120q is not a vector of CVSS 3.0 or 3.1.", vector)
	}
	said := map[string]string{}
	base := []string{"CVSS:" + version}
	for part := range strings.SplitSeq(rest, "/") {
		name, value, _ := strings.Cut(part, ":")
		weights, isBase := metrics[name]
		if !isBase {
			continue
		}
		if _, known := weights[value]; !known || said[name] != "" {
			return nil, problem.Invalid("%.120q is not a vector of CVSS 3.0 or 3.1: %.20q is wrong.", vector, part)
		}
		said[name] = value
		base = append(base, part)
	}
	if len(said) != len(metrics) {
		return nil, problem.Invalid("%.120q is not a vector of CVSS 3.0 or 3.1: a base metric is missing.", vector)
	}
	w := func(name string) float64 { return metrics[name][said[name]] }
	score := baseScore(version, w, said["S"] == "C", said["PR"])
	return &CVSS{BaseScore: score, BaseSeverity: severity(score), VectorString: strings.Join(base, "/"), Version: version}, nil
}

// baseScore is the formula of section 7.1 of the specifications.
func baseScore(version string, w func(string) float64, changed bool, pr string) float64 {
	iss := 1 - (1-w("C"))*(1-w("I"))*(1-w("A"))
	impact, privileges, factor := 6.42*iss, w("PR"), 1.0
	if changed {
		impact = 7.52*(iss-0.029) - 3.25*math.Pow(iss-0.02, 15)
		privileges, factor = changedPrivileges[pr], 1.08
	}
	if impact <= 0 {
		return 0
	}
	sum := math.Min(factor*(impact+8.22*w("AV")*w("AC")*privileges*w("UI")), 10)
	if version == "3.0" {
		return math.Ceil(sum*10) / 10
	}
	// Appendix A of 3.1: rounded up to one decimal, without the errors of binary fractions.
	n := int64(math.Round(sum * 100_000))
	if n%10_000 == 0 {
		return float64(n) / 100_000
	}
	return float64(n/10_000+1) / 10
}

// severity is the word for a score (section 5).
func severity(score float64) string {
	switch {
	case score == 0:
		return "NONE"
	case score < 4:
		return "LOW"
	case score < 7:
		return "MEDIUM"
	case score < 9:
		return "HIGH"
	default:
		return "CRITICAL"
	}
}
