// SPDX-License-Identifier: AGPL-3.0-only

package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// outsider knows the log by its API and its key alone.
type outsider struct {
	t    *testing.T
	door http.Handler
	key  note.Verifier
}

func newOutsider(t *testing.T, l *Log) outsider {
	t.Helper()
	a := api.New(api.Config{Title: "test", Clock: clock.System, Authenticate: func(r *http.Request) (context.Context, error) { return r.Context(), nil },
		Holds: func(context.Context, string) bool { return true }, Caller: func(context.Context) string { return "auditor" }})
	l.Routes(a)
	v, err := note.NewVerifier(l.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	return outsider{t, a, v}
}

func (o outsider) get(path string, into any) {
	o.t.Helper()
	w := httptest.NewRecorder()
	o.door.ServeHTTP(w, httptest.NewRequest("GET", "https://iot.example"+path, nil))
	if w.Code != 200 {
		o.t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
		o.t.Fatalf("%s: %v", path, err)
	}
}

// tree opens a checkpoint with nothing but the key.
func (o outsider) tree(c Checkpoint) tlog.Tree {
	o.t.Helper()
	n, err := note.Open([]byte(c.Note), note.VerifierList(o.key))
	if err != nil {
		o.t.Fatal(err)
	}
	_, tree, err := parseCheckpoint(n.Text)
	if err != nil || tree.N != c.Size || tree.Hash != c.Root {
		o.t.Fatalf("the checkpoint says %+v, the answer %d %v: %v", tree, c.Size, c.Root, err)
	}
	return tree
}

// TestS14_OverTheAPI follows the log as an auditor would: keep a checkpoint, prove entries, and later prove that the
// log has only grown.
func TestS14_OverTheAPI(t *testing.T) {
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		l := openLog(t, db, openKeys(t), func(c *Config) {
			c.Require = func(context.Context, string) (string, error) { return "ten_a", nil }
		})
		o := newOutsider(t, l)
		some(t, db, "ten_a", "dev_1", 300)
		drain(t, l)
		var kept State
		o.get("/v1/audit/checkpoint", &kept)
		old := o.tree(kept.Checkpoint)
		if kept.LogKey != l.VerifierKey() {
			t.Error("the answer names another key")
		}

		seen := 0
		for path := "/v1/audit/entries?page_size=7&subject=dev_1"; path != ""; {
			var page struct {
				Items []Item
				Next  string `json:"next_page_token"`
			}
			o.get(path, &page)
			for _, it := range page.Items {
				if seen++; seen%10 > 0 {
					continue
				}
				var set ProofSet
				o.get("/v1/audit/entries/"+it.ID+"/proof", &set)
				e, tree := set.Entries[0], o.tree(set.Checkpoint)
				if err := tlog.CheckRecord(e.Proof, tree.N, tree.Hash, e.Pos, tlog.RecordHash(e.Leaf.Bytes())); err != nil {
					t.Fatal(err)
				}
				if e.Data.Digest() != e.Leaf.Data || e.Leaf.Data != it.Digest || string(e.Data.Data) != string(it.Data) {
					t.Fatalf("%+v is not %+v", e, it)
				}
			}
			path = ""
			if page.Next != "" {
				path = "/v1/audit/entries?page_size=7&subject=dev_1&page_token=" + page.Next
			}
		}
		if seen != 300 {
			t.Errorf("%d entries seen", seen)
		}

		some(t, db, "ten_b", "dev_2", 77)
		drain(t, l)
		var grown Growth
		o.get(fmt.Sprintf("/v1/audit/consistency?from=%d", old.N), &grown)
		tree := o.tree(grown.To)
		if err := tlog.CheckTree(grown.Proof, tree.N, tree.Hash, old.N, old.Hash); err != nil || tree.N != 377 {
			t.Errorf("from %d to %d: %v", old.N, tree.N, err)
		}

		mustExec(t, db, `UPDATE audit_entry SET payload = (SELECT payload FROM audit_entry WHERE pos = 1) WHERE pos = 0`)
		var page struct{ Items []Item }
		o.get("/v1/audit/entries?page_size=1000", &page)
		if n := len(page.Items); n != 300 || !page.Items[n-1].Broken || page.Items[n-1].Data != nil || page.Items[0].Broken {
			t.Errorf("a payload that was exchanged is not shown as broken: %+v", page.Items[n-1])
		}
	})
}
