// SPDX-License-Identifier: AGPL-3.0-only

package console

import (
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"
	"time"
)

// funcs are the functions of templates:
//
//	time t            2026-11-21 22:50 UTC, as <time>
//	day t             2026-11-21, as <time>
//	ago t             3 minutes ago, in 2 days; with the full time as title
//	left d            2 d 4 h, 13 min, overdue
//	bytes n           1.2 MB
//	count n           1 234 567
//	short s           sha256:ab12…, first 12 characters of a digest or id
//	plural n one many "1 device", "2 devices"
//	percent part all  0 to 100
//	badge state       a status badge: word, mark and colour
//	dict k v …        data for a part
//	json v            for <script type="application/json">
//	num v             a measured value, or a dash for none
//	asset name        address of an embedded file
func (c *Console) funcs() template.FuncMap {
	return template.FuncMap{
		"time":    func(t time.Time) template.HTML { return stamp(t, "2006-01-02 15:04 UTC") },
		"day":     func(t time.Time) template.HTML { return stamp(t, "2006-01-02") },
		"ago":     func(t time.Time) template.HTML { return c.ago(t) },
		"left":    Left,
		"until":   func(t time.Time) time.Duration { return t.Sub(c.cfg.Clock.Now()) },
		"bytes":   Bytes,
		"count":   Count,
		"short":   Short,
		"plural":  Plural,
		"percent": percent,
		"badge":   func(state any) template.HTML { return c.HTML("badge", NewBadge(fmt.Sprint(state))) },
		"dict":    dict,
		"list":    func(v ...any) []any { return v },
		"json":    func(v any) (template.JS, error) { b, err := json.Marshal(v); return template.JS(b), err },
		"asset":   c.Asset,
		"num":     num,
		"lower":   strings.ToLower,
	}
}

func stamp(t time.Time, layout string) template.HTML {
	if t.IsZero() {
		return `<span class="none">never</span>`
	}
	t = t.UTC()
	return template.HTML(fmt.Sprintf(`<time datetime="%s">%s</time>`, t.Format(time.RFC3339), t.Format(layout)))
}

func (c *Console) ago(t time.Time) template.HTML {
	if t.IsZero() {
		return `<span class="none">never</span>`
	}
	d := c.cfg.Clock.Now().Sub(t)
	text := Span(d.Abs()) + " ago"
	switch {
	case d.Abs() < time.Second*5:
		text = "now"
	case d < 0:
		text = "in " + Span(-d)
	}
	t = t.UTC()
	return template.HTML(fmt.Sprintf(`<time datetime="%s" title="%s">%s</time>`, t.Format(time.RFC3339), t.Format("2006-01-02 15:04:05 UTC"), text))
}

// Span is a length of time in its two largest units at most: "2 d 4 h", "13 min", "8 s".
func Span(d time.Duration) string {
	s := int64(d / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min", s/60)
	case s < 24*3600:
		return two(s/3600, "h", s%3600/60, "min")
	case s < 60*24*3600:
		return two(s/86400, "d", s%86400/3600, "h")
	case s < 2*365*86400:
		return fmt.Sprintf("%d months", s/(30*86400))
	}
	return fmt.Sprintf("%d years", s/(365*86400))
}

func two(a int64, au string, b int64, bu string) string {
	if b == 0 || a >= 10 {
		return fmt.Sprintf("%d %s", a, au)
	}
	return fmt.Sprintf("%d %s %d %s", a, au, b, bu)
}

// Left is what remains of a deadline: "2 d 4 h left" or "overdue by 3 h".
func Left(d time.Duration) string {
	if d < 0 {
		return "overdue by " + Span(-d)
	}
	return Span(d) + " left"
}

// Bytes is a size in decimal units.
func Bytes(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1000, 0
	for f >= 1000 && i < 4 {
		f, i = f/1000, i+1
	}
	return fmt.Sprintf("%.1f %s", f, []string{"kB", "MB", "GB", "TB", "PB"}[i])
}

// Count writes a number with thin spaces between thousands.
func Count(v any) string {
	s := fmt.Sprint(v)
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return sign + s
}

// Short is the beginning of a digest or id that is enough to tell it by eye.
func Short(s string) string {
	algo, hex, ok := strings.Cut(s, ":")
	if !ok {
		algo, hex = "", s
	} else {
		algo += ":"
	}
	if len(hex) <= 14 {
		return s
	}
	return algo + hex[:12] + "…"
}

// Plural is "1 device" or "2 devices".
func Plural(n any, one, many string) string {
	if fmt.Sprint(n) == "1" {
		return "1 " + one
	}
	return Count(n) + " " + many
}

func percent(part, all any) int {
	var p, a float64
	fmt.Sscan(fmt.Sprint(part), &p)
	fmt.Sscan(fmt.Sprint(all), &a)
	if a <= 0 {
		return 0
	}
	return int(min(max(p/a, 0), 1) * 100)
}

func dict(kv ...any) (map[string]any, error) {
	if len(kv)%2 != 0 {
		return nil, fmt.Errorf("dict: a key without value")
	}
	m := make(map[string]any, len(kv)/2)
	for i := 0; i < len(kv); i += 2 {
		k, ok := kv[i].(string)
		if !ok {
			return nil, fmt.Errorf("dict: key %v is not a string", kv[i])
		}
		m[k] = kv[i+1]
	}
	return m, nil
}

func num(v any) string {
	var x float64
	switch v := v.(type) {
	case float64:
		x = v
	case *float64:
		if v == nil {
			return "–"
		}
		x = *v
	}
	if x == math.Trunc(x) && math.Abs(x) < 1e15 { // a counter is read to its last digit
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	return strconv.FormatFloat(x, 'g', 6, 64)
}
