// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
)

// multiple is the pack of RFC 8428, section 5.1.3, and multipleCBOR the bytes of its section 6.
const (
	multiple = `[{"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,"bu":"A","bver":5,"n":"voltage","u":"V","v":120.1},
		{"n":"current","t":-5,"v":1.2},{"n":"current","t":-4,"v":1.3},{"n":"current","t":-3,"v":1.4},
		{"n":"current","t":-2,"v":1.5},{"n":"current","t":-1,"v":1.6},{"n":"current","v":1.7}]`
	multipleCBOR = `87a721781b75726e3a6465763a6f773a3130653230373361303130383030363a22fb41d303a15b00106223614120050067766f6c74616765016156` +
		`02fb405e066666666666a3006763757272656e74062402fb3ff3333333333333a3006763757272656e74062302fb3ff4cccccccccccda30067` +
		`63757272656e74062202fb3ff6666666666666a3006763757272656e74062102f93e00a3006763757272656e74062002fb3ff999999999999a` +
		`a3006763757272656e74060002fb3ffb333333333333`
)

// packText is what a pack says, or why it cannot be read.
func packText(kind string, body []byte) string {
	points, err := measurements(gateway.Record{Type: kind, At: 1_790_000_000_000, Body: body})
	if err != nil {
		return problem.Of(err).Text
	}
	var b strings.Builder
	for _, p := range points {
		fmt.Fprintf(&b, "%d %d/%d %v", p.t, p.boot, p.seq, p.values)
		if p.units != nil {
			fmt.Fprint(&b, " ", p.units)
		}
		b.WriteByte('\n')
	}
	return strings.TrimSpace(b.String())
}

func TestSenMLOfTheRFC(t *testing.T) {
	raw, err := hex.DecodeString(multipleCBOR)
	if err != nil {
		t.Fatal(err)
	}
	want := `1276020071001 0/0 [{current 1.2}] map[current:A]
1276020072001 0/0 [{current 1.3}] map[current:A]
1276020073001 0/0 [{current 1.4}] map[current:A]
1276020074001 0/0 [{current 1.5}] map[current:A]
1276020075001 0/0 [{current 1.6}] map[current:A]
1276020076001 0/0 [{current 1.7} {voltage 120.1}] map[current:A voltage:V]`
	if d := cmp.Diff(want, packText("", []byte(multiple))); d != "" {
		t.Errorf("JSON (-want +got):\n%s", d)
	}
	if d := cmp.Diff(want, packText(typeSenMLCBOR, raw)); d != "" {
		t.Errorf("CBOR (-want +got):\n%s", d)
	}
	for name, c := range map[string]struct{ body, want string }{
		"5.1.1 one point": {`[{"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1}]`, "1790000000000 0/0 [{value 23.1}] map[value:Cel]"},
		"5.1.2 base name": {`[{"bn":"urn:dev:ow:10e2073a01080063:","n":"voltage","u":"V","v":120.1},{"n":"current","u":"A","v":1.2}]`,
			"1790000000000 0/0 [{current 1.2} {voltage 120.1}] map[current:A voltage:V]"},
		"5.1.4 sub-fields": {`[{"bn":"urn:dev:ow:10e2073a01080063","bt":1.320067464e+09,"bu":"%RH","v":20},{"u":"lon","v":24.30621},{"u":"lat","v":60.07965},{"t":60,"v":20.3}]`,
			"1320067464000 0/0 [{value 60.07965}] map[value:lat]\n1320067524000 0/0 [{value 20.3}] map[value:%RH]"},
		"5.1.5 sum":       {`[{"bn":"urn:dev:ow:10e2073a01080063:","bt":-1,"bu":"V"},{"n":"energy","s":0.5,"v":3}]`, "1789999999000 0/0 [{energy 3} {energy.sum 0.5}] map[energy:V]"},
		"base value":      {`[{"bv":20,"n":"a","v":1},{"n":"b","v":2},{"bv":0,"n":"c","v":2}]`, "1790000000000 0/0 [{a 21} {b 22} {c 2}]"},
		"boolean":         {`[{"n":"door","vb":true},{"n":"lamp","vb":false},{"n":"label","vs":"kitchen"}]`, "1790000000000 0/0 [{door 1} {lamp 0}]"},
		"own count":       {`[{"bn":"urn:dev:mac:0024befffe804ff1_","boot":3,"seq":9,"n":"temp","v":1}]`, "1790000000000 3/9 [{temp 1}]"},
		"paths":           {`[{"n":"kitchen/fridge:temp","v":1}]`, "1790000000000 0/0 [{kitchen.fridge.temp 1}]"},
		"unknown label":   {`[{"n":"a","v":1,"x":"y"}]`, "1790000000000 0/0 [{a 1}]"},
		"must understand": {`[{"n":"a","v":1,"x_":"y"}]`, `record 0 has the label "x_", which has to be understood and is not`},
		"later version":   {`[{"bver":11,"n":"a","v":1}]`, "the pack is of SenML version 11; known is 10"},
		"no name":         {`[{"v":1}]`, "a record has no name, or one of more than 256 bytes"},
		"not a number":    {`[{"n":"a","v":"1"}]`, `"v" of record 0 is not what RFC 8428 says`},
		"only words":      {`[{"n":"a","vs":"1"}]`, "the pack holds no number"},
		"empty":           {`[]`, "the pack holds no number"},
		"object":          {`[1]`, "the pack is not an array of SenML records"},
		"two values":      {`[{"n":"a","v":1,"vb":true}]`, "a record has two values"},
		"far time":        {`[{"n":"a","v":1,"t":1e300}]`, "a time of 1e+300 seconds"},
		"clock not set":   {`[{"n":"a","v":1,"bt":268435457}]`, "1790000000000 0/0 [{a 1}]"},
	} {
		if d := cmp.Diff(c.want, packText(typeSenMLJSON, []byte(c.body))); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

// Numbers of CBOR come in more forms than those of JSON, and strange packs are refused before anything is made of them.
func TestSenMLInCBOR(t *testing.T) {
	for hexed, want := range map[string]string{
		"81a200616102f93e00":       "1790000000000 0/0 [{a 1.5}]",
		"81a20061610220":           "1790000000000 0/0 [{a -1}]",
		"81a200616102c48221196ab3": "1790000000000 0/0 [{a 273.15}]", // a decimal fraction
		"81a200616104f5":           "1790000000000 0/0 [{a 1}]",
		"81a40061610201" + "64626f6f7403" + "6373657107": "1790000000000 3/7 [{a 1}]",
		"9fa20061610201ff":               "1790000000000 0/0 [{a 1}]", // of indefinite length
		"81a20061610261":                 "the pack is not an array of SenML records in CBOR",
		"81a300616102010202":             "the pack is not an array of SenML records in CBOR", // a label twice
		"9bffffffffffffffff":             "the pack is not an array of SenML records in CBOR",
		"81a200616102fb7ff0000000000000": `"v" of record 0 is not what RFC 8428 says`, // infinity
	} {
		b, err := hex.DecodeString(hexed)
		if err != nil {
			t.Fatal(err)
		}
		if got := packText(typeSenMLCBOR, b); got != want {
			t.Errorf("%s: %s, want %s", hexed, got, want)
		}
	}
}

// A pack of several times is one message: it is kept whole, once, also when it is sent again, and counts once.
func TestPackIsOneMessage(t *testing.T) {
	each(t, func(r rig) {
		pack := gateway.Record{Tenant: "ten", Device: "dev_a", Topic: "tele/env", At: t0.UnixMilli(), Type: typeSenMLJSON, Boot: 1, Seq: 1,
			Body: fmt.Appendf(nil, `[{"bn":"urn:dev:ow:1:","bt":%d,"n":"a","v":1},{"n":"a","t":1,"v":2},{"n":"a","t":2,"v":3}]`, t0.Unix())}
		next := pack
		next.Seq, next.Body = 2, []byte(strings.ReplaceAll(string(pack.Body), `"a"`, `"b"`))
		for range 2 {
			r.append(pack, next, pack)
			if n := strings.Count(r.all("dev_a"), `"count": 1`); n != 6 {
				r.t.Errorf("%d values, want 6: %s", n, r.all("dev_a"))
			}
			r.compactAll()
		}
		if got := r.all("dev_a"); strings.Count(got, `"count": 1`) != 6 || !strings.Contains(got, `"missing": 0`) {
			r.t.Errorf("after compaction: %s", got)
		}
	})
}

func FuzzSenML(f *testing.F) {
	raw, err := hex.DecodeString(multipleCBOR)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(multiple), false)
	f.Add(raw, true)
	for _, s := range []string{`[{"n":"a","v":1e308,"bv":1e308}]`, `[{"n":"urn:dev:","vb":true}]`, `[{"bt":1e9,"t":-1,"n":"a","s":1}]`, `[[]]`, `[{"n":"a","t":null}]`} {
		f.Add([]byte(s), false)
	}
	for _, s := range []string{"81a200616102c48221196ab3", "9fa20061610201ff", "81a200616102c482396ab301"} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true)
	}
	c := newCodec()
	f.Fuzz(func(t *testing.T, body []byte, binary bool) {
		r := gateway.Record{Type: typeSenMLJSON, At: 1_790_000_000_000, Body: body}
		if binary {
			r.Type = typeSenMLCBOR
		}
		points, err := measurements(r)
		if err != nil {
			if !problem.Is(err, problem.KindInvalid) {
				t.Fatalf("a pack cannot make more than a refusal: %v", err)
			}
			return
		}
		cells := 0
		for i, p := range points {
			if i > 0 && (p.t <= points[i-1].t || !p.same) || i == 0 && p.same || len(p.values) == 0 || len(p.values) > maxValues {
				t.Fatalf("point %d of %+v", i, points)
			}
			for j, v := range p.values {
				cells++
				if !validName(v.name) || math.IsNaN(v.v) || math.IsInf(v.v, 0) || j > 0 && v.name <= p.values[j-1].name {
					t.Fatalf("value %+v", v)
				}
			}
		}
		if cells > maxPackCells {
			t.Fatalf("%d values", cells)
		}
		if len(points) <= chunkPoints {
			if _, err := c.decodeChunk(c.encodeChunk(points)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Both representations say the same: a pack of JSON in CBOR's labels reads alike.
func TestSenMLReadsAlikeInBoth(t *testing.T) {
	for _, body := range []string{multiple, `[{"bn":"urn:dev:ow:1:","bt":-1,"bu":"V"},{"n":"energy","s":0.5,"v":3},{"n":"x","vb":true}]`} {
		var pack []map[string]any
		if err := json.Unmarshal([]byte(body), &pack); err != nil {
			t.Fatal(err)
		}
		byLabel := map[string]int64{}
		for n, l := range labels {
			byLabel[l] = n
		}
		out := make([]map[int64]any, len(pack))
		for i, r := range pack {
			out[i] = map[int64]any{}
			for k, v := range r {
				out[i][byLabel[k]] = v
			}
		}
		b, err := cbor.Marshal(out)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(packText(typeSenMLJSON, []byte(body)), packText(typeSenMLCBOR, b)); d != "" {
			t.Errorf("(-JSON +CBOR):\n%s", d)
		}
	}
}
