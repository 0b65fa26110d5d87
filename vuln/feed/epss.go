// SPDX-License-Identifier: AGPL-3.0-only

package feed

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// Bounds of a file of scores. One day has about 340,000 rows, 10 MB.
const (
	maxScores     = 4_000_000
	maxScoreBytes = 256 << 20 // bytes once unpacked
)

// EPSS is one day of scores (https://www.first.org/epss): how likely each CVE is to be exploited in the next 30 days.
type EPSS struct {
	Model  string
	Date   time.Time
	Scores []Score // by year and number
}

// Score is that of one CVE, in hundred-thousandths, as exact as it is published.
type Score struct {
	Year, Number            uint32
	Probability, Percentile uint32
}

// scale is what 1 is written as in a Score.
const scale = 100_000

// CVENumber takes a CVE number apart; false says that it is none that scores are kept for.
func CVENumber(s string) (year, number uint32, ok bool) {
	rest, ok := strings.CutPrefix(s, "CVE-")
	y, n, dash := strings.Cut(rest, "-")
	yy, err1 := strconv.ParseUint(y, 10, 32)
	nn, err2 := strconv.ParseUint(n, 10, 32)
	return uint32(yy), uint32(nn), ok && dash && err1 == nil && err2 == nil && len(y) == 4 && len(n) >= 4 && y[0] != '+' && n[0] != '+'
}

// ParseEPSS reads a file of scores, plain or gzip:
//
//	#model_version:v2025.03.14,score_date:2026-05-18T00:00:00Z
//	cve,epss,percentile
//	CVE-1999-0001,0.0046,0.7385
//
// The date and the model are required, since a score means nothing without them. A last line without its end is a file that
// was cut short.
func ParseEPSS(r io.Reader) (*EPSS, error) {
	in := bufio.NewReader(r)
	if magic, err := in.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, problem.Invalid("the EPSS scores are not whole gzip: %v", err)
		}
		in = bufio.NewReader(z)
	}
	in = bufio.NewReader(io.LimitReader(in, maxScoreBytes+1))
	lines := 0
	line := func() (string, error) {
		b, err := in.ReadSlice('\n')
		lines++
		switch {
		case errors.Is(err, io.EOF) && len(b) == 0:
			return "", io.EOF
		case errors.Is(err, io.EOF):
			return "", problem.Invalid("the EPSS scores break off in line %d", lines)
		case err != nil:
			return "", problem.Invalid("the EPSS scores cannot be read from line %d on: %v", lines, err)
		}
		return strings.TrimSuffix(string(b[:len(b)-1]), "\r"), nil
	}
	e := &EPSS{}
	head, err := line()
	if err != nil {
		return nil, problem.Invalid("the EPSS scores have no first line").Because(err)
	}
	for part := range strings.SplitSeq(strings.TrimPrefix(head, "#"), ",") {
		name, value, _ := strings.Cut(part, ":")
		switch name {
		case "model_version":
			e.Model = value
		case "score_date":
			for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05-0700", time.DateOnly} {
				if at, err := time.Parse(layout, value); err == nil {
					e.Date = at.UTC()
				}
			}
		}
	}
	if !strings.HasPrefix(head, "#") || e.Model == "" || len(e.Model) > 64 || e.Date.IsZero() {
		return nil, problem.Invalid("the EPSS scores do not begin with their model and date")
	}
	if names, err := line(); err != nil || names != "cve,epss,percentile" {
		return nil, problem.Invalid("the second line of the EPSS scores names other columns than cve,epss,percentile")
	}
	for {
		text, err := line()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		s, ok := parseScore(text)
		if !ok {
			return nil, problem.Invalid("line %d of the EPSS scores is no score: %.80q", lines, text)
		}
		if e.Scores = append(e.Scores, s); len(e.Scores) > maxScores {
			return nil, problem.TooLarge("the EPSS scores have more than %d rows", maxScores)
		}
	}
	if len(e.Scores) == 0 {
		return nil, problem.Invalid("the EPSS scores hold none")
	}
	slices.SortFunc(e.Scores, func(a, b Score) int {
		return cmp.Or(cmp.Compare(a.Year, b.Year), cmp.Compare(a.Number, b.Number))
	})
	for i := 1; i < len(e.Scores); i++ {
		if a, b := e.Scores[i-1], e.Scores[i]; a.Year == b.Year && a.Number == b.Number {
			return nil, problem.Invalid("the EPSS scores name CVE-%04d-%04d twice", a.Year, a.Number)
		}
	}
	return e, nil
}

func parseScore(line string) (s Score, ok bool) {
	cve, rest, _ := strings.Cut(line, ",")
	probability, percentile, _ := strings.Cut(rest, ",")
	if s.Year, s.Number, ok = CVENumber(cve); !ok {
		return s, false
	}
	var a, b bool
	s.Probability, a = share(probability)
	s.Percentile, b = share(percentile)
	return s, a && b
}

// share reads a number from 0 to 1.
func share(s string) (uint32, bool) {
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || !(x >= 0 && x <= 1) {
		return 0, false
	}
	return uint32(x*scale + 0.5), true
}
