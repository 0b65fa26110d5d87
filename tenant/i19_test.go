// SPDX-License-Identifier: AGPL-3.0-only

package tenant_test

import (
	"sync"
	"testing"
	"time"
)

// TestI19_ASetupTokenReusedOrRacedIsRefused: fifty people finish at the very same time, one is in; afterwards the link
// is dead, and so is an older one.
func TestI19_ASetupTokenReusedOrRacedIsRefused(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		older, err := h.SetupLink(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		link, err := h.SetupLink(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if status, _ := h.browser().post(older+"/begin", map[string]string{"name": "Somebody", "organisation": "Acme"}); status != 404 {
			t.Errorf("an older link answers %d", status)
		}
		const people = 50
		var wg sync.WaitGroup
		results := make(chan int, people)
		var finish []func()
		for range people {
			b, key := h.browser(), newAuthenticator(t, h.srv.URL)
			status, options := b.post(link+"/begin", map[string]string{"name": "Somebody", "organisation": "Acme"})
			if status != 200 {
				t.Fatalf("begin: %d %s", status, options)
			}
			answer := key.create(t, []byte(options))
			finish = append(finish, func() {
				status, _ := b.do("POST", link+"/finish", answer)
				results <- status
			})
		}
		for _, f := range finish {
			wg.Go(f)
		}
		wg.Wait()
		close(results)
		in := 0
		for s := range results {
			if s == 200 {
				in++
			}
		}
		if in != 1 {
			t.Errorf("%d of %d people came in through one link", in, people)
		}
		h.clk.Advance(time.Minute) // for who was slowed down
		if status, _ := h.browser().post(link+"/begin", map[string]string{"name": "Late", "organisation": "Acme"}); status != 404 {
			t.Errorf("the used link answers %d", status)
		}
		if _, err := h.SetupLink(t.Context()); err == nil {
			t.Error("a new setup link with people in the house")
		}
	})
}
