// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"errors"
	"testing"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// TestDevicesAreSentElsewhere: the host empties the MQTT door, takes the order back, and a wrong address is refused.
func TestDevicesAreSentElsewhere(t *testing.T) {
	w := newWorld(t, "")
	u := w.newMaker("Lumen GmbH").make()
	c, err := w.mqtt(u.ldevid)
	if err != nil {
		t.Fatal(err)
	}
	var a ElsewhereAnswer
	ask := func(in ElsewhereRequest) error { return Host(t.Context(), w.cfg.Data, "/elsewhere", in, &a) }
	for _, in := range []ElsewhereRequest{{Server: "no port"}, {Server: ":8883"}, {Server: "node2:8883", Pace: -1}} {
		if err := ask(in); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("%+v: %v", in, err)
		}
	}
	if err := ask(ElsewhereRequest{Server: "node2:8883", Pace: 10}); err != nil || a.Told != 1 {
		t.Errorf("told %d, %v", a.Told, err)
	}
	<-c.Done()
	var why *mqtt.Error
	if !errors.As(c.Err(), &why) || why.Reason != mqtt.UseAnotherServer {
		t.Errorf("the session ended with %v", c.Err())
	}
	if _, err := w.mqtt(u.ldevid); !errors.As(err, &why) || why.Reason != mqtt.UseAnotherServer {
		t.Errorf("CONNECT: %v", err)
	}
	if err := ask(ElsewhereRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := w.mqtt(u.ldevid); err != nil {
		t.Errorf("CONNECT after the order was taken back: %v", err)
	}
}
