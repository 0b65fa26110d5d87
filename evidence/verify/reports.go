// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"encoding/json"
	"fmt"
)

// FinderReport is a finder's report at the disclosure desk, in SectionReports: that it came and when each step was done,
// not what anybody wrote. Other members may stand beside these.
type FinderReport struct {
	ID    string `json:"id"`
	Steps []Step `json:"steps"`
}

// Step is an event of a report. Its digest covers what is stored of it, sealed.
type Step struct {
	Seq    int64  `json:"seq"`
	Kind   string `json:"kind"`
	By     string `json:"by"` // finder, person, platform
	Digest string `json:"digest"`
}

// byFinder is the author of events that the log holds in one hourly entry of the whole house, outside of a bundle.
const byFinder = "finder"

// reports checks that each step that the house took stands in the log with its digest, and that none is left out.
func (r *Report) reports(d Document) error {
	list, _, err := section[[]FinderReport](d, SectionReports)
	if err != nil || len(list) == 0 {
		return err
	}
	steps := 0
	for _, f := range list {
		logged := map[int64]Step{}
		for _, e := range d.of(f.ID) {
			var x Step
			if e.Data == nil {
				continue
			}
			if err := json.Unmarshal(e.Data.Data, &x); err != nil || x.Seq == 0 {
				continue // somebody read it, or it was exported
			}
			x.Kind = e.Leaf.Kind
			logged[x.Seq] = x
		}
		for i, s := range f.Steps {
			if s.Seq != int64(i)+1 {
				return fmt.Errorf("%s: step %d is missing", f.ID, i+1)
			}
			if s.By == byFinder {
				continue
			}
			if x := logged[s.Seq]; x.Kind != s.Kind || x.Digest != s.Digest {
				return fmt.Errorf("%s: step %d (%s) is not what the log recorded", f.ID, s.Seq, s.Kind)
			}
			delete(logged, s.Seq)
			steps++
		}
		for seq, x := range logged {
			return fmt.Errorf("%s: step %d (%s) of the log is left out", f.ID, seq, x.Kind)
		}
	}
	r.fact("Of %d reports of finders each step that the house took (%d) stands in the log with its digest. What was written is not in the bundle.", len(list), steps)
	return nil
}
