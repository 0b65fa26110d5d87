// SPDX-License-Identifier: AGPL-3.0-only

package tenant

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"github.com/openthings-platform/openthings/store"
)

// Tree is how the solutions of one tenant stand in each other at one moment. It never changes, so that whoever was let
// in with it is judged by one state of the tree until the request has ended. A nil Tree knows no solution.
type Tree struct {
	version int64
	sols    []Solution     // each one right before those that stand in it, which are in the order of their names
	ids     []string       // theirs
	at      map[string]int // where a solution is in sols
	end     []int          // the place after the last one that lies below
}

// newTree puts solutions, which are in the order of their names, where they stand. What stands in nothing known is left out.
func newTree(version int64, sols []Solution) *Tree {
	below := map[string][]Solution{}
	for _, sol := range sols {
		below[sol.Parent] = append(below[sol.Parent], sol)
	}
	t := &Tree{version: version, sols: make([]Solution, 0, len(sols)), at: make(map[string]int, len(sols)), end: make([]int, len(sols))}
	var put func(parent, path string, depth int)
	put = func(parent, path string, depth int) {
		for _, sol := range below[parent] {
			sol.Path, sol.Depth = path+sol.Name, depth
			i := len(t.sols)
			t.at[sol.ID], t.sols, t.ids = i, append(t.sols, sol), append(t.ids, sol.ID)
			put(sol.ID, sol.Path+pathMark, depth+1)
			t.end[i] = len(t.sols)
		}
	}
	put("", "", 1)
	return t
}

// pathMark stands between the names of a path.
const pathMark = " / "

// Within says whether the solution id is the solution of, or lies below it.
func (t *Tree) Within(id, of string) bool {
	if id == of || t == nil {
		return id == of
	}
	i, known := t.at[id]
	j, placed := t.at[of]
	return known && placed && j < i && i < t.end[j]
}

// Below returns the solution and all that lies below it, each before what stands in it; none when it is not known. With
// "" it is all solutions of the tenant. The caller must not change them.
func (t *Tree) Below(id string) []Solution {
	if t == nil {
		return nil
	}
	if id == "" {
		return t.sols
	}
	i, known := t.at[id]
	if !known {
		return nil
	}
	return t.sols[i:t.end[i]]
}

// reach is Below as ids; a solution that is not known reaches itself.
func (t *Tree) reach(id string) []string {
	if t == nil {
		return []string{id}
	}
	i, known := t.at[id]
	if !known {
		return []string{id}
	}
	return t.ids[i:t.end[i]]
}

// seen cuts the tree to solutions of which show says so. A solution whose parent is hidden shows as one that stands in
// nothing: what lies above has no name for whoever is held below it.
func (t *Tree) seen(show func(id string) bool) (out []Solution) {
	paths, depths := map[string]string{}, map[string]int{}
	for _, sol := range t.Below("") {
		if !show(sol.ID) {
			continue
		}
		path, above := paths[sol.Parent]
		if !above {
			sol.Parent = ""
		}
		sol.Path, sol.Depth = path+sol.Name, depths[sol.Parent]+1
		paths[sol.ID], depths[sol.ID] = sol.Path+pathMark, sol.Depth
		out = append(out, sol)
	}
	return out
}

// Tree returns how the tenant's solutions stand now. It is kept until the tenant's counter, which grows in the
// transaction that changes a solution, says that it is old: that is right on every node.
func (s *Service) Tree(ctx context.Context, tenant string) (*Tree, error) {
	version, err := treeVersion(s.reading(ctx), tenant)
	if err != nil {
		return nil, err
	}
	if kept, ok := s.trees.Load(tenant); ok && kept.(*Tree).version == version {
		return kept.(*Tree), nil
	}
	s.loading.Lock() // many ask at once after a change; one reads
	defer s.loading.Unlock()
	if kept, ok := s.trees.Load(tenant); ok && kept.(*Tree).version >= version {
		return kept.(*Tree), nil
	}
	var t *Tree
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		version, err := treeVersion(tx, tenant)
		if err != nil {
			return err
		}
		sols, err := listSolutions(tx.Query(solutionColumns+` WHERE tenant = $1 ORDER BY name, id`, tenant))
		t = newTree(version, sols)
		return err
	})
	if err != nil {
		return nil, err
	}
	if t.version >= 0 {
		s.trees.Store(tenant, t)
	}
	return t, nil
}

// treeVersion is -1 for a tenant that does not exist, whose tree is not kept.
func treeVersion(q querier, tenant string) (v int64, err error) {
	err = q.QueryRow(`SELECT tree FROM tenant WHERE id = $1`, tenant).Scan(&v)
	if errors.Is(err, store.ErrNoRows) {
		return -1, nil
	}
	return v, err
}

// Rooted returns a with the tree that its rights reach down in. Who is let in by Authenticate has it.
func (s *Service) Rooted(ctx context.Context, a Actor) (Actor, error) {
	if !slices.ContainsFunc(a.Grants, func(g Grant) bool { return g.Solution != "" }) {
		return a, nil
	}
	var err error
	a.tree, err = s.Tree(ctx, a.Tenant)
	return a, err
}

// Solutions lists all solutions of the tenant, each before those that stand in it. What a person or program is shown
// comes from Seen.
func (s *Service) Solutions(ctx context.Context, tenant string) ([]Solution, error) {
	t, err := s.Tree(ctx, tenant)
	return slices.Clone(t.Below("")), err
}

// Seen lists the solutions that whoever asks holds v on, each before those that stand in it. Who holds it on a product
// has no solution by that; see SeenWithProduct.
func (s *Service) Seen(ctx context.Context, v Verb) ([]Solution, error) {
	a, _ := ActorFrom(ctx)
	t, err := s.Tree(ctx, a.Tenant)
	return t.seen(func(id string) bool { return Can(a, v, Thing{Tenant: a.Tenant, Solution: id}) }), err
}

// SeenByStaff is Seen, and all solutions for who holds v on a product: the manufacturer's own people, whose devices
// serve everywhere.
func (s *Service) SeenByStaff(ctx context.Context, v Verb) ([]Solution, error) {
	a, _ := ActorFrom(ctx)
	if whole, products, _ := Scope(a, v); whole || len(products) > 0 {
		return s.Solutions(ctx, a.Tenant)
	}
	return s.Seen(ctx, v)
}

// Within returns the ids of a solution and of all that lies below it: where something that is held to the solution reaches.
func (s *Service) Within(ctx context.Context, tenant, solution string) ([]string, error) {
	t, err := s.Tree(ctx, tenant)
	if err != nil {
		return nil, err
	}
	return slices.Clone(t.reach(solution)), nil
}

// lockTree makes changes of one tenant's tree follow each other, and makes kept trees old.
func lockTree(tx *store.Tx, tenant string) error {
	_, err := tx.Exec(`UPDATE tenant SET tree = tree + 1 WHERE id = $1`, tenant)
	return err
}

// above lists the ids from the solution up to the top, itself first.
func above(tx *store.Tx, tenant, id string) ([]string, error) {
	rows, err := tx.Query(`WITH RECURSIVE up(id, parent, n) AS (
			SELECT id, parent, 1 FROM solution WHERE tenant = $1 AND id = $2
			UNION ALL SELECT s.id, s.parent, up.n + 1 FROM solution s JOIN up ON s.id = up.parent WHERE s.tenant = $1 AND up.n <= $3)
		SELECT id FROM up ORDER BY n`, tenant, id, int64(MaxDepth))
	return store.Collect(rows, err, func(r *sql.Rows) (id string, err error) { return id, r.Scan(&id) })
}

// extent is how many levels the solution and what lies below take, and how many solutions they are.
func extent(tx *store.Tx, tenant, id string) (levels, solutions int64, err error) {
	err = tx.QueryRow(`SELECT COALESCE(MAX(n), 0), COUNT(*) FROM (`+belowSQL+`) AS below`, tenant, id, int64(MaxDepth)).Scan(&levels, &solutions)
	return levels, solutions, err
}

// belowSQL selects the solution $2 of the tenant $1 and what lies below, n levels down, to at most $3 + 1 levels.
const belowSQL = `WITH RECURSIVE down(id, n) AS (
		SELECT id, 1 FROM solution WHERE tenant = $1 AND id = $2
		UNION ALL SELECT s.id, down.n + 1 FROM solution s JOIN down ON s.parent = down.id WHERE s.tenant = $1 AND down.n <= $3)
	SELECT id, n FROM down`
