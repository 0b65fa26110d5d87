// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"flag"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/openthings-platform/openthings/clock"
)

var rewrite = flag.Bool("update", false, "write docs/reference/openapi.json anew")

// docs/reference/openapi.json is what the platform itself serves: a change of the API is seen in review. No door is
// opened for it.
func TestReference(t *testing.T) {
	h, err := open(t.Context(), Config{Data: t.TempDir(), Names: []string{"localhost"}, Log: slog.New(slog.DiscardHandler), Clock: clock.System}, []string{"https://localhost"})
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	served := httptest.NewRecorder()
	h.web().ServeHTTP(served, httptest.NewRequest("GET", "/openapi.json", nil))
	if served.Code != 200 {
		t.Fatalf("/openapi.json: %d %s", served.Code, served.Body)
	}
	file := filepath.Join("..", "docs", "reference", "openapi.json")
	if *rewrite {
		if err := os.WriteFile(file, served.Body.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(golden) != served.Body.String() {
		t.Error("docs/reference/openapi.json lags behind: go test ./app -run TestReference -update")
	}
}
