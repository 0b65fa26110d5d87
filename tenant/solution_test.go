// SPDX-License-Identifier: AGPL-3.0-only

package tenant_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/tenant"
)

// grove is a house with an owner who makes solutions.
type grove struct {
	*house
	owner *browser
}

func eachGrove(t *testing.T, fn func(t *testing.T, g *grove)) {
	each(t, func(t *testing.T, h *house) { fn(t, &grove{h, h.with(h.hostToken("Acme", "owner"))}) })
}

func (g *grove) make(by *browser, parent, name string) (id string, status int) {
	g.t.Helper()
	status, body := by.post("/v1/solutions", map[string]any{"name": name, "parent": parent})
	var sol tenant.Solution
	if err := json.Unmarshal([]byte(body), &sol); err != nil {
		g.t.Fatal(err)
	}
	return sol.ID, status
}

func (g *grove) grow(parent, name string) string {
	g.t.Helper()
	id, status := g.make(g.owner, parent, name)
	if status != 201 {
		g.t.Fatalf("making %s: %d", name, status)
	}
	return id
}

// ownerOf is an owner's token on a solution.
func (g *grove) ownerOf(solution string) *browser {
	g.t.Helper()
	status, body := g.owner.post("/v1/tokens", map[string]any{"name": "owner of " + solution, "role": "owner", "solution": solution, "expires": g.clk.Now().Add(time.Hour)})
	var made struct{ Token string }
	if err := json.Unmarshal([]byte(body), &made); err != nil || status != 201 {
		g.t.Fatalf("token: %d %s", status, body)
	}
	return g.with(made.Token)
}

func (g *grove) move(by *browser, id, parent string) int {
	g.t.Helper()
	status, _ := by.send("PATCH", "/v1/solutions/"+id, map[string]any{"parent": parent})
	return status
}

// local is a link without its origin.
func (g *grove) local(link string) string { return strings.TrimPrefix(link, g.srv.URL) }

// names lists what somebody sees, as paths.
func (g *grove) names(by *browser, query string) (out []string) {
	g.t.Helper()
	status, body := by.do("GET", "/v1/solutions"+query, nil)
	var page struct{ Items []tenant.Solution }
	if err := json.Unmarshal([]byte(body), &page); err != nil || status != 200 {
		g.t.Fatalf("list: %d %s", status, body)
	}
	for _, sol := range page.Items {
		out = append(out, fmt.Sprintf("%d %s", sol.Depth, sol.Path))
	}
	return out
}

// TestSolutionsStandInEachOther: a tree of at most five levels, without circles, seen from each place as if it began there.
func TestSolutionsStandInEachOther(t *testing.T) {
	eachGrove(t, func(t *testing.T, g *grove) {
		d := g.grow("", "Distributor")
		c := g.grow(d, "Customer")
		s := g.grow(c, "Site")
		other := g.grow("", "Other")
		if _, status := g.make(g.owner, d, "Customer"); status != 409 {
			t.Errorf("a second one of the name in one place: %d", status)
		}
		below := g.grow(other, "Customer") // elsewhere the name is free
		if got, want := g.names(g.owner, ""), []string{"1 Distributor", "2 Distributor / Customer", "3 Distributor / Customer / Site", "1 Other", "2 Other / Customer"}; !slices.Equal(got, want) {
			t.Errorf("the tree: %q", got)
		}
		if got, want := g.names(g.owner, "?within="+d), []string{"1 Distributor", "2 Distributor / Customer", "3 Distributor / Customer / Site"}; !slices.Equal(got, want) {
			t.Errorf("part of the tree: %q", got)
		}
		customer := g.ownerOf(c)
		if got, want := g.names(customer, ""), []string{"1 Customer", "2 Customer / Site"}; !slices.Equal(got, want) {
			t.Errorf("what the customer sees: %q", got)
		}
		if _, body := customer.do("GET", "/v1/solutions/"+c, nil); strings.Contains(body, d) {
			t.Errorf("a customer reads what it stands in: %s", body)
		}
		l4 := g.grow(s, "Building")
		l5 := g.grow(l4, "Floor")
		if _, status := g.make(g.owner, l5, "Room"); status != 409 {
			t.Errorf("a sixth level: %d", status)
		}
		if status := g.move(g.owner, d, l5); status != 409 {
			t.Errorf("into what lies below: %d", status)
		}
		for _, to := range []string{other, below} { // no deeper than is allowed, and a circle
			if status := g.move(g.owner, other, to); status != 409 {
				t.Errorf("into itself or what lies below: %d", status)
			}
		}
		if status := g.move(g.owner, other, s); status != 200 {
			t.Errorf("two levels under the third: %d", status)
		}
		if status := g.move(g.owner, other, l4); status != 409 {
			t.Errorf("two levels under the fourth: %d", status)
		}
		if status := g.move(g.owner, other, ""); status != 200 {
			t.Errorf("to the top: %d", status)
		}
		if status := g.move(g.owner, d, other); status != 409 {
			t.Errorf("five levels under another: %d", status)
		}
		if status := g.move(g.owner, "sol_nobody", other); status != 404 {
			t.Errorf("what does not exist: %d", status)
		}
	})
}

// TestAnOwnerOfASolutionRunsWhatLiesBelow: it makes solutions, people and tokens below, sees and ends them, and no others.
func TestAnOwnerOfASolutionRunsWhatLiesBelow(t *testing.T) {
	eachGrove(t, func(t *testing.T, g *grove) {
		d, beside := g.grow("", "Distributor"), g.grow("", "Beside")
		c := g.grow(d, "Customer")
		dist := g.ownerOf(d)
		g.ownerOf(beside)
		site, status := g.make(dist, c, "Site")
		if status != 201 {
			t.Fatalf("a solution below: %d", status)
		}
		for _, parent := range []string{"", beside, "sol_nobody"} {
			if _, status := g.make(dist, parent, "New"); status < 400 {
				t.Errorf("a solution in %q: %d", parent, status)
			}
		}
		_, body := dist.post("/v1/people", map[string]any{"name": "Cora", "role": "customer", "solution": c})
		var link struct{ Link string }
		if err := json.Unmarshal([]byte(body), &link); err != nil {
			t.Fatal(err)
		}
		cora := g.browser()
		if status, body := cora.enter(g.local(link.Link), "Cora", "", newAuthenticator(t, g.srv.URL)); status != 200 {
			t.Fatalf("Cora joins: %d %s", status, body)
		}
		_, body = dist.do("GET", "/v1/people", nil)
		var people struct{ Items []tenant.Person }
		if err := json.Unmarshal([]byte(body), &people); err != nil || len(people.Items) != 1 || people.Items[0].Name != "Cora" {
			t.Fatalf("people: %s", body)
		}
		id := people.Items[0].ID
		if got, want := g.names(cora, ""), []string{"1 Customer", "2 Customer / Site"}; !slices.Equal(got, want) {
			t.Errorf("Cora sees %q", got)
		}
		// She gets a right beside as well; the distributor sees and takes its own part only.
		put := func(by *browser, grants ...map[string]any) int {
			t.Helper()
			status, _ := by.send("PUT", "/v1/people/"+id+"/grants", map[string]any{"grants": grants})
			return status
		}
		if status := put(g.owner, map[string]any{"role": "customer", "solution": c}, map[string]any{"role": "customer", "solution": beside}); status != 204 {
			t.Fatalf("grants: %d", status)
		}
		if _, body := dist.do("GET", "/v1/people", nil); strings.Contains(body, beside) {
			t.Errorf("a right beside shows: %s", body)
		}
		if status := put(dist, map[string]any{"role": "customer", "solution": beside}); status != 404 {
			t.Errorf("a right beside is given: %d", status)
		}
		if status := put(dist, map[string]any{"role": "customer", "solution": site}); status != 204 {
			t.Errorf("a right below is given: %d", status)
		}
		if status, _ := dist.post("/v1/people/"+id+"/sign-out", nil); status != 403 {
			t.Errorf("sessions that belong elsewhere too: %d", status)
		}
		if got := g.names(cora, ""); !slices.Equal(got, []string{"1 Beside", "1 Site"}) {
			t.Errorf("Cora sees %q", got)
		}
		if status, _ := dist.post("/v1/people/"+id+"/remove", nil); status != 204 {
			t.Errorf("remove: %d", status)
		}
		if got := g.names(cora, ""); !slices.Equal(got, []string{"1 Beside"}) {
			t.Errorf("after the removal below Cora sees %q", got)
		}
		if status, _ := dist.post("/v1/people/"+id+"/remove", nil); status != 404 {
			t.Errorf("remove of one who is beside only: %d", status)
		}
		// An invitation into what is moved away ends: who made it may have no right there any more.
		_, body = dist.post("/v1/people", map[string]any{"name": "Late", "role": "customer", "solution": site})
		if err := json.Unmarshal([]byte(body), &link); err != nil {
			t.Fatal(err)
		}
		if status := g.move(dist, c, beside); status < 400 {
			t.Errorf("the distributor moves what is below it beside: %d", status)
		}
		if status := g.move(g.owner, c, beside); status != 200 {
			t.Fatalf("move: %d", status)
		}
		if status, _ := g.browser().do("GET", g.local(link.Link), nil); status != 404 {
			t.Errorf("an invitation into what was moved away: %d", status)
		}
	})
}

// TestTreesOfOneMomentAgree: whatever the tree, Within is what a walk up says, and Below what Within says.
func TestTreesOfOneMomentAgree(t *testing.T) {
	eachGrove(t, func(t *testing.T, g *grove) {
		ids, parent := []string{}, map[string]string{}
		rng := rand.New(rand.NewPCG(1, 2))
		for i := range 40 {
			p := ""
			if i > 3 {
				p = ids[rng.IntN(len(ids))]
			}
			if id, status := g.make(g.owner, p, fmt.Sprint("s", i)); status == 201 {
				ids, parent[id] = append(ids, id), p
			}
		}
		me, _ := g.owner.me()
		ten := me.Tenant.ID
		for range 30 {
			id, to := ids[rng.IntN(len(ids))], ids[rng.IntN(len(ids))]
			if g.move(g.owner, id, to) == 200 {
				parent[id] = to
			}
			tree, err := g.Tree(t.Context(), ten)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range ids {
				for _, b := range ids {
					want, levels := false, 0
					for at := a; at != ""; at = parent[at] {
						if levels++; levels > tenant.MaxDepth {
							t.Fatalf("%s is deeper than %d", a, tenant.MaxDepth)
						}
						want = want || at == b
					}
					below := slices.ContainsFunc(tree.Below(b), func(sol tenant.Solution) bool { return sol.ID == a })
					if got := tree.Within(a, b); got != want || below != want {
						t.Fatalf("Within(%s, %s) = %v, Below says %v, the walk up says %v", a, b, got, below, want)
					}
				}
			}
		}
	})
}
