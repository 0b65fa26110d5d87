// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/testpeers"
)

// prometheus is one of Debian's programs of that name.
func prometheus(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is not installed; scripts/deps.sh test does it", program)
	}
	return exec.CommandContext(t.Context(), path, args...)
}

// soon repeats until the answer is there.
func soon(t *testing.T, what string, there func() bool) {
	t.Helper()
	for begun := time.Now(); !there(); {
		if time.Since(begun) > 30*time.Second {
			t.Fatalf("%s within 30 s: no", what)
		}
	}
}

// TestRealPrometheus: a real Prometheus reads the platform's own numbers over TLS with their token, Prometheus' own tool
// reads what devices measured and finds nothing to say about either, and both servers answer every question about the
// same measurements alike.
func TestRealPrometheus(t *testing.T) {
	w := newWorld(t, "")
	m := w.newMaker("Acme")
	dir := t.TempDir()
	b, err := os.ReadFile(w.info.CA)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(dir, "ca.pem")
	if block, _ := pem.Decode(b); block == nil {
		t.Fatal("the anchor is no PEM")
	}
	if err := os.WriteFile(ca, b, 0o600); err != nil {
		t.Fatal(err)
	}

	// Two devices measure every 20 seconds for ten minutes; it has been a while.
	start := time.Now().Add(-30 * time.Minute).Truncate(time.Minute)
	const every, samples = 20 * time.Second, 30
	value := func(unit, i int) float64 { return float64(100*unit) + 10*math.Sin(float64(i)) }
	for u := range 2 {
		c, err := w.mqtt(m.make().ldevid)
		if err != nil {
			t.Fatal(err)
		}
		for i := range samples {
			body, err := json.Marshal(map[string]any{"ts": start.Add(time.Duration(i) * every).UnixMilli(), "values": map[string]float64{"temp": value(u, i)}})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Publish(t.Context(), "ot/1/me/tele/env", body); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
	}
	ours := w.info.URL + "/v1/prometheus"
	ask := func(server, query string) (answer []promSeries) {
		t.Helper()
		cmd := prometheus(t, "promtool", "query", "range", "--format", "json", "--header", "Authorization=Bearer "+m.owner, "--step", "1m",
			"--start", fmt.Sprint(start.Add(-2*time.Minute).Unix()), "--end", fmt.Sprint(start.Add(20*time.Minute).Unix()), "--", server, query)
		cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+ca)
		var complaint bytes.Buffer
		cmd.Stderr = &complaint
		out, err := cmd.Output()
		if err != nil || json.Unmarshal(out, &answer) != nil {
			t.Fatalf("promtool asks %s for %s: %v\n%s%s", server, query, err, out, complaint.String())
		}
		slices.SortFunc(answer, func(a, b promSeries) int { return strings.Compare(fmt.Sprint(a.Metric), fmt.Sprint(b.Metric)) })
		return answer
	}
	var labels []map[string]string // of the devices' series, in the order in which they were made
	soon(t, "the measurements are in chunks", func() bool {
		n := 0
		labels = nil
		for _, s := range ask(ours, `count_over_time(env_temp[30m])`) {
			labels = append(labels, s.Metric)
			if last := s.Values[len(s.Values)-1]; last[1] == fmt.Sprint(samples) {
				n++
			}
		}
		return n == 2 && len(labels) == 2
	})
	slices.SortFunc(labels, func(a, b map[string]string) int { return strings.Compare(a["serial"], b["serial"]) })

	// The same in a real Prometheus, with the labels that the platform gave them.
	var text strings.Builder
	text.WriteString("# TYPE env_temp gauge\n")
	for u, ls := range labels {
		var pairs []string
		for _, k := range slices.Sorted(maps.Keys(ls)) {
			pairs = append(pairs, fmt.Sprintf("%s=%q", k, ls[k]))
		}
		for i := range samples {
			fmt.Fprintf(&text, "env_temp{%s} %s %d\n", strings.Join(pairs, ","), strconv.FormatFloat(value(u, i), 'g', -1, 64), start.Add(time.Duration(i)*every).Unix())
		}
	}
	text.WriteString("# EOF\n")
	data, blocks := filepath.Join(dir, "prometheus"), filepath.Join(dir, "samples.om")
	if err := os.WriteFile(blocks, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := prometheus(t, "promtool", "tsdb", "create-blocks-from", "openmetrics", blocks, data).CombinedOutput(); err != nil {
		t.Fatalf("promtool tsdb: %v\n%s", err, out)
	}
	theirs := w.prometheus(dir, ca, data)

	for _, query := range []string{
		`env_temp`, `env_temp offset 3m`, `env_temp{serial=~".+"} * 2 - 1`, `-env_temp`, `sum(env_temp)`, `avg by (product) (env_temp)`, `count(env_temp) by (serial)`,
		`avg_over_time(env_temp[90s])`, `min_over_time(env_temp[90s])`, `max_over_time(env_temp[90s] offset 1m)`, `sum_over_time(env_temp[50s])`,
		`count_over_time(env_temp[4m10s])`, `last_over_time(env_temp[70s])`, `max(sum_over_time(env_temp[50s]))`, `100 / env_temp{serial="none"}`, `1 + 2 * 3`,
	} {
		if why := differ(ask(ours, query), ask(theirs, query)); why != "" {
			t.Errorf("%s: we say (a) and Prometheus says (b): %s", query, why)
		}
	}
}

// promSeries is a series of a matrix.
type promSeries struct {
	Metric map[string]string `json:"metric"`
	Values [][2]any          `json:"values"`
}

// differ says how two matrices differ by more than the last digits of a sum.
func differ(a, b []promSeries) string {
	if len(a) != len(b) {
		return fmt.Sprintf("%d series, %d series", len(a), len(b))
	}
	for i := range a {
		if !maps.Equal(a[i].Metric, b[i].Metric) || len(a[i].Values) != len(b[i].Values) {
			return fmt.Sprintf("%v with %d points, %v with %d points", a[i].Metric, len(a[i].Values), b[i].Metric, len(b[i].Values))
		}
		for j, p := range a[i].Values {
			x, _ := strconv.ParseFloat(fmt.Sprint(p[1]), 64)
			y, _ := strconv.ParseFloat(fmt.Sprint(b[i].Values[j][1]), 64)
			if p[0] != b[i].Values[j][0] || math.Abs(x-y) > 1e-9*max(1, math.Abs(y)) {
				return fmt.Sprintf("%v: %v, %v", a[i].Metric, p, b[i].Values[j])
			}
		}
	}
	return ""
}

// prometheus starts a real Prometheus on the samples in data, which scrapes the platform; it returns its address once it
// has done so. What it scrapes is also held against its linter.
func (w *world) prometheus(dir, ca, data string) string {
	t := w.t
	t.Helper()
	secret, err := os.ReadFile(filepath.Join(w.h.cfg.Data, MetricsTokenFile))
	if err != nil {
		t.Fatal(err)
	}
	a, err := w.do(w.client(nil), "GET", w.info.URL+"/metrics", strings.TrimSpace(string(secret)), "", nil)
	if err != nil || a.status != http.StatusOK {
		t.Fatalf("%d %v", a.status, err)
	}
	lint := prometheus(t, "promtool", "check", "metrics")
	lint.Stdin = bytes.NewReader(a.body)
	if out, err := lint.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	at, err := url.Parse(w.info.URL)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
scrape_configs:
  - job_name: openthings
    scheme: https
    scrape_interval: 1s
    tls_config: {ca_file: %q}
    authorization: {credentials_file: %q}
    static_configs: [{targets: [%q]}]
`, ca, filepath.Join(w.h.cfg.Data, MetricsTokenFile), at.Host), 0o600); err != nil {
		t.Fatal(err)
	}
	port, err := testpeers.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	server := prometheus(t, "prometheus", "--config.file="+config, "--storage.tsdb.path="+data, "--web.listen-address="+addr, "--log.level=warn")
	var log bytes.Buffer
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Kill() //nolint:errcheck // it has ended
		server.Wait()         //nolint:errcheck // killed
		if t.Failed() {
			t.Logf("log of Prometheus:\n%s", log.String())
		}
	})
	soon(t, "Prometheus has read the platform's numbers", func() bool {
		a, err := w.do(http.DefaultClient, "GET", "http://"+addr+"/api/v1/query?query="+url.QueryEscape(`openthings_messages_acknowledged_total{job="openthings"} and on() up == 1`), "", "", nil)
		return err == nil && strings.Contains(string(a.body), `"60"]`)
	})
	return "http://" + addr
}
