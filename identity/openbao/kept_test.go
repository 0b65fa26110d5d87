// SPDX-License-Identifier: AGPL-3.0-only

package openbao_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/identity/openbao"
	"github.com/openthings-platform/openthings/problem"
)

// lister is an engine that keeps certificates: in pages, in the order of its storage, as OpenBao does (Storage.ListPage), or
// all in one answer, as Vault does.
type lister struct {
	stored []string // with hyphens, in order
	paged  bool
	asked  int
}

func (l *lister) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.asked++
	keys := l.stored
	if l.paged {
		at, found := slices.BinarySearch(keys, r.URL.Query().Get("after"))
		if found {
			at++
		}
		limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
		keys = keys[at:min(len(keys), at+limit)]
	}
	w.Header().Set("Content-Type", "application/json")
	if len(keys) == 0 {
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"errors":[]}`)
		return
	}
	shown := make([]string, len(keys))
	for i, k := range keys {
		shown[i] = strings.ReplaceAll(k, "-", ":")
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{"keys": shown}})
}

// What the engine keeps is asked for in pages, and each certificate comes once, whether the engine knows pages or not.
func TestWhatIsKeptComesInPages(t *testing.T) {
	for _, paged := range []bool{true, false} {
		for _, n := range []int{0, 1, 999, 1000, 1001, 2500} {
			t.Run(fmt.Sprint(paged, n), func(t *testing.T) {
				l := &lister{paged: paged}
				want := map[string]bool{}
				for i := range n {
					serial := big.NewInt(0x1100_0000 + int64(i)*7) // many begin with the same byte
					want[serial.Text(16)] = true
					text := serial.Text(16)
					var bytes []string
					for ; text != ""; text = text[2:] {
						bytes = append(bytes, text[:2])
					}
					l.stored = append(l.stored, strings.Join(bytes, "-"))
				}
				slices.Sort(l.stored)
				engine := httptest.NewServer(l)
				defer engine.Close()
				is, err := openbao.New(openbao.Config{Address: engine.URL, Token: "ours"})
				must(t, err)
				got := map[string]bool{}
				must(t, is.Kept(t.Context(), func(some []*big.Int) error {
					if len(some) > 1000 {
						t.Errorf("%d at once", len(some))
					}
					for _, s := range some {
						if got[s.Text(16)] {
							t.Fatalf("%x comes twice", s)
						}
						got[s.Text(16)] = true
					}
					return nil
				}))
				if len(got) != n || l.asked > n/1000+1 {
					t.Errorf("%d of %d in %d answers", len(got), n, l.asked)
				}
				for s := range want {
					if !got[s] {
						t.Fatalf("%s is missing", s)
					}
				}
			})
		}
	}
}

// An answer without an end is cut off before it fills the memory, and said so.
func TestAnEndlessAnswerIsCutOff(t *testing.T) {
	sent := make(chan int, 1)
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n, _ := io.WriteString(w, `{"data":{"keys":["11`)
		for more := strings.Repeat(":11", 1<<12); n < 256<<20; { // until the client hangs up
			m, err := io.WriteString(w, more)
			if n += m; err != nil {
				break
			}
		}
		sent <- n
	}))
	defer engine.Close()
	is, err := openbao.New(openbao.Config{Address: engine.URL, Token: "ours"})
	must(t, err)
	err = is.Kept(t.Context(), func([]*big.Int) error { t.Error("handed on"); return nil })
	if !problem.Is(err, problem.KindTooLarge) || problem.Of(err).Help == "" {
		t.Errorf("refused as %v", err)
	}
	if n := <-sent; n >= 256<<20 {
		t.Errorf("%d bytes were taken", n)
	}
}
