// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openthings-platform/openthings/gateway"
)

func TestParsePayload(t *testing.T) {
	const now = 1_790_000_000_000
	for _, c := range []struct{ body, want string }{
		{`{"ts":1789999999000,"boot":2,"seq":7,"values":{"temp":21.5,"hum":40}}`, "1789999999000 2/7 [{hum 40} {temp 21.5}]"},
		{`{"temp":21.5,"unit":"C","ok":true,"none":null,"seq":3}`, "1790000000000 0/3 [{temp 21.5}]"},
		{`{"values":3}`, "1790000000000 0/0 [{values 3}]"},
		{`{"ts":12,"values":{"a":1}}`, "1790000000000 0/0 [{a 1}]"},            // clock never set
		{`{"ts":1999999999999,"values":{"a":1}}`, "1790000000000 0/0 [{a 1}]"}, // years ahead
		{`{"values":{"a":-0.0}}`, "1790000000000 0/0 [{a -0}]"},
		{`{"values":{"on":true,"off":false}}`, "1790000000000 0/0 [{off 0} {on 1}]"},
		{`[1]`, "the payload is not a JSON object"},
		{`null`, "the payload is not a JSON object"},
		{``, "the payload is not a JSON object"},
		{`{"values":{}}`, "the payload holds no number"},
		{`{"name":"x"}`, "the payload holds no number"},
		{`{"values":{"a":"1"}}`, `value "a" is not a number`},
		{`{"values":{"a":1e999}}`, `value "a" is not a number`},
		{`{"values":{"a b":1}}`, `name "a b" is not 1 to 64 of A-Z a-z 0-9 . _ -`},
		{`{"seq":-1,"values":{"a":1}}`, `"seq" is not a whole number`},
		{`{"ts":"now","values":{"a":1}}`, `"ts" is not a whole number`},
		{`{"values":{` + strings.TrimSuffix(many(maxValues+1), ",") + `}}`, "more than 256 values in one message"},
	} {
		p, err := parsePayload([]byte(c.body), now)
		got := fmt.Sprintf("%d %d/%d %v", p.t, p.boot, p.seq, p.values)
		if err != nil {
			got = strings.SplitN(err.Error(), ": ", 2)[0]
		}
		if got != c.want {
			t.Errorf("%.60s\n got %s\nwant %s", c.body, got, c.want)
		}
	}
}

func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"v%d":1,`, i)
	}
	return b.String()
}

func FuzzParsePayload(f *testing.F) {
	for _, s := range []string{`{"values":{"a":1}}`, ` { "a" : -0.5e+3 , "b":01, "a":2 } `, `{"values":{"a":1},"values":{"b":2}}`, `{"values":{"a":1},"b":2,"ts":-0}`, `{"a":1}x`, `{"a":1.5,"ts":1,"boot":1,"seq":1}`, `{"values":{"a":1e308}}`, `[`, `{"values":null}`, `{"\ud800":1}`} {
		f.Add([]byte(s))
	}
	c := newCodec()
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := slowPayload(body, 1_790_000_000_000)
		if quick, ok := quickPayload(body, 1_790_000_000_000); ok {
			if err != nil || quick.boot != p.boot || quick.seq != p.seq {
				t.Fatalf("the quick way accepts %+v, the slow way says %+v, %v", quick, p, err)
			}
			same(t, []point{quick}, []point{p})
		}
		if err != nil {
			return
		}
		got, err := c.decodeChunk(c.encodeChunk([]point{p}))
		if err != nil {
			t.Fatal(err)
		}
		p.boot, p.seq = 0, 0 // not kept in chunks
		same(t, got, []point{p})
	})
}

// same compares points bit for bit.
func same(t interface {
	Helper()
	Fatalf(string, ...any)
}, got, want []point) {
	t.Helper()
	text := func(ps []point) string {
		var b strings.Builder
		for _, p := range ps {
			fmt.Fprintf(&b, "%d", p.t)
			for _, v := range p.values {
				fmt.Fprintf(&b, " %s=%x", v.name, math.Float64bits(v.v))
			}
			b.WriteByte('\n')
		}
		return b.String()
	}
	if d := cmp.Diff(text(want), text(got)); d != "" {
		t.Fatalf("points differ (-want +got):\n%s", d)
	}
}

func TestChunkGivesBackEveryBit(t *testing.T) {
	c := newCodec()
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.OneOf(rapid.Float64(), rapid.Map(rapid.IntRange(-1e6, 1e6), func(n int) float64 { return float64(n) / 100 }),
			rapid.SampledFrom([]float64{0, math.Copysign(0, -1), math.MaxFloat64, math.SmallestNonzeroFloat64, 1 << 53, 0.1}))
		var points []point
		at := rapid.Int64().Draw(t, "start")
		for range rapid.IntRange(0, 40).Draw(t, "n") {
			p := point{t: at}
			for _, name := range []string{"a", "b", "c"} {
				if rapid.Bool().Draw(t, "has") {
					p.values = append(p.values, value{name, number.Draw(t, "v")})
				}
			}
			points = append(points, p)
			at += rapid.Int64Range(0, 100_000).Draw(t, "step")
		}
		got, err := c.decodeChunk(c.encodeChunk(points))
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, points)
	})
}

// A reader that wants some columns gets those, and the times of all points.
func TestColumnsApart(t *testing.T) {
	c := newCodec()
	points := []point{{t: 1, values: []value{{"a", 1}, {"b", math.Pi}}}, {t: 5, values: []value{{"b", 2}, {"c", 3}}}}
	for _, body := range [][]byte{c.encodeChunk(points), chunkOne(t)} {
		all, err := c.decodeTable(body, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range all.names {
			one, err := c.decodeTable(body, func(n string) bool { return n == name })
			if err != nil {
				t.Fatal(err)
			}
			i := slices.Index(all.names, name)
			if !slices.Equal(one.at, all.at) || !slices.Equal(one.names, []string{name}) || fmt.Sprint(one.columns[0]) != fmt.Sprint(all.columns[i]) {
				t.Errorf("%s alone is %v, among all it is %v", name, one, all)
			}
		}
	}
}

// chunkOne is a chunk of version 1.
func chunkOne(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/chunk-1.hex")
	if err == nil {
		b, err = hex.DecodeString(strings.TrimSpace(string(b)))
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Tables that are put together read like their points, sorted.
func TestJoined(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tables []table
		var want []point
		for range rapid.IntRange(0, 4).Draw(t, "tables") {
			var points []point
			for range rapid.IntRange(1, 5).Draw(t, "points") {
				p := point{t: rapid.Int64Range(0, 9).Draw(t, "t")}
				for _, name := range []string{"a", "b", "c"} {
					if rapid.Bool().Draw(t, "has") {
						p.values = append(p.values, value{name, float64(rapid.IntRange(0, 3).Draw(t, "v"))})
					}
				}
				points = append(points, p)
			}
			slices.SortStableFunc(points, byTime)
			tables, want = append(tables, tableOf(points)), append(want, points...)
		}
		slices.SortStableFunc(want, byTime)
		same(t, joined(tables).points(), want)
	})
}

// What was stored years ago can be read: the bytes in testdata never change.
func TestStoredFormatsStay(t *testing.T) {
	c := newCodec()
	points := []point{{t: 1_790_000_000_000, values: []value{{"hum", 40}, {"temp", 21.5}}}, {t: 1_790_000_001_000, values: []value{{"temp", math.Pi}}}}
	records := []gateway.Record{{Tenant: "ten_1", Device: "dev_1", Topic: "tele/env", At: 1_790_000_000_000, Body: []byte(`{"temp":21.5}`)}}
	history := seen{{2, spans{{1, 5}, {7, 9}}}, {1, spans{{4, 4}}}}
	read := func(name string, now []byte) []byte {
		t.Helper()
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatalf("%v; today it would be %x", err, now)
		}
		b, err = hex.DecodeString(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	got, err := c.decodeChunk(read("chunk-1.hex", c.encodeChunk(points)))
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, points)
	if got, err = c.decodeChunk(read("chunk-2.hex", c.encodeChunk(points))); err != nil {
		t.Fatal(err)
	}
	same(t, got, points)
	back, err := c.decodeRecords(read("records-1.hex", c.encodeRecords(records)))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(records, back); d != "" {
		t.Errorf("records (-want +got):\n%s", d)
	}
	records[0].Boot, records[0].Seq, records[0].Type = 7, 1<<40, "application/senml+cbor"
	back, err = c.decodeRecords(read("records-2.hex", c.encodeRecords(records)))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(records, back); d != "" {
		t.Errorf("records with what version 2 added (-want +got):\n%s", d)
	}
	set, err := decodeSeen(read("seen.hex", history.encode()))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(history, set, cmp.AllowUnexported(bootSpans{}, span{})); d != "" {
		t.Errorf("arrived (-want +got):\n%s", d)
	}
}

// A smooth signal costs about a byte per value: that is why chunks exist.
func TestChunkIsDense(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var points []point
	v := 21.5
	for i := range 2000 {
		v += float64(r.IntN(3)-1) / 10
		v = math.Round(v*10) / 10
		points = append(points, point{t: 1_790_000_000_000 + int64(i)*1000, values: []value{{"hum", 40 + math.Round(v)}, {"temp", v}}})
	}
	size := len(newCodec().encodeChunk(points))
	if per := float64(size) / 4000; per > 1 {
		t.Errorf("%.2f bytes per value, want at most 1", per)
	}
}

func FuzzDecodeChunk(f *testing.F) {
	c := newCodec()
	f.Add(c.encodeChunk(nil))
	f.Add(c.encodeChunk([]point{{t: 5, values: []value{{"a", 1.5}, {"b", math.Pi}}}, {t: 7, values: []value{{"b", 2}}}}))
	f.Add([]byte("(\xb5/\xfd"))
	f.Add([]byte{2, 3, 1, 1, 10, 0, 1, 'a', 0, 0, 3, 0, 0, 60})
	f.Add(c.enc.EncodeAll([]byte{1, 1, 1, 2, 1, 'a', 0, 0, 9, 4}, nil))
	f.Fuzz(func(t *testing.T, body []byte) {
		c.decodeChunk(body)
		points, err := c.decodeChunk(c.enc.EncodeAll(body, nil)) // past the checksum of zstd
		if err != nil {
			return
		}
		if len(points) > chunkPoints {
			t.Fatalf("%d points", len(points))
		}
	})
}

func FuzzDecodeRecords(f *testing.F) {
	c := newCodec()
	f.Add(c.encodeRecords([]gateway.Record{{Tenant: "t", Device: "d", Topic: "tele/x", At: 5, Body: []byte("{}")}}))
	f.Fuzz(func(t *testing.T, body []byte) {
		c.decodeRecords(body)
		records, err := c.decodeRecords(c.enc.EncodeAll(body, nil))
		if err != nil {
			return
		}
		again, err := c.decodeRecords(c.encodeRecords(records))
		if err != nil || len(again) != len(records) {
			t.Fatalf("%d records became %d: %v", len(records), len(again), err)
		}
	})
}

func FuzzDecodeSeen(f *testing.F) {
	f.Add(seen{{2, spans{{1, 5}, {7, 9}}}, {1, spans{{4, 4}}}}.encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeSeen(b)
		if err != nil {
			return
		}
		if again, err := decodeSeen(s.encode()); err != nil || !bytes.Equal(again.encode(), s.encode()) {
			t.Fatalf("%v does not survive: %v", s, err)
		}
	})
}

func TestSeenAgainstASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s seen
		oracle := map[[2]uint64]bool{}
		high := map[uint64]uint64{}
		for range rapid.IntRange(0, 200).Draw(t, "n") {
			boot, seq := rapid.Uint64Range(1, 4).Draw(t, "boot"), rapid.Uint64Range(1, 60).Draw(t, "seq")
			k := [2]uint64{boot, seq}
			if got, want := s.add(boot, seq), !oracle[k]; got != want {
				t.Fatalf("add(%d, %d) = %v, want %v", boot, seq, got, want)
			}
			oracle[k] = true
			high[boot] = max(high[boot], seq)
			back, err := decodeSeen(s.encode())
			if err != nil || !cmp.Equal(back, s, cmp.AllowUnexported(bootSpans{}, span{})) {
				t.Fatalf("%v became %v: %v", s, back, err)
			}
		}
		var newest, holes uint64
		for b := range high {
			newest = max(newest, b)
		}
		for n := uint64(1); n <= high[newest]; n++ {
			if !oracle[[2]uint64{newest, n}] {
				holes++
			}
		}
		if got := missing([]seen{s}); got != holes {
			t.Fatalf("missing = %d, want %d in %v", got, holes, s)
		}
	})
}

func TestSeenStaysSmall(t *testing.T) {
	var s seen
	for boot := uint64(1); boot <= 20; boot++ {
		for seq := uint64(1); seq < 2000; seq += 2 { // every second message is lost
			if !s.add(boot, seq) {
				t.Fatalf("%d/%d was taken for a repeat", boot, seq)
			}
		}
	}
	if n := len(s.encode()); n > maxBoots*maxSpans*2+100 {
		t.Errorf("%d bytes", n)
	}
	if !s.add(0, 5) || !s.add(0, 5) {
		t.Error("a message that does not count itself was taken for a repeat")
	}
}

// Two streams share one count: what one lacks is in the other.
func TestMissingIsCountedPerDevice(t *testing.T) {
	var env, power seen
	for seq := uint64(1); seq <= 10; seq++ {
		if seq%2 == 0 {
			env.add(1, seq)
		} else if seq != 5 {
			power.add(1, seq)
		}
	}
	if got := missing([]seen{env, power}); got != 1 {
		t.Errorf("missing = %d, want 1", got)
	}
	if got := missing(slices.Concat([]seen{nil}, nil)); got != 0 {
		t.Errorf("missing of nothing = %d", got)
	}
}
