// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
)

// maxCommits bounds what is known about the commits of one record.
const maxCommits = 100_000

// Commits says which commits of a repository have a fault. No order is guessed from their names: whoever has the
// repository asks it (git merge-base --is-ancestor, git rev-list) and adds the answers to the record, as its member
// "x_commits": [{"repo": URL, "affected": [COMMIT…], "unaffected": [COMMIT…]}], in an OSV record or one of the CVE List.
type Commits struct {
	Repo       string   `json:"repo,omitempty"`
	Affected   []string `json:"affected,omitempty"` // all digits
	Unaffected []string `json:"unaffected,omitempty"`
}

// checkCommits refuses lists that could not be meant so and sorts the others.
func (r *Record) checkCommits() error {
	n := 0
	for i := range r.Commits {
		c := &r.Commits[i]
		if c.Repo = repository(c.Repo); c.Repo == "" {
			return problem.Invalid("record %s lists commits of something that is no repository", r.ID)
		}
		for _, list := range [][]string{c.Affected, c.Unaffected} {
			if n += len(list); n > maxCommits {
				return problem.TooLarge("record %s lists more than %d commits", r.ID, maxCommits)
			}
			for k := range list {
				if list[k] = strings.ToLower(list[k]); len(list[k]) != 40 || !isCommit(list[k]) {
					return problem.Invalid("record %s lists %.80q, which is not the whole name of a commit", r.ID, list[k])
				}
			}
			slices.Sort(list)
		}
	}
	return nil
}

// commitsOf are the lists about one name: a repository, or the kernel in whichever of its repositories; nil if none.
func (r *Record) commitsOf(space, name string) *Commits {
	if space != sbom.SpaceGit && space != sbom.SpaceKernel {
		return nil
	}
	var out *Commits
	for _, c := range r.Commits {
		if space == sbom.SpaceGit && c.Repo != name || space == sbom.SpaceKernel && !strings.HasPrefix(c.Repo, "git.kernel.org/") && c.Repo != "github.com/torvalds/linux" {
			continue
		}
		if out == nil {
			out = &Commits{}
		}
		out.Affected = slices.Concat(out.Affected, c.Affected)
		out.Unaffected = slices.Concat(out.Unaffected, c.Unaffected)
	}
	if out != nil {
		slices.Sort(out.Affected)
		slices.Sort(out.Unaffected)
	}
	return out
}

// state is what the lists say about a commit; they decide before any event does.
func (c *Commits) state(commit string) State {
	if c == nil {
		return StateUnknown
	}
	commit = strings.ToLower(commit)
	_, affected := slices.BinarySearch(c.Affected, commit)
	_, unaffected := slices.BinarySearch(c.Unaffected, commit)
	switch {
	case affected:
		return StateAffected
	case unaffected:
		return StateClean
	}
	return StateUnknown
}

// isCommit tells a commit's name from a version: hexadecimal, seven digits or more, not all of them decimal.
func isCommit(s string) bool {
	return len(s) >= 7 && len(s) <= 64 && strings.Trim(s, "0123456789abcdefABCDEF") == "" && (len(s) == 40 || strings.Trim(s, "0123456789") != "")
}

// sameCommit compares a commit with one that may be written short.
func sameCommit(commit, event string) bool {
	commit, event = strings.ToLower(commit), strings.ToLower(event)
	return isCommit(event) && (strings.HasPrefix(commit, event) || strings.HasPrefix(event, commit))
}

// gitLine are the events of a range of commits. Their order is that of the repository's history, which is not at hand.
type gitLine []RangeEvent

// judgeCommit decides the commits that the record names itself.
func (e entry) judgeCommit(commit string) Verdict {
	state := StateUnknown
	for _, l := range e.git {
		ends := false
		for _, ev := range l {
			ends = ends || ev.Fixed != "" || ev.LastAffected != "" || ev.Limit != "" && ev.Limit != "*"
			switch {
			case sameCommit(commit, ev.Fixed):
				return Verdict{State: StateClean} // whatever other branches say
			case sameCommit(commit, ev.Introduced), sameCommit(commit, ev.LastAffected):
				state = StateAffected
			}
		}
		if !ends && slices.Contains(l, RangeEvent{Introduced: "0"}) { // every commit there is
			state = StateAffected
		}
	}
	if state == StateUnknown {
		return Verdict{State: StateUnknown, Reason: "the record names ranges of commits; whether " + commit + " lies in one is to be looked up in the repository"}
	}
	return Verdict{State: state}
}
