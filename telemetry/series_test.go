// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openthings-platform/openthings/gateway"
)

// said is one value of the naive model: a list, searched from end to end.
type said struct {
	stream, field string
	at            time.Time
	v             float64
}

// naive answers q as a person with a list would.
func naive(list []said, q Query) (out []Series) {
	for _, stream := range []string{"env", "power"} {
		for _, field := range []string{"a", "b", "c"} {
			if !q.wants(stream, field) {
				continue
			}
			s := Series{Stream: stream, Field: field}
			for from := q.From; from.Before(q.To); from = from.Add(q.Step) {
				var b Bucket
				for _, x := range list {
					if x.stream != stream || x.field != field || x.at.Before(from) || !x.at.Before(from.Add(q.Step)) || !x.at.Before(q.To) {
						continue
					}
					if b.Count == 0 {
						b.Min, b.Max = x.v, x.v
					}
					b.Min, b.Max, b.Mean, b.Count = min(b.Min, x.v), max(b.Max, x.v), b.Mean+x.v, b.Count+1
					if b.Time.IsZero() || x.at.After(b.Time) || x.at.Equal(b.Time) && x.v > b.Last {
						b.Time, b.Last = x.at, x.v
					}
				}
				if b.Count > 0 {
					b.Mean /= float64(b.Count)
					s.Points = append(s.Points, b)
				}
			}
			if len(s.Points) > 0 {
				out = append(out, s)
			}
		}
	}
	return out
}

// Whatever came late, twice or out of order, and wherever it lies by now, an answer is what a naive list says.
func TestSeriesAgainstAModel(t *testing.T) {
	each(t, func(r rig) {
		random := rand.New(rand.NewPCG(3, 5))
		var list []said
		var past []gateway.Record
		for seq := 1; seq <= 400; seq++ {
			if random.IntN(8) == 0 && len(past) > 0 {
				r.append(past[random.IntN(len(past))]) // a repeat
			}
			stream := []string{"env", "power"}[random.IntN(2)]
			at := t0.Add(time.Duration(random.IntN(3_600_000)) * time.Millisecond).Truncate(time.Duration(1+random.IntN(60)) * time.Second)
			body := ""
			for _, field := range []string{"a", "b", "c"} {
				if random.IntN(3) > 0 {
					v := math.Round(random.NormFloat64()*1000) / 10
					if random.IntN(10) == 0 {
						v = random.NormFloat64() // all its digits
					}
					body += fmt.Sprintf(`%q:%v,`, field, v)
					list = append(list, said{stream, field, at, v})
				}
			}
			body += fmt.Sprintf(`"x%d":0`, random.IntN(3))
			m := gateway.Record{Tenant: "ten", Device: "dev_a", Topic: "tele/" + stream, At: t0.UnixMilli(),
				Body: fmt.Appendf(nil, `{"ts":%d,"boot":1,"seq":%d,"values":{%s}}`, at.UnixMilli(), seq, body)}
			past = append(past, m)
			r.append(m)
			switch random.IntN(20) {
			case 0, 1, 2:
				r.compactAll()
			case 3:
				if err := r.tidy(r.t.Context()); err != nil {
					r.t.Fatal(err)
				}
			}
			if seq%20 != 0 {
				continue
			}
			q := Query{From: t0.Add(time.Duration(random.IntN(1800)) * time.Second), Step: time.Duration(1+random.IntN(600_000)) * time.Millisecond,
				Fields: [][]string{{"a", "b", "c"}, {"env/a"}, {"power/b", "env/b"}, {"c"}}[random.IntN(4)]}
			q.To = q.From.Add(time.Duration(1+random.IntN(min(3600, int(q.Step.Seconds()+1)*5000))) * time.Second)
			if q.To.Sub(q.From)/q.Step >= MaxPoints {
				q.Step = time.Second
			}
			got, err := r.Series(r.t.Context(), "ten", "dev_a", q)
			if err != nil {
				r.t.Fatal(err)
			}
			unique := slices.Clone(list)
			slices.SortFunc(unique, func(a, b said) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
			unique = slices.Compact(unique) // the same value at the same time is one measurement
			if d := cmp.Diff(naive(unique, q), got, cmpopts.EquateApprox(1e-9, 1e-9), cmpopts.EquateEmpty()); d != "" {
				r.t.Fatalf("after %d messages, %+v (-list +got):\n%s", seq, q, d)
			}
		}
	})
}

// A round step leaves at most as many buckets as wanted, and its neighbour below would leave more.
func TestRoundStep(t *testing.T) {
	for span, want := range map[time.Duration]time.Duration{time.Second: 10 * time.Millisecond, 5 * time.Minute: time.Second, time.Hour: 15 * time.Second,
		24 * time.Hour: 5 * time.Minute, 30 * 24 * time.Hour: 3 * time.Hour, 20 * 365 * 24 * time.Hour: 25 * 24 * time.Hour} {
		if got := RoundStep(span, 300); got != want {
			t.Errorf("%s in 300: %s, want %s", span, got, want)
		}
	}
}
