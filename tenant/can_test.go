// SPDX-License-Identifier: AGPL-3.0-only

package tenant_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

var (
	someTenants   = []string{"acme", "blue", ""}
	someProducts  = []string{"", "pump", "valve"}
	someSolutions = []string{"", "north", "south"}
)

// printedRoles reads the table as people see it, so that the oracle shares no code with Can.
func printedRoles(t require) map[string]map[string]bool {
	var b bytes.Buffer
	if err := tenant.PrintRoles(&b); err != nil {
		t.Fatalf("%v", err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	head := strings.Fields(lines[0])[1:]
	has := map[string]map[string]bool{}
	for _, l := range lines[1:] {
		cells := strings.Fields(l)
		for i, role := range head {
			if has[role] == nil {
				has[role] = map[string]bool{}
			}
			has[role][cells[0]] = cells[i+1] == "yes"
		}
	}
	return has
}

type require interface {
	Fatalf(format string, args ...any)
}

// oracle answers by writing down, for every grant, every single thing of the small world that lies below it.
func oracle(table map[string]map[string]bool, a tenant.Actor, v tenant.Verb, want tenant.Thing) bool {
	allowed := map[tenant.Thing]bool{}
	for _, g := range a.Grants {
		if !table[string(g.Role)][string(v)] {
			continue
		}
		for _, te := range someTenants {
			for _, p := range someProducts {
				for _, s := range someSolutions {
					inTenant := te != "" && te == g.Tenant && te == a.Tenant
					inProduct, inSolution := true, true
					if g.Product != "" {
						inProduct = p == g.Product
					}
					if g.Solution != "" {
						inSolution = s == g.Solution
					}
					if inTenant && inProduct && inSolution {
						allowed[tenant.Thing{Tenant: te, Product: p, Solution: s}] = true
					}
				}
			}
		}
	}
	return allowed[want]
}

func anyActor() *rapid.Generator[tenant.Actor] {
	var roles []tenant.Role
	for _, r := range tenant.Roles {
		roles = append(roles, r.Role)
	}
	roles = append(roles, "", "admin")
	return rapid.Custom(func(t *rapid.T) tenant.Actor {
		a := tenant.Actor{ID: "per_1", Tenant: rapid.SampledFrom(someTenants).Draw(t, "home")}
		for range rapid.IntRange(0, 3).Draw(t, "grants") {
			a.Grants = append(a.Grants, tenant.Grant{Role: rapid.SampledFrom(roles).Draw(t, "role"), Tenant: rapid.SampledFrom(someTenants).Draw(t, "tenant"),
				Product: rapid.SampledFrom(someProducts).Draw(t, "product"), Solution: rapid.SampledFrom(someSolutions).Draw(t, "solution")})
		}
		return a
	})
}

func anyVerb(t *rapid.T) tenant.Verb {
	i := rapid.IntRange(0, len(tenant.Verbs)).Draw(t, "verb")
	if i == len(tenant.Verbs) {
		return "universe.end"
	}
	return tenant.Verbs[i].Verb
}

func TestCanMatchesOracle(t *testing.T) {
	table := printedRoles(t)
	rapid.Check(t, func(t *rapid.T) {
		a, v := anyActor().Draw(t, "actor"), anyVerb(t)
		anywhere, whole := false, false
		for _, te := range someTenants {
			for _, p := range someProducts {
				for _, s := range someSolutions {
					thing := tenant.Thing{Tenant: te, Product: p, Solution: s}
					want := oracle(table, a, v, thing)
					if got := tenant.Can(a, v, thing); got != want {
						t.Fatalf("Can(%+v, %s, %+v) = %v, the oracle says %v", a, v, thing, got, want)
					}
					err := tenant.Require(tenant.WithActor(context.Background(), a), v, thing)
					if (err == nil) != want {
						t.Fatalf("Require(%+v, %s, %+v): %v, the oracle says %v", a, v, thing, err, want)
					}
					if err != nil && te != a.Tenant && !problem.Is(err, problem.KindNotFound) {
						t.Fatalf("a thing of another tenant shows: %v", err)
					}
					anywhere = anywhere || want
					whole = whole || want && p == "" && s == ""
				}
			}
		}
		if got := tenant.Anywhere(a, v); got != anywhere {
			t.Fatalf("Anywhere(%+v, %s) = %v, want %v", a, v, got, anywhere)
		}
		if got, _, _ := tenant.Scope(a, v); got != whole {
			t.Fatalf("Scope(%+v, %s) = %v, want %v", a, v, got, whole)
		}
	})
}

// TestNobodyGivesMoreThanTheyHold: whoever receives g can do nothing that the giver could not.
func TestNobodyGivesMoreThanTheyHold(t *testing.T) {
	ofOne := tenant.Actor{ID: "per_1", Tenant: "ten_1", Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: "ten_1", Product: "prd_1"}}}
	for _, g := range []tenant.Grant{
		{Role: tenant.Auditor, Tenant: "ten_1"}, {Role: tenant.Auditor, Tenant: "ten_1", Product: "prd_2"},
		{Role: tenant.Customer, Tenant: "ten_1", Solution: "sol_1"}, {Role: tenant.Auditor, Tenant: "ten_2", Product: "prd_1"},
	} {
		if tenant.Gives(ofOne, g) == nil {
			t.Errorf("the owner of one product gave %+v", g)
		}
	}
	if err := tenant.Gives(ofOne, tenant.Grant{Role: tenant.Auditor, Tenant: "ten_1", Product: "prd_1"}); err != nil {
		t.Errorf("the owner of a product gave what it holds: %v", err)
	}
	rapid.Check(t, func(t *rapid.T) {
		giver := anyActor().Draw(t, "giver")
		g := anyActor().Filter(func(a tenant.Actor) bool { return len(a.Grants) > 0 }).Draw(t, "gift").Grants[0]
		if tenant.Gives(giver, g) != nil {
			return
		}
		got := tenant.Actor{ID: "per_2", Tenant: giver.Tenant, Grants: []tenant.Grant{g}}
		for _, v := range tenant.Verbs {
			for _, te := range someTenants {
				for _, p := range someProducts {
					for _, s := range someSolutions {
						thing := tenant.Thing{Tenant: te, Product: p, Solution: s}
						if tenant.Can(got, v.Verb, thing) && !tenant.Can(giver, v.Verb, thing) {
							t.Fatalf("%+v gave %+v, which can %s %+v", giver, g, v.Verb, thing)
						}
					}
				}
			}
		}
	})
}

func TestRolesAreWhole(t *testing.T) {
	table := printedRoles(t)
	for _, v := range tenant.Verbs {
		if !table["owner"][string(v.Verb)] {
			t.Errorf("the owner lacks %s", v.Verb)
		}
		if v.Text == "" {
			t.Errorf("%s has no text", v.Verb)
		}
	}
	for _, r := range tenant.Roles {
		for _, v := range r.Verbs {
			if !slices.ContainsFunc(tenant.Verbs, func(x struct {
				Verb tenant.Verb
				Text string
			}) bool {
				return x.Verb == v
			}) {
				t.Errorf("%s has the unknown verb %s", r.Role, v)
			}
		}
		// Today and the fleet are for everybody who may enter at all; a third party's program never does.
		if !r.Role.Has(tenant.DeviceRead) && r.Role != tenant.DataRecipient {
			t.Errorf("%s cannot read devices", r.Role)
		}
	}
	for v, not := range map[tenant.Verb]tenant.Role{tenant.DeviceErase: "fleet-operator", tenant.ReleasePublish: "firmware-engineer", tenant.CommandSend: "auditor", tenant.TelemetryRead: "auditor", tenant.AccessRead: "customer"} {
		if not.Has(v) {
			t.Errorf("%s must not hold %s", not, v)
		}
	}
}

func ExamplePrintRoles() {
	var b bytes.Buffer
	if err := tenant.PrintRoles(&b); err != nil {
		panic(err)
	}
	for i, l := range strings.SplitN(b.String(), "\n", 4)[:3] {
		fmt.Println(i, strings.Join(strings.Fields(l), " "))
	}
	// Output:
	// 0 verb owner fleet-operator firmware-engineer product-security-officer compliance-officer auditor customer data-recipient
	// 1 product.read yes yes yes yes yes yes - -
	// 2 product.write yes - yes - - - - -
}
