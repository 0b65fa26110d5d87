// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"bufio"
	"bytes"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/problem"
)

// maxCommits bounds what is known about the commits of one record.
const maxCommits = 200_000

// Commits says which commits of a repository have a fault. No order is guessed from their names: whoever has the
// repository computes it (git merge-base --is-ancestor, git rev-list) and lays it beside the record.
type Commits struct {
	Affected   []string `json:"affected,omitempty"` // 40 hex digits, sorted
	Unaffected []string `json:"unaffected,omitempty"`
}

// ParseCommits reads what is known about single commits, by repository. The form is lines of text: "repo URL", then
// "affected COMMIT" and "unaffected COMMIT"; empty lines and lines that begin with # are passed over.
func ParseCommits(b []byte) (map[string]*Commits, error) {
	out := map[string]*Commits{}
	var now *Commits
	n := 0
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		text := strings.TrimSpace(lines.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		word, value, _ := strings.Cut(text, " ")
		value = strings.TrimSpace(value)
		n++
		switch {
		case n > maxCommits:
			return nil, problem.TooLarge("the list names more than %d commits", maxCommits)
		case word == "repo" && repository(value) != "":
			name := repository(value)
			if out[name] == nil {
				out[name] = &Commits{}
			}
			now = out[name]
		case now == nil:
			return nil, problem.Invalid("the list of commits begins with %.80q and not with a line \"repo URL\"", text)
		case word == "affected" && fullCommit(value):
			now.Affected = append(now.Affected, strings.ToLower(value))
		case word == "unaffected" && fullCommit(value):
			now.Unaffected = append(now.Unaffected, strings.ToLower(value))
		default:
			return nil, problem.Invalid("%.80q is not a line of a list of commits", text).Hint("write: affected COMMIT, or: unaffected COMMIT, with all digits")
		}
	}
	for _, c := range out {
		slices.Sort(c.Affected)
		slices.Sort(c.Unaffected)
	}
	return out, nil
}

// Learn adds what is known about single commits to what the record claims about their repositories.
func (r *Record) Learn(commits map[string]*Commits) { r.commits = commits }

// state is what the lists say about a commit; they decide before any event does.
func (c *Commits) state(commit string) State {
	if c == nil || len(commit) < 40 {
		return StateUnknown
	}
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

func fullCommit(s string) bool { return len(s) == 40 && isCommit(s) }

// sameCommit compares a commit with one that may be written short.
func sameCommit(commit, event string) bool {
	commit, event = strings.ToLower(commit), strings.ToLower(event)
	return isCommit(event) && (strings.HasPrefix(commit, event) || strings.HasPrefix(event, commit))
}

// gitLine are the events of a range of commits. Their order is that of the repository's history, which is not at hand.
type gitLine []RangeEvent

// judgeCommit decides the commits that the record names itself and those that somebody has looked up in the repository.
func (e entry) judgeCommit(commit string) Verdict {
	if s := e.known.state(strings.ToLower(commit)); s != StateUnknown {
		return Verdict{State: s}
	}
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
