// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/wire"
)

// TestClockSetWhileItIsAsked: what the platform said of the time is not taken for the time of a clock that was set meanwhile.
func TestClockSetWhileItIsAsked(t *testing.T) {
	hand := clock.NewHand(released.AddDate(0, 1, 0))
	var set time.Duration
	platform := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(wire.Time{Now: hand.Now().UnixMilli()})
		hand.Advance(set)
	}))
	defer platform.Close()
	d := disk{dir: t.TempDir()}
	a := &agent{Config: Config{HTTPS: strings.TrimPrefix(platform.URL, "https://"), Clock: hand, Log: slog.New(slog.DiscardHandler)}, disk: d, time: openCalendar(hand, d)}
	for _, set = range []time.Duration{47 * 24 * time.Hour, -time.Hour} {
		if err := a.askTime(t.Context(), platform.Client()); err == nil {
			t.Errorf("set by %s: the answer was believed", set)
		}
		if _, sure := a.time.now(); sure {
			t.Errorf("set by %s: the device is sure of the time", set)
		}
	}
	set = 0
	if err := a.askTime(t.Context(), platform.Client()); err != nil {
		t.Fatal(err)
	}
	if now, sure := a.time.now(); !sure || !now.Equal(hand.Now().Truncate(time.Millisecond)) {
		t.Errorf("asked in quiet it is %s (sure: %v), want %s", now, sure, hand.Now())
	}
}
