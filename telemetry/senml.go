// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
)

// Media types of SenML (RFC 8428, section 12.3).
const (
	typeSenMLJSON = "application/senml+json"
	typeSenMLCBOR = "application/senml+cbor"
)

const (
	maxPack      = 4096    // records of one pack
	senmlVersion = 10      // RFC 8428, section 4.4; a pack of a later version is refused
	relative     = 1 << 28 // a time below is relative to now (RFC 8428, section 4.5.3)
	maxPackName  = 256     // bytes of a resolved name
	maxPackCells = 65_536  // values of one pack
	unnamed      = "value" // the field of a record that names nothing but the device
)

// senmlCBOR bounds what a pack may ask for before anything is made of it.
var senmlCBOR = func() cbor.DecMode {
	m, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: 8, MaxArrayElements: maxPack, MaxMapPairs: 64,
		IntDec: cbor.IntDecConvertSignedOrFail, TimeTag: cbor.DecTagIgnored}.DecMode()
	if err != nil {
		panic(err) // only wrong options can fail
	}
	return m
}()

// labels are those of the CBOR representation (RFC 8428, table 4).
var labels = map[int64]string{-6: "bs", -5: "bv", -4: "bu", -3: "bt", -2: "bn", -1: "bver",
	0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd"}

// senmlJSON reads a pack in JSON, senmlCBORPack one in CBOR. Both give records with the labels of JSON.
func senmlJSON(body []byte) (pack []map[string]any, err error) {
	if err := json.Unmarshal(body, &pack); err != nil {
		return nil, problem.Invalid("the pack is not an array of SenML records").Because(err)
	}
	return pack, nil
}

func senmlCBORPack(body []byte) ([]map[string]any, error) {
	var raw []map[any]any
	if err := senmlCBOR.Unmarshal(body, &raw); err != nil {
		return nil, problem.Invalid("the pack is not an array of SenML records in CBOR").Because(err)
	}
	pack := make([]map[string]any, len(raw))
	for i, r := range raw {
		pack[i] = make(map[string]any, len(r))
		for k, v := range r {
			switch k := k.(type) {
			case int64:
				if name, known := labels[k]; known {
					pack[i][name] = plain(v)
				}
			case string:
				pack[i][k] = plain(v)
			}
		}
	}
	return pack, nil
}

// plain makes numbers of CBOR what JSON would have made of them.
func plain(v any) any {
	switch v := v.(type) {
	case int64:
		return float64(v)
	case float32:
		return float64(v)
	case cbor.Tag: // a decimal fraction (RFC 8949, section 3.4.4)
		parts, ok := v.Content.([]any)
		if v.Number != 4 || !ok || len(parts) != 2 {
			return nil
		}
		exp, ok1 := parts[0].(int64)
		mantissa, ok2 := parts[1].(int64)
		if !ok1 || !ok2 {
			return nil
		}
		n, err := strconv.ParseFloat(fmt.Sprintf("%de%d", mantissa, exp), 64) // rounds once
		if err != nil {
			return nil
		}
		return n
	}
	return v
}

// measurements reads what a record of tele/ holds, by its media type; without one, an array of JSON is a pack. What the
// device counted beside the body counts where the body does not say.
func measurements(r gateway.Record) (points []point, err error) {
	var pack []map[string]any
	switch {
	case r.Type == typeSenMLCBOR:
		pack, err = senmlCBORPack(r.Body)
	case r.Type == typeSenMLJSON, bytes.HasPrefix(bytes.TrimLeft(r.Body, " \t\r\n"), []byte("[")):
		pack, err = senmlJSON(r.Body)
	default:
		p, err := parsePayload(r.Body, r.At)
		p.boot, p.seq = cmp.Or(p.boot, r.Boot), cmp.Or(p.seq, r.Seq)
		return []point{p}, err
	}
	if err == nil {
		points, err = readPack(pack, r.At)
	}
	for i := range points {
		points[i].boot, points[i].seq = cmp.Or(points[i].boot, r.Boot), cmp.Or(points[i].seq, r.Seq)
	}
	return points, err
}

// senmlBase are the base fields, which hold until they are said anew (RFC 8428, section 4.1).
type senmlBase struct {
	name, unit       string
	time, value, sum float64
}

// readPack resolves a pack that was received at the time given (ms) into points, the oldest first. Values that are not
// numbers (vs, vd) are passed over. Boot and seq are own labels, which may stand in any record: what others do not know
// they ignore (section 4.4).
func readPack(pack []map[string]any, received int64) ([]point, error) {
	if len(pack) > maxPack {
		return nil, problem.Invalid("more than %d records in one pack", maxPack)
	}
	var base senmlBase
	var boot, seq uint64
	byTime := map[int64]*point{}
	cells := 0
	for i, r := range pack {
		f := fields{r: r}
		if v, ok := f.number("bver"); ok && (v > senmlVersion || v < 1) {
			return nil, problem.Invalid("the pack is of SenML version %g; known is %d", v, senmlVersion)
		}
		for label := range r {
			if strings.HasSuffix(label, "_") { // section 4.4: must be understood
				return nil, problem.Invalid("record %d has the label %q, which has to be understood and is not", i, cut(label))
			}
		}
		base.read(&f)
		boot, seq = max(boot, f.count("boot")), max(seq, f.count("seq"))
		values, err := f.values(base)
		if f.bad != "" {
			err = problem.Invalid("%q of record %d is not what RFC 8428 says", f.bad, i)
		}
		if err != nil {
			return nil, err
		}
		if len(values) == 0 {
			continue
		}
		name, err := fieldName(base.name + f.text("n"))
		if err != nil {
			return nil, err
		}
		unit := f.text("u")
		if unit == "" {
			unit = base.unit
		}
		t, _ := f.number("t")
		at, err := packTime(base.time+t, received)
		if err != nil {
			return nil, err
		}
		p := byTime[at]
		if p == nil {
			p = &point{t: at}
			byTime[at] = p
		}
		for suffix, v := range values {
			if cells++; cells > maxPackCells {
				return nil, problem.Invalid("more than %d values in one pack", maxPackCells)
			}
			code := unit
			if suffix != "" {
				code = "" // a sum is in units times seconds, and has no code
			}
			if err := p.set(name+suffix, v, code); err != nil {
				return nil, err
			}
		}
	}
	if len(byTime) == 0 {
		return nil, problem.Invalid("the pack holds no number")
	}
	points := make([]point, 0, len(byTime))
	for _, p := range byTime {
		slices.SortFunc(p.values, byName)
		p.boot, p.seq = boot, seq
		points = append(points, *p)
	}
	slices.SortFunc(points, func(a, b point) int { return int(max(min(a.t-b.t, 1), -1)) })
	for i := range points[1:] {
		points[i+1].same = true
	}
	return points, nil
}

// set puts a value into a point; the last one under a name counts.
func (p *point) set(name string, v float64, unit string) error {
	if unit != "" {
		if p.units == nil {
			p.units = map[string]string{}
		}
		p.units[name] = unit
	}
	if i := slices.IndexFunc(p.values, func(o value) bool { return o.name == name }); i >= 0 {
		p.values[i].v = v
		return nil
	}
	if len(p.values) == maxValues {
		return problem.Invalid("more than %d values of one time", maxValues)
	}
	p.values = append(p.values, value{name, v})
	return nil
}

// packTime turns seconds into ms: relative to the receipt, or since 1970.
func packTime(s float64, received int64) (int64, error) {
	if math.IsNaN(s) || math.Abs(s) > 1e12 {
		return 0, problem.Invalid("a time of %g seconds", s)
	}
	ms := int64(math.Round(s * 1000))
	if s < relative {
		ms += received
	}
	return believable(ms, received), nil
}

// fieldName makes a field of a resolved name (RFC 8428, section 4.5.1): without the urn that names the device (RFC 9039),
// since the certificate names it, and with dots where our names take neither : nor /.
func fieldName(name string) (string, error) {
	if name == "" || len(name) > maxPackName {
		return "", problem.Invalid("a record has no name, or one of more than %d bytes", maxPackName)
	}
	if rest, ok := strings.CutPrefix(name, "urn:dev:"); ok {
		_, rest, _ = strings.Cut(rest, ":") // the kind of id: mac, ow, os
		name = ""
		if i := strings.IndexAny(rest, ":/_"); i >= 0 {
			name = rest[i+1:]
		}
	}
	name = strings.Trim(strings.NewReplacer(":", ".", "/", ".").Replace(name), ".")
	if name == "" {
		return unnamed, nil
	}
	if !validName(name) {
		return "", problem.Invalid("name %q is not 1 to %d of A-Z a-z 0-9 . _ - : /", cut(name), maxName)
	}
	return name, nil
}

// fields reads one record; bad is the first label whose value is of a wrong type.
type fields struct {
	r   map[string]any
	bad string
}

func (f *fields) fail(label string) {
	if f.bad == "" {
		f.bad = label
	}
}

func (f *fields) number(label string) (float64, bool) {
	v, said := f.r[label]
	if !said {
		return 0, false
	}
	n, ok := v.(float64)
	if !ok || math.IsNaN(n) || math.IsInf(n, 0) {
		f.fail(label)
		return 0, false
	}
	return n, true
}

func (f *fields) text(label string) string {
	v, said := f.r[label]
	s, ok := v.(string)
	if said && !ok {
		f.fail(label)
	}
	return s
}

func (f *fields) count(label string) uint64 {
	n, said := f.number(label)
	if said && (n < 0 || n > 1<<53 || n != math.Trunc(n)) {
		f.fail(label)
		return 0
	}
	return uint64(n)
}

func (b *senmlBase) read(f *fields) {
	for label, into := range map[string]*string{"bn": &b.name, "bu": &b.unit} {
		if _, said := f.r[label]; said {
			*into = f.text(label)
		}
	}
	for label, into := range map[string]*float64{"bt": &b.time, "bv": &b.value, "bs": &b.sum} {
		if n, said := f.number(label); said {
			*into = n
		}
	}
}

// values are the numbers of a record by what is put behind its name: the value itself, and the sum.
func (f *fields) values(b senmlBase) (map[string]float64, error) {
	out := map[string]float64{}
	if v, said := f.number("v"); said {
		out[""] = v + b.value
	}
	if v, said := f.r["vb"]; said {
		on, ok := v.(bool)
		if !ok {
			f.fail("vb")
		}
		if _, two := out[""]; two {
			return nil, problem.Invalid("a record has two values")
		}
		out[""] = 0
		if on {
			out[""] = 1
		}
	}
	if s, said := f.number("s"); said {
		out[".sum"] = s + b.sum
	}
	for _, v := range out {
		if math.IsInf(v, 0) {
			return nil, problem.Invalid("a value is too large")
		}
	}
	return out, nil
}
