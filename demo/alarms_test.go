// SPDX-License-Identifier: AGPL-3.0-only

package demo

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// alarmed has a device break a rule whose on-call system hears of it and one whose has gone, and returns the alarm's id.
func (w *world) alarmed(ctx context.Context, t *testing.T, d *device) string {
	t.Helper()
	heard := make(chan struct{}, 100)
	well := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { heard <- struct{}{} }))
	t.Cleanup(well.Close)
	gone := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) }))
	t.Cleanup(gone.Close)
	var latest struct {
		Streams []struct {
			Stream string
			Values map[string]float64
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(w.get(ctx, "/v1/devices/"+d.id+"/telemetry/latest", &latest))
	if len(latest.Streams) == 0 {
		t.Fatal("the device has measured nothing")
	}
	stream, field := latest.Streams[0].Stream, ""
	for name := range latest.Streams[0].Values {
		field = max(field, name)
	}
	must(w.post(ctx, "/v1/notifications/endpoints", map[string]any{"name": "On-call", "kind": "webhook", "address": well.URL, "topics": []string{"alarm.*"}}, nil))
	must(w.post(ctx, "/v1/notifications/endpoints", map[string]any{"name": "Old pager", "kind": "webhook", "address": gone.URL, "topics": []string{"*"}}, nil))
	must(w.post(ctx, "/v1/alarm-rules", map[string]any{"name": "Uses too much", "kind": "threshold", "stream": stream, "field": field, "op": ">", "value": -40, "severity": "critical", "filter": "serial:" + d.serial}, nil))
	must(w.post(ctx, "/v1/alarm-rules", map[string]any{"name": "Silent", "kind": "absence", "window_seconds": 3600, "severity": "warning"}, nil))
	must(w.post(ctx, "/v1/alarm-rules", map[string]any{"name": "Break-in", "kind": "events", "event": "login-failed", "count": 5, "window_seconds": 600, "severity": "critical", "signal": true, "off": true}, nil))
	select {
	case <-heard:
	case <-time.After(time.Minute):
		t.Fatal("nobody heard of the alarm")
	}
	for until := time.Now().Add(time.Minute); ; { // the other one has said that it is gone
		var failed struct{ Items []struct{ Answer string } }
		must(w.get(ctx, "/v1/notifications/deliveries?state=failed", &failed))
		if len(failed.Items) > 0 {
			break
		}
		if time.Now().After(until) {
			t.Fatal("the endpoint that is gone was not noticed")
		}
	}
	var alarms struct{ Items []struct{ ID string } }
	must(w.get(ctx, "/v1/alarms?state=open&device="+d.id, &alarms))
	if len(alarms.Items) != 1 {
		t.Fatalf("%d alarms are open", len(alarms.Items))
	}
	return alarms.Items[0].ID
}
