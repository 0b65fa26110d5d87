// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"bufio"
	"context"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
)

// MetricsTokenFile holds the token of GET /metrics, in the data folder, for the owner of the platform's files only. It is
// the same after a restart and on all nodes that share their keys.
const MetricsTokenFile = "metrics.token"

// counts are the platform's own counters since its start.
type counts struct {
	receipts, withheld, refusals atomic.Int64
}

// receive is telemetry.Append, counted.
func (h *house) receive(ctx context.Context, records []gateway.Record) error {
	err := h.telemetry.Append(ctx, records)
	if err != nil {
		h.counts.withheld.Add(int64(len(records)))
		return err
	}
	h.counts.receipts.Add(int64(len(records)))
	return nil
}

// metricsToken makes the token and leaves it in the data folder.
func (h *house) metricsToken() (string, error) {
	key, err := h.keys.Derive("app.metrics-token")
	if err != nil {
		return "", err
	}
	token := hex.EncodeToString(key)
	path := filepath.Join(h.cfg.Data, MetricsTokenFile)
	if had, err := os.ReadFile(path); err == nil && string(had) == token+"\n" {
		return token, nil
	}
	return token, os.WriteFile(path, []byte(token+"\n"), 0o600)
}

// metrics answers in the text format of Prometheus, to whoever has the token. The numbers are of the whole platform, so
// no token of a tenant opens them.
func (h *house) metrics(token string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(api.Bearer(r)), []byte(token)) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="openthings metrics"`)
			gateway.WriteProblem(w, problem.Unauthenticated("This needs the token in %s of the data folder.", MetricsTokenFile))
			return
		}
		depth, err := h.telemetry.Depth(r.Context())
		if err != nil {
			h.cfg.Log.ErrorContext(r.Context(), "metrics", "err", err)
			gateway.WriteProblem(w, problem.Unavailable("The inbox cannot be counted now.").Because(err))
			return
		}
		behind := int64(0)
		if h.audit.Behind() {
			behind = 1
		}
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		doors := h.gateway.Load()
		out := bufio.NewWriter(w)
		for _, m := range []struct {
			name, kind, help string
			value            float64
		}{
			{"openthings_mqtt_sessions", "gauge", "MQTT sessions of devices at this node.", float64(doors.Sessions)},
			{"openthings_door_connections", "gauge", "Connections of devices at this node.", float64(doors.Connections)},
			{"openthings_door_half_open", "gauge", "Of them, those that have not said who they are.", float64(doors.HalfOpen)},
			{"openthings_door_handshakes_working", "gauge", "Handshakes that compute.", float64(doors.Working)},
			{"openthings_door_handshakes_waiting", "gauge", "Handshakes that wait for their turn to compute.", float64(doors.Waiting)},
			{"openthings_door_refused_line_total", "counter", "Connections turned away before TLS because too many were half-open, since the start.", float64(doors.Refused["door"])},
			{"openthings_door_refused_source_total", "counter", "Connections turned away because too many of their source were half-open, since the start.", float64(doors.Refused["source"])},
			{"openthings_door_refused_connections_total", "counter", "Connections turned away because there were as many as there may be, since the start.", float64(doors.Refused["connections"])},
			{"openthings_door_held_bytes", "gauge", "Bytes of large packets, bodies and unread output.", float64(doors.Held)},
			{"openthings_door_starved_total", "counter", "Large packets, bodies and outputs that found no room, since the start.", float64(doors.Starved)},
			{"openthings_messages_acknowledged_total", "counter", "Messages of devices that were made durable, since the start.", float64(h.counts.receipts.Load())},
			{"openthings_messages_withheld_total", "counter", "Messages that could not be made durable and were not acknowledged, since the start.", float64(h.counts.withheld.Load())},
			{"openthings_messages_dropped_total", "counter", "Messages of QoS 0 that found no room, since the start.", float64(doors.Dropped)},
			{"openthings_refusals_total", "counter", "Refusals by policy, of devices, people and programs, since the start.", float64(h.counts.refusals.Load())},
			{"openthings_inbox_commits", "gauge", "Group commits that wait to be compacted.", float64(depth.Commits)},
			{"openthings_inbox_messages", "gauge", "Messages in them.", float64(depth.Records)},
			{"openthings_inbox_age_seconds", "gauge", "How long the oldest of them waits.", depth.Oldest.Seconds()},
			{"openthings_inbox_damaged", "gauge", "Damaged commits that were set aside.", float64(depth.SetAside)},
			{"openthings_pending_messages", "gauge", "Messages that wait for the stage that takes them.", float64(depth.Pending)},
			{"openthings_devices_with_gap", "gauge", "Devices of which messages are missing, by their own count.", float64(depth.Gaps)},
			{"openthings_disk_free_bytes", "gauge", "Free on the disk of the telemetry file; not known with PostgreSQL.", h.telemetry.Free()},
			{"openthings_disk_reserve_bytes", "gauge", "Below this much free, messages of devices are refused.", float64(h.cfg.Reserve) * 1e6},
			{"openthings_database_behind", "gauge", "1: the database is older than its journal, and the device doors are shut.", float64(behind)},
			{"go_goroutines", "gauge", "Goroutines.", float64(runtime.NumGoroutine())},
			{"go_memstats_heap_inuse_bytes", "gauge", "Bytes of the heap in use.", float64(mem.HeapInuse)},
			{"go_memstats_sys_bytes", "gauge", "Bytes taken from the system.", float64(mem.Sys)},
		} {
			fmt.Fprintf(out, "# HELP %s %s\n# TYPE %s %s\n%s %g\n", m.name, m.help, m.name, m.kind, m.name, m.value)
		}
		_ = out.Flush() // the client left, nothing to tell
	}
}
