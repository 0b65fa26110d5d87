// SPDX-License-Identifier: AGPL-3.0-only

package api

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

func TestIdempotencyKey(t *testing.T) {
	storetest.Each(t, []store.Migrations{Schema}, func(t *testing.T, db *store.DB) {
		d := open(t, func(c *Config) { c.DB = db })
		var effects atomic.Int64
		hold := make(chan struct{})
		Handle(d.API, Op{ID: "count", Method: "POST", Path: "/v1/counts", Verb: "thing.write", Status: 201},
			func(ctx context.Context, in *struct{ Body thing }) (*Out[thing], error) {
				if in.Body.Name == "refuse" {
					return nil, problem.Conflict("Not now.")
				}
				if in.Body.Name == "hold" {
					<-hold
				}
				effects.Add(1)
				return &Out[thing]{Location: fmt.Sprint("/v1/counts/", effects.Load()), Body: in.Body}, nil
			})
		Handle(d.API, Op{ID: "secret", Method: "POST", Path: "/v1/secrets", Verb: "thing.write", Secret: true},
			func(ctx context.Context, _ *struct{}) (*Out[string], error) {
				effects.Add(1)
				return One("s3cret-of-the-day"), nil
			})
		Raw(d.API, Op{ID: "stream", Method: "POST", Path: "/v1/streams", Verb: "thing.write"}, func(w http.ResponseWriter, r *http.Request) error {
			effects.Add(1)
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n)
			return err
		})
		post := func(path, body, key string, header ...string) answer {
			return d.do(t, "POST", path, body, append([]string{"Idempotency-Key", key}, header...)...)
		}
		took := func(want int64, what string) {
			t.Helper()
			if n := effects.Swap(0); n != want {
				t.Errorf("%s took effect %d times, want %d", what, n, want)
			}
		}

		one := post("/v1/counts", `{"id":"x","name":"name"}`, "k1")
		two := post("/v1/counts", `{"id":"x","name":"name"}`, "k1")
		if one.StatusCode != 201 || two.StatusCode != 201 || one.body != two.body || one.Header.Get("Location") != two.Header.Get("Location") ||
			two.Header.Get("Idempotency-Replayed") != "true" || two.Header.Get("Content-Type") != one.Header.Get("Content-Type") {
			t.Errorf("first %d %q, repeated %d %q", one.StatusCode, one.body, two.StatusCode, two.body)
		}
		took(1, "a repeated request")

		if a := post("/v1/counts", `{"id":"x","name":"other"}`, "k1"); a.StatusCode != 422 {
			t.Errorf("another body under the same key: %d %s", a.StatusCode, a.body)
		}
		if a := post("/v1/streams", `{"id":"x","name":"name"}`, "k1"); a.StatusCode != 422 {
			t.Errorf("another operation under the same key: %d %s", a.StatusCode, a.body)
		}
		took(0, "a reused key")
		if a := post("/v1/counts", `{"id":"x","name":"other"}`, "k1", "Authorization", "Bearer another"); a.StatusCode != 201 {
			t.Errorf("another caller shares no keys: %d %s", a.StatusCode, a.body)
		}
		took(1, "another caller")

		for range 2 {
			if a := post("/v1/counts", `{"id":"x","name":"refuse"}`, "k2"); a.StatusCode != 409 || a.Header.Get("Idempotency-Replayed") != "" {
				t.Errorf("refused: %d %s", a.StatusCode, a.body)
			}
		}
		if a := post("/v1/counts", `{"id":"x","name":"name"}`, "k2"); a.StatusCode != 201 {
			t.Errorf("a key is free again after a refusal: %d %s", a.StatusCode, a.body)
		}
		took(1, "the request after a refusal")

		if a := post("/v1/secrets", "", "key-three"); a.StatusCode != 200 {
			t.Errorf("secret: %d %s", a.StatusCode, a.body)
		}
		if a := post("/v1/secrets", "", "key-three"); a.StatusCode != 409 || strings.Contains(a.body, "s3cret") {
			t.Errorf("a secret was repeated: %d %s", a.StatusCode, a.body)
		}
		rows, err := db.Query(t.Context(), `SELECT key, body FROM api_idempotency`)
		lie, err := store.Collect(rows, err, func(r *sql.Rows) (s string, err error) {
			var body []byte
			err = r.Scan(&s, &body)
			return s + string(body), err
		})
		if all := strings.Join(lie, "\n"); err != nil || len(lie) < 3 || strings.Contains(all, "s3cret") || strings.Contains(all, "Content-Type") || strings.Contains(all, "key-three") {
			t.Errorf("what was answered, or the key that opens it, lies in the database (%v): %q", err, all)
		}
		took(1, "the secret")

		big := strings.Repeat("z", 100_000)
		if a, b := post("/v1/streams", big, "k4"), post("/v1/streams", big, "k4"); a.body != "100000" || b.body != a.body {
			t.Errorf("stream: %q, repeated %q", a.body, b.body)
		}
		took(1, "a repeated stream")

		var wg sync.WaitGroup
		wg.Go(func() { post("/v1/counts", `{"id":"x","name":"hold"}`, "k5") })
		for busy := int64(0); busy == 0; {
			if err := db.QueryRow(t.Context(), `SELECT COUNT(*) FROM api_idempotency WHERE status = 0`).Scan(&busy); err != nil {
				t.Fatal(err)
			}
		}
		if a := post("/v1/counts", `{"id":"x","name":"hold"}`, "k5"); a.StatusCode != 409 {
			t.Errorf("at the same time: %d %s", a.StatusCode, a.body)
		}
		close(hold)
		wg.Wait()
		took(1, "two at the same time")

		d.clk.Advance(keepKeys + time.Second)
		if a := post("/v1/counts", `{"id":"x","name":"name"}`, "k1"); a.StatusCode != 201 || a.Header.Get("Idempotency-Replayed") != "" {
			t.Errorf("after a day: %d %s", a.StatusCode, a.body)
		}
		took(1, "a key older than a day")
	})
}
