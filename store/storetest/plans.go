// SPDX-License-Identifier: AGPL-3.0-only

package storetest

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/openthings-platform/openthings/store"
)

// Plans hears what a store is asked and refuses what the engine would read too much for. Fill the tables first: enough rows
// that a bad plan reads many more than a good one, then Analyze.
type Plans struct {
	// Big are the tables that grow with the fleet or with what its releases are made of; the others may be read as a whole.
	Big []string
	// Few are partial indexes of few rows, which may be read as a whole too.
	Few []string

	mu   sync.Mutex // guards what follows
	on   bool
	sent []statement
}

type statement struct {
	query string
	args  []any
}

// Config lets p hear; it is an option of Each and Open.
func (p *Plans) Config(c *store.Config) {
	c.Watch = func(query string, args []any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.on {
			p.sent = append(p.sent, statement{query, args})
		}
	}
}

// Analyze gives PostgreSQL the statistics that its autovacuum would. Nobody does so on SQLite, which keeps none by itself.
func (p *Plans) Analyze(t testing.TB, db *store.DB) {
	t.Helper()
	if db.Engine() == store.SQLite {
		return
	}
	if err := db.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`ANALYZE`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// Check puts a question and fails where a statement of it reads more than so many rows of the big tables on PostgreSQL,
// looked for and found, or walks one of them, or all that a tenant has in one, on SQLite, which counts no rows. It may read
// the tables that are whole.
func (p *Plans) Check(t *testing.T, db *store.DB, question string, rows int, ask func(ctx context.Context) error, whole ...string) {
	t.Helper()
	big := slices.DeleteFunc(slices.Clone(p.Big), func(table string) bool { return slices.Contains(whole, table) })
	for _, s := range p.listen(t, question, ask) {
		var bad string
		var plan []byte
		var err error
		if db.Engine() == store.SQLite {
			bad, plan, err = p.walked(t.Context(), db, s, big)
		} else {
			bad, plan, err = counted(t.Context(), db, s, big, rows)
		}
		if err != nil {
			t.Fatalf("%s: %v\n%s", question, err, s.query)
		}
		if bad != "" {
			t.Errorf("%s: %s\n%s\n%s", question, bad, s.query, plan)
		}
	}
}

// looks matches what looks for rows; INSERT only adds some.
var looks = regexp.MustCompile(`^(SELECT|WITH|UPDATE|DELETE)\b`)

// listen returns the statements of ask that look for rows, each text once.
func (p *Plans) listen(t *testing.T, question string, ask func(ctx context.Context) error) []statement {
	t.Helper()
	hear := func(on bool) (sent []statement) {
		p.mu.Lock()
		defer p.mu.Unlock()
		sent, p.on, p.sent = p.sent, on, nil
		return sent
	}
	hear(true)
	err := ask(t.Context())
	sent := hear(false)
	if err != nil {
		t.Fatalf("%s: %v", question, err)
	}
	seen := map[string]bool{}
	sent = slices.DeleteFunc(sent, func(s statement) bool {
		again := seen[s.query]
		seen[s.query] = true
		return again || !looks.MatchString(s.query)
	})
	if len(sent) == 0 {
		t.Fatalf("%s: the store is asked nothing", question)
	}
	return sent
}

// walked says which big table SQLite goes through from one end to the other, or from one end of a tenant to the other.
func (p *Plans) walked(ctx context.Context, db *store.DB, s statement, big []string) (bad string, plan []byte, err error) {
	rows, err := db.Query(ctx, `EXPLAIN QUERY PLAN `+s.query, s.args...)
	steps, err := store.Collect(rows, err, func(r *sql.Rows) (step string, err error) {
		var id, parent, unused int
		return step, r.Scan(&id, &parent, &unused, &step)
	})
	for _, step := range steps {
		plan = fmt.Appendln(plan, step)
		for _, table := range big {
			called := regexp.MustCompile(`^(SCAN|SEARCH) (` + strings.Join(names(s.query, table), "|") + `)( |$)`).FindStringSubmatch(step)
			switch {
			case called == nil || slices.ContainsFunc(p.Few, func(index string) bool { return strings.Contains(step, " "+index+" ") }):
			case called[1] == "SCAN":
				bad = "all of " + table + " is read"
			case strings.Contains(step, " AUTOMATIC "):
				bad = "an index of all of " + table + " is made for this one question"
			case strings.HasSuffix(step, " (tenant=?)"):
				bad = "all that a tenant has in " + table + " is read"
			}
		}
	}
	return bad, plan, err
}

// names are what a statement calls a table.
func names(query, table string) []string {
	out := []string{table}
	for _, m := range regexp.MustCompile(`\b`+table+` (?:AS )?([a-z]\w*)`).FindAllStringSubmatch(query, -1) {
		out = append(out, m[1])
	}
	return out
}

// counted lets PostgreSQL run the statement as it does at first, knowing the arguments, and as it does later, not knowing
// them, and takes back what it changed. A table of a test lies in few pages, which PostgreSQL would rather read as a whole:
// it is told not to, as it would not where there are many.
func counted(ctx context.Context, db *store.DB, s statement, big []string, most int) (bad string, plan []byte, err error) {
	undo := errors.New("undo")
	for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
		err := db.Write(ctx, func(tx *store.Tx) error {
			for _, q := range []string{`SET LOCAL plan_cache_mode = ` + mode, `SET LOCAL enable_seqscan = off`, `PREPARE watched AS ` + s.query} {
				if _, err := tx.Exec(q); err != nil {
					return err
				}
			}
			if err := tx.QueryRow(`EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) EXECUTE watched` + literals(s.args)).Scan(&plan); err != nil {
				return err
			}
			if _, err := tx.Exec(`DEALLOCATE watched`); err != nil {
				return err
			}
			return undo
		})
		if !errors.Is(err, undo) {
			return "", nil, err
		}
		var top []struct{ Plan node }
		if err := json.Unmarshal(plan, &top); err != nil {
			return "", nil, err
		}
		read := map[string]int{}
		for _, x := range top {
			x.Plan.count(read)
		}
		for _, table := range big {
			if read[table] > most {
				return fmt.Sprintf("%d rows of %s are read, want at most %d (%s)", read[table], table, most, mode), plan, nil
			}
		}
	}
	return "", nil, nil
}

// literals writes the arguments of EXECUTE.
func literals(args []any) string {
	if len(args) == 0 {
		return ""
	}
	out := make([]string, len(args))
	for i, a := range args {
		switch a := a.(type) {
		case nil:
			out[i] = "NULL"
		case []byte:
			out[i] = fmt.Sprintf(`'\x%x'`, a)
		default:
			out[i] = `'` + strings.ReplaceAll(fmt.Sprint(a), `'`, `''`) + `'`
		}
	}
	return "(" + strings.Join(out, ", ") + ")"
}

// node is a step of a plan that ran.
type node struct {
	Relation string  `json:"Relation Name"`
	Rows     float64 `json:"Actual Rows"` // a loop
	Filtered float64 `json:"Rows Removed by Filter"`
	Loops    float64 `json:"Actual Loops"`
	Plans    []node
}

// count adds up what was read of each table. Looking for what is not there costs as much as a row.
func (n node) count(read map[string]int) {
	if n.Relation != "" {
		read[n.Relation] += int(n.Loops * max(1, n.Rows+n.Filtered))
	}
	for _, below := range n.Plans {
		below.count(read)
	}
}
