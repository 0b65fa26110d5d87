// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/wire/mqtt"
)

// TestEveryReceiptHasATaker: an event that got its PUBACK is read over the API, and what no stage takes gets none.
func TestEveryReceiptHasATaker(t *testing.T) {
	w := newWorld(t, "")
	m := w.newMaker("Acme")
	u := m.make()
	c, err := w.mqtt(u.ldevid)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var refused *mqtt.Error
	if err := c.Publish(t.Context(), "ot/1/me/state/wished", []byte(`{}`)); !errors.As(err, &refused) || refused.Reason != mqtt.NotAuthorized || !strings.Contains(err.Error(), "no part of the platform keeps") {
		t.Errorf("a class that nobody keeps: %v", err)
	}
	if err := c.Publish(t.Context(), "ot/1/me/event/tamper", []byte(`{"detail":"the lid was opened"}`)); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	reader := w.client(nil)
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		a, err := w.do(reader, "GET", w.info.URL+"/v1/devices/"+u.id+"/events", m.owner, "", nil)
		if err == nil && a.status == 200 && strings.Contains(string(a.body), "the lid was opened") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the event is not readable: %d %s %v", a.status, a.body, err)
		}
	}
}
