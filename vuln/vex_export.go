// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/vex"
)

// Publisher is in whose name documents are written.
type Publisher struct {
	Name      string
	Namespace string // an address under the publisher's control
}

// ReleaseVEX says what was decided about a release, in one of the formats.
func (s *Service) ReleaseVEX(ctx context.Context, tenant, release string, format vex.Format) ([]byte, error) {
	about, err := s.cfg.Release(ctx, tenant, release)
	if err != nil {
		return nil, err
	}
	return s.exportVEX(ctx, tenant, about.Product, release, format)
}

// ProductVEX says what was decided about every release of a product, in one of the formats.
func (s *Service) ProductVEX(ctx context.Context, tenant, product string, format vex.Format) ([]byte, error) {
	return s.exportVEX(ctx, tenant, product, "", format)
}

func (s *Service) exportVEX(ctx context.Context, tenant, product, release string, format vex.Format) ([]byte, error) {
	by, err := s.cfg.Publisher(ctx, tenant)
	if err != nil {
		return nil, err
	}
	name, scope := s.cfg.ProductName(ctx, tenant, product), "product/"+product
	if release != "" {
		scope = "release/" + release
	}
	var statements []vex.Statement
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		statements, err = s.said(tx, tenant, product, release, name)
		return err
	})
	if err != nil {
		return nil, err
	}
	if statements = vex.Normal(statements); len(statements) == 0 {
		return nil, problem.NotFound("Nothing was decided that could be stated.").Hint("decide on a vulnerability first")
	}
	issues, err := s.issue(ctx, tenant, scope, statements)
	if err != nil {
		return nil, err
	}
	d := vex.Document{ID: documentID(tenant, scope), Version: fmt.Sprint(len(issues)), Author: by.Name, At: issues[len(issues)-1], Namespace: by.Namespace,
		Title: "Vulnerabilities of " + name, Statements: statements}
	for i, at := range issues {
		text := "What was decided has changed."
		if i == 0 {
			text = "First issue."
		}
		d.Revisions = append(d.Revisions, vex.Revision{At: at, Summary: text})
	}
	return vex.Write(d, format)
}

// documentID names the document of a scope for ever.
func documentID(tenant, scope string) string {
	h := sha256.Sum256([]byte("vex\x00" + tenant + "\x00" + scope))
	h[6], h[8] = h[6]&0x0f|0x80, h[8]&0x3f|0x80 // UUID version 8, RFC 9562
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// issue returns when each version of the document was issued. What it says now is a new one if it differs from the last.
func (s *Service) issue(ctx context.Context, tenant, scope string, statements []vex.Statement) ([]time.Time, error) {
	text, err := json.Marshal(statements)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	digest := hex.EncodeToString(sum[:])
	for n := 1; ; n++ {
		issues, last, err := s.issues(ctx, tenant, scope)
		if err != nil || last == digest {
			return issues, err
		}
		at := s.now()
		if n := len(issues); n > 0 {
			at = max(at, store.Millis(issues[n-1])) // a clock that was set back rewrites no history
		}
		err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			_, err := tx.Exec(`INSERT INTO vuln_issue (tenant, scope, n, digest, at) VALUES ($1, $2, $3, $4, $5)`, tenant, scope, int64(len(issues)+1), digest, at)
			return err
		})
		if store.IsUnique(err) && n < attempts { // somebody else issued meanwhile
			continue
		}
		return append(issues, store.Time(at)), err
	}
}

func (s *Service) issues(ctx context.Context, tenant, scope string) (issues []time.Time, last string, err error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT digest, at FROM vuln_issue WHERE tenant = $1 AND scope = $2 ORDER BY n`, tenant, scope)
	issues, err = store.Collect(rows, err, func(r *sql.Rows) (time.Time, error) {
		var at int64
		err := r.Scan(&last, &at)
		return store.Time(at), err
	})
	return issues, last, err
}

// said collects the statements on one release of a product, or on all: the decisions that hold for what is found in it,
// and what ended because a component came with the fix.
func (s *Service) said(tx *store.Tx, tenant, product, release, name string) ([]vex.Statement, error) {
	releases, err := s.releasesOf(tx, tenant, product)
	if err != nil {
		return nil, err
	}
	in := func(id string) bool { return releases[id].Product != "" && (release == "" || id == release) }
	decisions, err := s.book(tx, tenant).all()
	if err != nil {
		return nil, err
	}
	w := stater{s: s, tx: tx, tenant: tenant, name: name, releases: releases}
	for _, group := range sortedKeys(decisions) {
		l := decisions[group]
		if !slices.ContainsFunc(l.list, func(d Decision) bool { return d.Product == product }) {
			continue
		}
		found, err := s.findings(tx, tenant, group, s.now())
		if err != nil {
			return nil, err
		}
		found = slices.DeleteFunc(oneEach(found), func(f finding) bool { return !in(f.release) })
		if err := w.decided(group, found, l, product); err != nil {
			return nil, err
		}
	}
	if err := w.closed(product, in); err != nil {
		return nil, err
	}
	return w.out, nil
}

// releasesOf reads the releases of a product.
func (s *Service) releasesOf(tx *store.Tx, tenant, product string) (map[string]Release, error) {
	out := map[string]Release{}
	rows, err := tx.Query(`SELECT release_id, version, image FROM vuln_release WHERE tenant = $1 AND product = $2`, tenant, product)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var id string
		x := Release{Product: product}
		err := r.Scan(&id, &x.Version, &x.Image)
		out[id] = x
		return struct{}{}, err
	})
	return out, err
}

// stater puts decisions into the words of VEX.
type stater struct {
	s        *Service
	tx       *store.Tx
	tenant   string
	name     string // of the product
	releases map[string]Release
	out      []vex.Statement
}

// vulnerability begins a statement with the names of a group.
func (w *stater) vulnerability(group string) (vex.Statement, error) {
	var st vex.Statement
	if err := w.tx.QueryRow(`SELECT summary FROM vuln_group WHERE tenant = $1 AND id = $2`, w.tenant, group).Scan(&st.Summary); err != nil {
		return st, err
	}
	rows, err := w.tx.Query(`SELECT ident FROM vuln_member WHERE tenant = $1 AND group_id = $2 ORDER BY CASE WHEN ident LIKE 'CVE-%' THEN 0 ELSE 1 END, ident LIMIT $3`,
		w.tenant, group, int64(vex.MaxIdents))
	st.Idents, err = store.Collect(rows, err, func(r *sql.Rows) (n string, err error) { return n, r.Scan(&n) })
	return st, err
}

// product names a component of a release, by everything by which somebody may look for it.
func (w *stater) product(release string, part sbom.Part) []vex.Product {
	r := w.releases[release]
	c := vex.Ref{PURL: part.PURL, CPE: part.CPE}
	if c.PURL == "" {
		c.PURL = vex.GenericPURL(part.Name, part.Version)
	}
	return []vex.Product{{Ref: vex.Ref{ID: vex.ReleaseRef(release), PURL: vex.GenericPURL(w.name, r.Version), Digest: r.Image}, Components: []vex.Ref{c}}}
}

func (w *stater) decided(group string, found []finding, l decided, product string) error {
	if len(found) == 0 {
		return nil
	}
	_, spelled, err := w.s.describe(w.tx, w.tenant, found)
	if err != nil {
		return err
	}
	base, err := w.vulnerability(group)
	if err != nil {
		return err
	}
	for _, f := range found {
		d := l.at(product, f.component, f.release, w.s.now())
		if d == nil {
			continue
		}
		st := base
		st.Status, st.Justification, st.Detail, st.Action, st.At = d.Status, vex.Justification(d.Justification), d.Evidence, d.Action, d.At
		st.Products = w.product(f.release, spelled[[2]string{f.release, f.component}])
		w.out = append(w.out, st)
	}
	return nil
}

// closed states what ended by itself, as long as the release still lists the component and nothing was found again.
func (w *stater) closed(product string, in func(release string) bool) error {
	rows, err := w.tx.Query(`SELECT c.release_id, c.component_id, c.fixed, c.at, m.group_id FROM vuln_closed c JOIN vuln_member m ON m.tenant = c.tenant AND m.ident = c.ident
		WHERE c.tenant = $1 AND c.product = $2 ORDER BY c.release_id, c.component_id, c.ident`, w.tenant, product)
	type ended struct {
		Closed
		group string
	}
	list, err := store.Collect(rows, err, func(r *sql.Rows) (c ended, err error) {
		var at int64
		err = r.Scan(&c.Release, &c.Component, &c.Fixed, &at, &c.group)
		c.At = store.Time(at)
		return c, err
	})
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(c ended) bool { return !in(c.Release) })
	releases, components := map[string]bool{}, map[string]bool{}
	for _, c := range list {
		releases[c.Release], components[c.Component] = true, true
	}
	listed, err := w.s.cfg.SBOM.Listed(w.tx, w.tenant, sortedKeys(components))
	if err != nil {
		return err
	}
	spelled, err := w.s.cfg.SBOM.Spelled(w.tx, w.tenant, sortedKeys(releases), sortedKeys(components))
	if err != nil {
		return err
	}
	said := map[[3]string]bool{}
	for _, c := range list {
		at := [2]string{c.Release, c.Component}
		again, err := w.open(c.group, c.Component)
		if err != nil {
			return err
		}
		if !slices.Contains(listed[c.Component], c.Release) || again || said[[3]string{c.Release, c.Component, c.group}] {
			continue
		}
		said[[3]string{c.Release, c.Component, c.group}] = true
		st, err := w.vulnerability(c.group)
		if err != nil {
			return err
		}
		part := spelled[at]
		st.Status, st.At, st.Products = Fixed, c.At, w.product(c.Release, part)
		st.Detail = fmt.Sprintf("It carries %s %s; the fault is fixed since %s.", part.Name, cmp.Or(part.Version, "of an unnamed version"), c.Fixed)
		w.out = append(w.out, st)
	}
	return nil
}

// open reports whether the component has an open hit of the vulnerability.
func (w *stater) open(group, component string) (bool, error) {
	var n int64
	err := w.tx.QueryRow(`SELECT count(*) FROM vuln_grouped g CROSS JOIN vuln_hit h
		WHERE h.tenant = g.tenant AND h.record_id = g.record_id AND g.tenant = $1 AND g.group_id = $2 AND h.component_id = $3 AND h.until = 9223372036854775807`, w.tenant, group, component).Scan(&n)
	return n > 0, err
}
