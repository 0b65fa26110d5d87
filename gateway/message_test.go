// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/gateway"
)

// What MQTT 5 says in properties stands beside the body over HTTPS: the device's count, the media type, and a body that
// is no JSON.
func TestPostedMessageSaysWhatPropertiesSay(t *testing.T) {
	h := newHouse(t, gateway.Limits{})
	c := h.device("dev_1")
	web := h.web(&c)
	for body, want := range map[string]int{
		`[{"topic":"tele/env","data":"gaMA","payload":[1]}]`:                                         400, // two bodies
		`[{"topic":"tele/env","boot":1}]`:                                                            400, // none
		`[{"topic":"tele/env","payload":[],"type":"///"}]`:                                           400,
		`[{"topic":"tele/env","boot":3,"seq":7,"type":"Application/SenML+CBOR; v=1","data":"gaMA"}]`: 200,
	} {
		if status, answer, err := h.do(web, "POST", "/d/1/messages", body); err != nil || status != want {
			t.Errorf("%s: %d %v %v", body, status, answer, err)
		}
	}
	got := h.appended()
	for i := range got {
		got[i].At = 0
	}
	want := []gateway.Record{{Tenant: "acme", Device: "dev_1", Topic: "tele/env", Boot: 3, Seq: 7, Type: "application/senml+cbor", Body: []byte{0x81, 0xa3, 0}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("records (-want +got):\n%s", d)
	}
}
