// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/vuln/cvss"
)

// Score is one author's statement of how bad a vulnerability is (https://www.first.org/cvss).
type Score struct {
	Version string  `json:"version" enum:"2.0,3.0,3.1,4.0"`
	Vector  string  `json:"vector,omitempty"` // as stated
	Base    float64 `json:"base"`             // 0 to 10; computed from the vector for 3.x, as stated for the others
	By      string  `json:"by,omitempty"`     // the author; empty where a record has one only
}

// Severity is the word for a base score.
func (s Score) Severity() string { return cvss.Severity(s.Base) }

// Score is the one that counts of several: the newest version of the format, of these the first author's.
func (r *Record) Score() (Score, bool) {
	if len(r.Scores) == 0 {
		return Score{}, false
	}
	return slices.MaxFunc(r.Scores, func(a, b Score) int { return strings.Compare(a.Version, b.Version) }), true
}

// SSVC are the decision points that a coordinator assessed
// (https://www.cisa.gov/stakeholder-specific-vulnerability-categorization-ssvc); all in lower case.
type SSVC struct {
	Exploitation string    `json:"exploitation" enum:"none,poc,active"`
	Automatable  string    `json:"automatable" enum:"yes,no"`
	Impact       string    `json:"impact" enum:"partial,total"`
	By           string    `json:"by,omitempty"`
	At           time.Time `json:"at,omitzero"`
}

type metric struct {
	V40   *cvssBlock `json:"cvssV4_0"`
	V31   *cvssBlock `json:"cvssV3_1"`
	V30   *cvssBlock `json:"cvssV3_0"`
	V20   *cvssBlock `json:"cvssV2_0"`
	Other *struct {
		Type    string          `json:"type"`
		Content json.RawMessage `json:"content"`
	} `json:"other"`
}

type cvssBlock struct {
	Vector string  `json:"vectorString"`
	Base   float64 `json:"baseScore"`
}

// readMetric takes over one metric. What cannot be read is left out: a score opens no finding.
func (r *Record) readMetric(m metric, by string) {
	for _, v := range []struct {
		version string
		block   *cvssBlock
	}{{"4.0", m.V40}, {"3.1", m.V31}, {"3.0", m.V30}, {"2.0", m.V20}} {
		if v.block != nil {
			r.addScore(v.version, v.block.Vector, v.block.Base, by)
		}
	}
	if m.Other == nil {
		return
	}
	switch m.Other.Type {
	case "ssvc":
		var c struct {
			Timestamp string              `json:"timestamp"`
			Options   []map[string]string `json:"options"`
		}
		if json.Unmarshal(m.Other.Content, &c) != nil {
			return
		}
		s := SSVC{By: by, At: cveTime(c.Timestamp)}
		for _, o := range c.Options {
			for k, v := range o {
				v = strings.ToLower(clean(v, 32))
				switch strings.ToLower(k) {
				case "exploitation":
					s.Exploitation = v
				case "automatable":
					s.Automatable = v
				case "technical impact":
					s.Impact = v
				}
			}
		}
		if r.SSVC == nil || s.At.After(r.SSVC.At) {
			r.SSVC = &s
		}
	case "kev":
		var c struct {
			DateAdded string `json:"dateAdded"`
		}
		if json.Unmarshal(m.Other.Content, &c) == nil && r.Exploited.IsZero() {
			r.Exploited = cveTime(c.DateAdded)
		}
	}
}

func (r *Record) addScore(version, vector string, stated float64, by string) {
	s := Score{Version: version, Vector: clean(vector, 256), Base: stated, By: by}
	if b, err := cvss.Base3(s.Vector); err == nil {
		s.Base = b.Score
	}
	if s.Base >= 0 && s.Base <= 10 && (s.Vector != "" || s.Base > 0) {
		r.Scores = append(r.Scores, s)
	}
}

// cvssVersion reads the version that a vector states in front; version 2.0 has no such prefix.
func cvssVersion(vector string) string {
	for _, v := range []string{"4.0", "3.1", "3.0"} {
		if strings.HasPrefix(vector, "CVSS:"+v+"/") {
			return v
		}
	}
	return "2.0"
}
