// SPDX-License-Identifier: AGPL-3.0-only

package tenant_test

import (
	"log/slog"
	"testing"
)

// testLogger writes the platform's log into the test's.
func testLogger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(writer{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

type writer struct{ t testing.TB }

func (w writer) Write(b []byte) (int, error) { w.t.Log(string(b)); return len(b), nil }
