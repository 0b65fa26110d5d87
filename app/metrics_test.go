// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The platform's own numbers are for who holds the token of its files, not for a tenant's.
func TestMetricsNeedTheirToken(t *testing.T) {
	w := newWorld(t, "")
	m := w.newMaker("Acme")
	c := w.client(nil)
	b, err := os.ReadFile(filepath.Join(w.h.cfg.Data, MetricsTokenFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"", m.owner, "x"} {
		if a, err := w.do(c, "GET", w.info.URL+"/metrics", token, "", nil); err != nil || a.status != 401 || strings.Contains(string(a.body), "openthings_mqtt_sessions") {
			t.Errorf("with %q: %d %s %v", token, a.status, a.body, err)
		}
	}
	a, err := w.do(c, "GET", w.info.URL+"/metrics", strings.TrimSpace(string(b)), "", nil)
	if err != nil || a.status != 200 {
		t.Fatalf("%d %s %v", a.status, a.body, err)
	}
	for _, name := range []string{"openthings_mqtt_sessions", "openthings_messages_acknowledged_total", "openthings_refusals_total", "openthings_door_half_open", "openthings_door_refused_source_total", "openthings_inbox_messages", "openthings_messages_dropped_total"} {
		if !regexp.MustCompile(`(?m)^# TYPE ` + name + ` (gauge|counter)\n` + name + ` [0-9.e+]+$`).Match(a.body) {
			t.Errorf("%s is absent in\n%s", name, a.body)
		}
	}
	if st, err := os.Stat(filepath.Join(w.h.cfg.Data, MetricsTokenFile)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the token's file: %v %v", st.Mode(), err)
	}
}
