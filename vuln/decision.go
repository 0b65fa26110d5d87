// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/record"
)

// Status is what was decided, in the words of VEX.
type Status string

// The statuses of OpenVEX.
const (
	UnderInvestigation Status = "under_investigation"
	DecidedAffected    Status = "affected"
	NotAffected        Status = "not_affected"
	Fixed              Status = "fixed"
)

// Justifications say why a product is not affected, in the words of VEX.
var Justifications = []string{
	"component_not_present", "vulnerable_code_not_present", "vulnerable_code_not_in_execute_path",
	"vulnerable_code_cannot_be_controlled_by_adversary", "inline_mitigations_already_exist",
}

// Decision is what a person decided about a vulnerability of a component in a product. It is inherited by every release
// of the product that has the same version of the component, unless it names one release.
type Decision struct {
	ID            string    `json:"id"`
	Product       string    `json:"product"`
	Component     string    `json:"component"`
	Release       string    `json:"release,omitempty" doc:"Absent: the whole release line"`
	Status        Status    `json:"status"`
	Justification string    `json:"justification,omitempty"`
	Evidence      string    `json:"evidence,omitempty"`
	By            string    `json:"by"`
	At            time.Time `json:"at"`
	seq           int64
}

// harmless reports whether devices with this decision do not count as exposed.
func (d *Decision) harmless() bool { return d.Status == NotAffected || d.Status == Fixed }

// Deciding is the input of a decision.
type Deciding struct {
	Product       string `json:"product" maxLength:"64" doc:"Id of the product"`
	Component     string `json:"component,omitempty" maxLength:"64" doc:"Id of the component; absent: every component of the product's releases with an open finding"`
	Release       string `json:"release,omitempty" maxLength:"64" doc:"Id of the one release that it holds for; absent: the whole release line"`
	Status        Status `json:"status" enum:"under_investigation,affected,not_affected,fixed"`
	Justification string `json:"justification,omitempty" doc:"For not_affected: one of the five VEX justifications"`
	Evidence      string `json:"evidence,omitempty" maxLength:"4000" doc:"What shows it; required for not_affected and fixed"`
}

// maxEvidence bounds the text of a decision, in bytes.
const maxEvidence = 4000

func (d *Deciding) check() error {
	d.Evidence = strings.TrimSpace(d.Evidence)
	switch {
	case d.Product == "":
		return problem.Invalid("A decision is about one product.").At("product")
	case !record.Identifier.MatchString(d.Product), d.Component != "" && !record.Identifier.MatchString(d.Component), d.Release != "" && !record.Identifier.MatchString(d.Release):
		return problem.Invalid("Product, component and release are named by their ids.")
	case len(d.Evidence) > maxEvidence || !utf8.ValidString(d.Evidence) || strings.ContainsRune(d.Evidence, 0):
		return problem.Invalid("The evidence is a text of at most %d bytes.", maxEvidence).At("evidence")
	case d.Justification != "" && d.Status != NotAffected:
		return problem.Invalid("A justification belongs to not_affected only.").At("justification")
	}
	switch d.Status {
	case UnderInvestigation, DecidedAffected:
	case NotAffected:
		if !slices.Contains(Justifications, d.Justification) {
			return problem.Invalid("not_affected needs one of the justifications %s.", strings.Join(Justifications, ", ")).At("justification")
		}
		if d.Evidence == "" {
			return problem.Invalid("A justification without evidence is refused: say what shows it.").At("evidence")
		}
	case Fixed:
		if d.Release == "" {
			return problem.Invalid("fixed is said of one release: older ones with the same component stay affected.").At("release")
		}
		if d.Evidence == "" {
			return problem.Invalid("fixed needs evidence: say which patch or change fixes it.").At("evidence")
		}
	default:
		return problem.Invalid("%.40q is not a status", d.Status).At("status").
			Hint("use under_investigation, affected, not_affected or fixed")
	}
	return nil
}

// decisionList is every decision of one vulnerability, oldest first.
type decisionList []Decision

// at returns the decision that applied at the instant, or nil: the newest that names the release, else the newest of
// the release line.
func (l decisionList) at(product, component, release string, ms int64) *Decision {
	var line, exact *Decision
	for i := range l {
		d := &l[i]
		if d.Product != product || d.Component != component || store.Millis(d.At) > ms {
			continue
		}
		switch d.Release {
		case release:
			exact = d
		case "":
			line = d
		}
	}
	if exact != nil {
		return exact
	}
	return line
}

// decisions reads the decisions made about any name of a vulnerability; product "" means all.
func (s *Service) decisions(tx *store.Tx, tenant, group, product string) (decisionList, error) {
	rows, err := tx.Query(`SELECT `+decisionColumns+` FROM vuln_member m JOIN vuln_decision d ON d.tenant = m.tenant AND d.ident = m.ident
		WHERE m.tenant = $1 AND m.group_id = $2 AND (d.product = $3 OR $3 = '') ORDER BY d.product, d.seq`, tenant, group, product)
	list, err := store.Collect(rows, err, func(r *sql.Rows) (d Decision, err error) { return scanDecision(r) })
	return decisionList(list), err
}

const decisionColumns = `d.id, d.product, d.component_id, d.release_id, d.seq, d.status, d.justification, d.evidence, d.decided_by, d.at`

func scanDecision(r *sql.Rows, more ...any) (d Decision, err error) {
	var at int64
	err = r.Scan(append([]any{&d.ID, &d.Product, &d.Component, &d.Release, &d.seq, &d.Status, &d.Justification, &d.Evidence, &d.By, &at}, more...)...)
	d.At = store.Time(at)
	return d, err
}

// Decide appends a decision on the vulnerability known by ident and returns what was appended, one per component.
func (s *Service) Decide(ctx context.Context, tenant, actor, ident string, in Deciding) ([]Decision, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	var out []Decision
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		out = nil
		group, err := s.group(tx, tenant, ident)
		if err != nil {
			return err
		}
		concerned, err := s.concerned(tx, tenant, group.ID, in)
		if err != nil {
			return err
		}
		for _, component := range concerned.components {
			d := Decision{ID: store.NewID("dec"), Product: in.Product, Component: component, Release: in.Release, Status: in.Status,
				Justification: in.Justification, Evidence: in.Evidence, By: actor, At: store.Time(s.now())}
			if err := tx.QueryRow(`INSERT INTO vuln_decision (id, tenant, product, ident, component_id, release_id, seq, status, justification, evidence, decided_by, at)
				SELECT $1, $2, $3, $4, $5, $6, (SELECT coalesce(max(seq), 0) + 1 FROM vuln_decision WHERE tenant = $2 AND product = $3), $7, $8, $9, $10, $11
				RETURNING seq`, d.ID, tenant, d.Product, group.Name, d.Component, d.Release, string(d.Status), d.Justification, d.Evidence, d.By, store.Millis(d.At)).Scan(&d.seq); err != nil {
				return err
			}
			if err := audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "vulnerability.decided", Subject: d.Product,
				Data: map[string]any{"vulnerability": group.Name, "decision": d}}); err != nil {
				return err
			}
			out = append(out, d)
		}
		return s.settleReleases(tx, tenant, concerned.releases)
	})
	return out, err
}

type concern struct{ components, releases []string }

// concerned finds the components and releases that a decision is about. A decision about nothing is refused.
func (s *Service) concerned(tx *store.Tx, tenant, group string, in Deciding) (concern, error) {
	var c concern
	found, err := s.findings(tx, tenant, group, s.now())
	if err != nil {
		return c, err
	}
	releases := map[string]bool{}
	for _, f := range found {
		releases[f.release] = true
	}
	about, err := s.releases(tx, tenant, sortedKeys(releases))
	if err != nil {
		return c, err
	}
	for _, f := range found {
		if about[f.release].Product == in.Product && (in.Component == "" || in.Component == f.component) && (in.Release == "" || in.Release == f.release) {
			c.components, c.releases = append(c.components, f.component), append(c.releases, f.release)
		}
	}
	slices.Sort(c.components)
	slices.Sort(c.releases)
	c.components, c.releases = slices.Compact(c.components), slices.Compact(c.releases)
	if len(c.components) == 0 {
		err = problem.NotFound("No release of the product has an open finding of this vulnerability that the decision could be about.")
	}
	return c, err
}
