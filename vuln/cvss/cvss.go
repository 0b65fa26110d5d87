// SPDX-License-Identifier: AGPL-3.0-only

// Package cvss makes the base score of a vector of CVSS 3.0 or 3.1 (https://www.first.org/cvss), for what records say as for
// what we publish.
package cvss

import (
	"math"
	"strings"

	"github.com/openthings-platform/openthings/problem"
)

// Base is a base score with what it was made of.
type Base struct {
	Version string  // 3.0 or 3.1
	Score   float64 // 0 to 10
	Vector  string  // the base metrics alone: temporal and environmental ones are not those of a product
}

// metrics are the weights of the base metrics (specification, section 7.4).
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

// Base3 reads a vector. It refuses one of another version, one without all base metrics, and one that states a metric twice.
func Base3(vector string) (Base, error) {
	version, rest, ok := strings.Cut(strings.TrimPrefix(vector, "CVSS:"), "/")
	if !strings.HasPrefix(vector, "CVSS:") || !ok || (version != "3.0" && version != "3.1") {
		return Base{}, problem.Invalid("%.120q is not a vector of CVSS 3.0 or 3.1.", vector)
	}
	wrong := func(why string) (Base, error) {
		return Base{}, problem.Invalid("%.120q is not a vector of CVSS 3.0 or 3.1: %s.", vector, why)
	}
	said := map[string]string{}
	base := []string{"CVSS:" + version}
	known := 0
	for part := range strings.SplitSeq(rest, "/") {
		name, value, ok := strings.Cut(part, ":")
		if _, twice := said[name]; !ok || twice {
			return wrong("a metric has no value or two")
		}
		said[name] = value
		weights, isBase := metrics[name]
		if !isBase {
			continue
		}
		if _, ok := weights[value]; !ok {
			return wrong("a base metric has a value that it cannot have")
		}
		known++
		base = append(base, part)
	}
	if known != len(metrics) {
		return wrong("a base metric is missing")
	}
	w := func(name string) float64 { return metrics[name][said[name]] }
	return Base{Version: version, Score: score(version, w, said["S"] == "C", said["PR"]), Vector: strings.Join(base, "/")}, nil
}

// score is the formula of section 7.1.
func score(version string, w func(string) float64, changed bool, privileges string) float64 {
	loss := 1 - (1-w("C"))*(1-w("I"))*(1-w("A"))
	impact, pr, factor := 6.42*loss, w("PR"), 1.0
	if changed {
		impact = 7.52*(loss-0.029) - 3.25*math.Pow(loss-0.02, 15)
		pr, factor = changedPrivileges[privileges], 1.08
	}
	if impact <= 0 {
		return 0
	}
	sum := math.Min(factor*(impact+8.22*w("AV")*w("AC")*pr*w("UI")), 10)
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

// Severity is the word for a base score, in lower case (section 5).
func Severity(score float64) string {
	switch {
	case score >= 9:
		return "critical"
	case score >= 7:
		return "high"
	case score >= 4:
		return "medium"
	case score > 0:
		return "low"
	}
	return "none"
}
