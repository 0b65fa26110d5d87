// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNotifications executes docs/notifications.md: a pager, a SIEM and Jira each take a test, with the key that is theirs.
func TestNotifications(t *testing.T) {
	const routingKey, jiraSecret = "e93facc04764012d7bfb002500d5d1a6", "a-secret-of-jira"
	heard := make(chan string, 10)
	tools := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/v2/enqueue":
			var e struct {
				Key    string `json:"routing_key"`
				Action string `json:"event_action"`
				Dedup  string `json:"dedup_key"`
			}
			if json.Unmarshal(body, &e) != nil || e.Key != routingKey || e.Dedup == "" {
				t.Errorf("the pager got %s", body)
			}
			w.WriteHeader(http.StatusAccepted)
			heard <- "pager " + e.Action
		default:
			if r.Header.Get("X-Automation-Webhook-Token") != jiraSecret || r.Header.Get("webhook-signature") == "" {
				t.Errorf("Jira got %v", r.Header)
			}
			heard <- "jira " + r.URL.Path
		}
	}))
	defer tools.Close()
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS()
	defer cert.Close()
	siem, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: cert.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	defer siem.Close()
	go func() {
		for {
			c, err := siem.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(c).ReadString('{')
			_, _ = io.Copy(io.Discard, c)
			c.Close()
			if !strings.Contains(line, ` openthings - notify.test [origin software="OpenThings"]`) {
				t.Errorf("the SIEM got %q", line)
			}
			heard <- "siem"
		}
	}()
	p := readPage(t, "notifications.md")
	p.replace(t, "https://events.pagerduty.com/v2/enqueue", tools.URL+"/v2/enqueue")
	p.replace(t, "siem.example:6514", siem.Addr().String())
	p.replace(t, "echo '--- block 1'\n", `openthings up --data "$PWD/platform" --private-hooks &
again curl -sSf "http://$OPENTHINGS_HEALTH_LISTEN/readyz"
export OPENTHINGS_URL=https://$OPENTHINGS_LISTEN OPENTHINGS_DATA_DIR=$PWD/platform OPENTHINGS_CA=$PWD/platform/ca.pem
export OPENTHINGS_TOKEN=$(openthings token create --tenant Lumen --role owner --create)
`)
	p.env = append(p.env, "ROUTING_KEY="+routingKey, "JIRA_SECRET="+jiraSecret, "JIRA_URL="+tools.URL+"/pro/hooks/1")
	if err := os.WriteFile(filepath.Join(p.dir, "siem-ca.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	p.script += "kill %1\nwait\n"
	out := p.run(t, "openthings")
	if !strings.Contains(out, "case.duty_ended") || strings.Contains(out, routingKey) || strings.Contains(out, jiraSecret) {
		t.Errorf("the reader sees\n%s", out)
	}
	got := map[string]bool{<-heard: true, <-heard: true, <-heard: true}
	for _, want := range []string{"pager trigger", "siem", "jira /pro/hooks/1"} {
		if !got[want] {
			t.Errorf("%s: heard %v", want, got)
		}
	}
	err = filepath.WalkDir(filepath.Join(p.dir, "platform"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil
		}
		if strings.Contains(string(b), routingKey) || strings.Contains(string(b), jiraSecret) {
			t.Errorf("%s holds a key", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
