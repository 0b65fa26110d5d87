// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// A device that sends without end is refused by name of the rule, over both doors, and is taken again later; another
// device's receipts come all the while. A 3.1.1 device, which cannot be told, is read no faster than its quota.
func TestQuotaStarvesNobodyElse(t *testing.T) {
	h := newHouse(t, gateway.Limits{Device: gateway.Quota{Messages: 2, Burst: 2 * time.Second}})
	greedyCert := h.device("dev_greedy")
	greedy, modest := h.session(greedyCert, mqtt.V5), h.session(h.device("dev_modest"), mqtt.V5)
	accepted, refused := 0, 0
	for id := uint16(1); refused == 0 && id < 60; id++ {
		greedy.send(qos1(id, "ot/1/me/tele/env", `{"values":{"a":1}}`))
		a, ok := greedy.next().(*mqtt.Ack)
		switch {
		case !ok || a.ID != id:
			t.Fatalf("message %d was answered by %+v", id, a)
		case a.Reason == mqtt.QuotaExceeded && strings.Contains(a.Properties.Str(mqtt.ReasonString), "quota.device"):
			refused++
		case a.Reason == mqtt.Success:
			accepted++
		default:
			t.Fatalf("message %d was answered by %+v", id, a)
		}
	}
	if refused == 0 || accepted < 4 {
		t.Errorf("%d messages were accepted and %d refused", accepted, refused)
	}
	h.await("refused dev_greedy quota.device")
	modest.send(qos1(1, "ot/1/me/tele/env", `{"values":{"a":1}}`))
	modest.wantAck(1, mqtt.Success)

	client := &http.Client{Transport: &http.Transport{TLSClientConfig: h.clientTLS(&greedyCert)}}
	defer client.CloseIdleConnections()
	limited := 0
	for i := 0; limited == 0 && i < 60; i++ {
		resp, err := client.Post("https://"+h.https+"/d/1/messages", "application/json", strings.NewReader(`[{"topic":"tele/env","payload":{"values":{"a":1}}}]`))
		if err != nil {
			t.Fatal(err)
		}
		var p struct{ Rule string }
		err = json.NewDecoder(resp.Body).Decode(&p)
		resp.Body.Close()
		if resp.StatusCode == http.StatusTooManyRequests && err == nil && p.Rule == "quota.device" && resp.Header.Get("Retry-After") != "" {
			limited++
		} else if resp.StatusCode != http.StatusOK {
			t.Fatalf("POST answered %s, rule %q, %v", resp.Status, p.Rule, err)
		}
	}
	if limited == 0 {
		t.Error("sixty requests in a row were taken")
	}

	old := h.session(h.device("dev_old"), mqtt.V4)
	begin := time.Now()
	for id := uint16(1); id <= 8; id++ {
		old.send(qos1(id, "ot/1/me/tele/env", `{"values":{"a":1}}`))
	}
	for id := uint16(1); id <= 8; id++ {
		old.wantAck(id, mqtt.Success)
	}
	if waited := time.Since(begin); waited < time.Second { // 5 at once, 3 at two a second
		t.Errorf("eight messages of a 3.1.1 device were read in %s", waited)
	}
	n := 0
	for _, r := range h.appended() {
		if r.Device == "dev_greedy" && bytes.Contains(r.Body, []byte(`"a":1`)) {
			n++
		}
	}
	if n < accepted {
		t.Errorf("%d messages of the greedy device were kept, %d acknowledged", n, accepted)
	}
}
