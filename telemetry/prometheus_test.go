// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/gateway"
)

func TestPromQLIsUnderstoodOrRefused(t *testing.T) {
	for query, want := range map[string]string{
		`env_temp`:         "",
		`{device="dev_1"}`: "",
		`env_temp{serial=~"SN-.*",product!="a",solution!~'x|y',} offset 5m`: "",
		`avg_over_time(env_temp[1h30m] offset -1h)`:                         "",
		`sum by (product) (env_temp)`:                                       "",
		`avg(max_over_time(env_temp[5m])) by (product, stream)`:             "",
		`(env_temp * 9 / 5 + 32)`:                                           "",
		`1+1`:                                                               "",
		`-env_temp`:                                                         "",
		"count({stream=`env`})":                                             "",
		`rate(env_temp[5m])`:                                                "the function rate is not supported; supported are avg_over_time, count_over_time, last_over_time, max_over_time, min_over_time, sum_over_time, and sum, avg, min, max and count by",
		`env_temp / env_hum`:                                                "arithmetic of two vectors is not supported; one side must be a number",
		`sum without (device) (env_temp)`:                                   "without is not supported; name the labels to keep: by (…)",
		`env_temp > 5`:                                                      `the operator ">" is not supported`,
		`env_temp and env_hum`:                                              "and is not supported",
		`avg_over_time(env_temp)`:                                           "avg_over_time takes a range vector, such as avg_over_time(temp[5m])",
		`avg_over_time(env_temp[5m:1m])`:                                    "subqueries are not supported",
		`env_temp @ 5`:                                                      "the modifier @ is not supported",
		`{}`:                                                                "a selector needs a name or a matcher that does not match the empty text",
		`{device=~".*"}`:                                                    "a selector needs a name or a matcher that does not match the empty text",
		`{device=~"("}`:                                                     "\"(\" is no regular expression: error parsing regexp: missing closing ): `^(?s:()$`",
		`env_temp{`:                                                         `expected a label at position 10, found ""`,
		`env_temp[5]`:                                                       `expected a duration such as 5m at position 10, found "5]"`,
		``:                                                                  "the query ends where a selector, a function or a number is expected",
		`sum(env_temp[5m])`:                                                 "sum takes an instant vector",
		`env_temp[5m] + 1`:                                                  "a range vector stands in a function such as avg_over_time only",
		`env_temp )`:                                                        `unexpected ")" at position 10`,
		strings.Repeat("(", 100) + "1" + strings.Repeat(")", 100): "the query is nested deeper than 30",
		strings.Repeat("-", 100) + "1":                            "the query is nested deeper than 30",
	} {
		_, err := parsePromQL(query)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s\n got %s\nwant %s", query, got, want)
		}
	}
}

func FuzzPromQL(f *testing.F) {
	for _, s := range []string{`sum by (a) (avg_over_time(x{y=~"z"}[5m] offset 1h)) * 2`, `{a="\u00e9"}`, `1e5 + .5`, `x[1h30m]`, "x{a=`b`}", `--1`, `((`, `x{a="`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := parsePromQL(text)
		if _, ours := err.(promError); err != nil && !ours {
			t.Fatalf("%T: %v", err, err)
		}
		if err == nil && e.number == nil && e.selector == nil && e.function == "" && e.group == nil && e.operator == 0 {
			t.Fatalf("%q is nothing", text)
		}
	})
}

// Raw HTTP as Grafana speaks it: the answers of a Prometheus server, within the rights of the token.
func TestPrometheusReads(t *testing.T) {
	w := newWorld(t)
	w.ask("owner", "PUT", "/v1/products/"+w.product+"/catalogue", `{"fields":[{"stream":"env","name":"temp","unit":"Cel","purpose":"keeps food"}]}`, nil)
	var records []gateway.Record
	for i, d := range w.devices {
		for seq := 1; seq <= 5; seq++ {
			records = append(records, message(d.ID, t0.Add(time.Duration(seq)*time.Minute), seq, float64(10*i+seq)))
		}
	}
	w.append(records...)
	w.compactAll()
	w.clk.Set(t0.Add(5 * time.Minute))
	prom := func(who, path string, q url.Values) string {
		t.Helper()
		code, body := w.as(who, "GET", "/v1/prometheus/api/v1/"+path+"?"+q.Encode(), "")
		return fmt.Sprintf("%d %s", code, strings.TrimSpace(strings.NewReplacer(w.devices[0].ID, "D0", w.devices[1].ID, "D1", w.devices[2].ID, "D2", w.homes[0], "S0", w.homes[1], "S1").Replace(body)))
	}
	at := func(minute float64) string { return fmt.Sprint(float64(t0.Unix()) + minute*60) }
	metric := func(i, home int, name string) string {
		if name != "" {
			name = `"__name__":"` + name + `",`
		}
		return fmt.Sprintf(`{%s"device":"D%d","field":"temp","product":"fridge","serial":"SN-%d","solution":"S%d","stream":"env"}`, name, i, i, home)
	}
	vector := func(parts ...string) string {
		return `200 {"status":"success","data":{"result":[` + strings.Join(parts, ",") + `],"resultType":"vector"}}`
	}
	one := func(m, v string) string {
		return fmt.Sprintf(`{"metric":%s,"value":[%d,"%s"]}`, m, t0.Unix()+300, v)
	}
	name := "env_temp"
	for _, c := range []struct{ who, query, want string }{
		{"owner", `env_temp{serial="SN-1"}`, vector(one(metric(1, 0, name), "15"))},
		{"owner", `env_temp`, vector(one(metric(0, 0, name), "5"), one(metric(1, 0, name), "15"), one(metric(2, 1, name), "25"))},
		{"shop", `env_temp`, vector(one(metric(0, 0, name), "5"), one(metric(1, 0, name), "15"))}, // within the rights
		{"stranger", `env_temp`, vector()},
		{"owner", `env_temp{device="D2"} offset 3m`, vector(one(metric(2, 1, name), "22"))},
		{"owner", `env_temp{serial=~"SN-[01]",device!="D0"} * 2 + 1`, vector(one(metric(1, 0, ""), "31"))},
		{"owner", `100 - env_temp{serial="SN-0"}`, vector(one(metric(0, 0, ""), "95"))},
		{"owner", `avg_over_time(env_temp{serial="SN-0"}[3m])`, vector(one(metric(0, 0, ""), "4"))}, // (t-3m, t]
		{"owner", `count_over_time(env_temp{serial="SN-0"}[3m])`, vector(one(metric(0, 0, ""), "3"))},
		{"owner", `sum(env_temp)`, vector(one(`{}`, "45"))},
		{"owner", `avg by (solution) (env_temp)`, vector(one(`{"solution":"S0"}`, "10"), one(`{"solution":"S1"}`, "25"))},
		{"owner", `count(env_temp) by (product)`, vector(one(`{"product":"fridge"}`, "3"))},
		{"owner", `env_hum`, vector()},
		{"owner", `1+1`, fmt.Sprintf(`200 {"status":"success","data":{"result":[%d,"2"],"resultType":"scalar"}}`, t0.Unix()+300)},
		{"owner", `env_temp{serial="SN-0"}[90s]`, fmt.Sprintf(`200 {"status":"success","data":{"result":[{"metric":%s,"values":[[%d,"4"],[%d,"5"]]}],"resultType":"matrix"}}`, metric(0, 0, name), t0.Unix()+240, t0.Unix()+300)},
		{"owner", `rate(env_temp[5m])`, `400 {"status":"error","errorType":"bad_data","error":"the function rate is not supported; supported are avg_over_time, count_over_time, last_over_time, max_over_time, min_over_time, sum_over_time, and sum, avg, min, max and count by"}`},
	} {
		query := strings.NewReplacer("D0", w.devices[0].ID, "D2", w.devices[2].ID).Replace(c.query)
		if d := cmp.Diff(c.want, prom(c.who, "query", url.Values{"query": {query}})); d != "" {
			t.Errorf("%s as %s (-want +got):\n%s", c.query, c.who, d)
		}
	}
	got := prom("owner", "query_range", url.Values{"query": {`max_over_time(env_temp{serial="SN-0"}[1m])`}, "start": {at(0)}, "end": {at(7)}, "step": {"60"}})
	want := fmt.Sprintf(`200 {"status":"success","data":{"result":[{"metric":%s,"values":[[%d,"1"],[%d,"2"],[%d,"3"],[%d,"4"],[%d,"5"]]}],"resultType":"matrix"}}`,
		metric(0, 0, ""), t0.Unix()+60, t0.Unix()+120, t0.Unix()+180, t0.Unix()+240, t0.Unix()+300)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("query_range (-want +got):\n%s", d)
	}
	// What was said last holds for five minutes, then it is stale.
	got = prom("owner", "query_range", url.Values{"query": {`env_temp{serial="SN-0"}`}, "start": {at(5)}, "end": {at(15)}, "step": {"1m"}})
	if n := strings.Count(got, `"5"`); n != 5 {
		t.Errorf("the last value stands at %d minutes: %s", n, got)
	}
	for path, want := range map[string]string{
		"labels":                `200 {"status":"success","data":["__name__","device","field","product","serial","solution","stream"]}`,
		"label/__name__/values": `200 {"status":"success","data":["env_temp"]}`,
		"label/serial/values":   `200 {"status":"success","data":["SN-0","SN-1","SN-2"]}`,
		"label/nothing/values":  `200 {"status":"success","data":[]}`,
		"metadata":              `200 {"status":"success","data":{"env_temp":[{"type":"gauge","help":"keeps food","unit":"Cel"}]}}`,
		"series":                `400 {"status":"error","errorType":"bad_data","error":"no match[] parameter provided"}`,
		"query_range":           `400 {"status":"error","errorType":"bad_data","error":"\"\" is no duration"}`,
	} {
		if d := cmp.Diff(want, prom("owner", path, nil)); d != "" {
			t.Errorf("%s (-want +got):\n%s", path, d)
		}
	}
	if d := cmp.Diff(`200 {"status":"success","data":[`+metric(2, 1, name)+`]}`, prom("owner", "series", url.Values{"match[]": {`{solution="` + w.homes[1] + `"}`}})); d != "" {
		t.Errorf("series (-want +got):\n%s", d)
	}
	if got := prom("owner", "query_range", url.Values{"query": {"env_temp"}, "start": {at(0)}, "end": {at(100_000)}, "step": {"1s"}}); !strings.Contains(got, "more than 11000 points") {
		t.Errorf("a million points: %s", got)
	}
	var info struct{ Data map[string]string }
	w.ask("owner", "GET", "/v1/prometheus/api/v1/status/buildinfo", "", &info)
	if info.Data["version"] != promVersion {
		t.Errorf("buildinfo: %v", info)
	}
	b, err := json.Marshal(promPoint{1_700_000_000_500, 0.1})
	if err != nil || string(b) != `[1700000000.5,"0.1"]` {
		t.Errorf("a point is %s, %v", b, err)
	}
}
