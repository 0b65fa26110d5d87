// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/record"
	"github.com/openthings-platform/openthings/vuln/vex"
)

// Unbuilt is a vulnerability of the kernel of a release that stands in source files, all of which were left out when it was
// built, as the release's list of compiled files shows. It is a proposal: a person accepts it.
type Unbuilt struct {
	Vulnerability string   `json:"vulnerability"` // CVE number, or the record's name
	Component     string   `json:"component"`
	Record        string   `json:"record"`
	Files         []string `json:"files"` // of the fault, as the record names them
}

// Kernel is how the open findings of a release's kernel stand against what was compiled into it.
type Kernel struct {
	Release  string    `json:"release"`
	Evidence string    `json:"evidence,omitempty" doc:"Hash of what was shown; absent: nobody has shown what was compiled"`
	Files    int       `json:"compiled_files"`
	Open     int       `json:"open"`     // findings that nobody has decided on
	Unbuilt  []Unbuilt `json:"unbuilt"`  // of them, those whose files were all left out
	Accepted int       `json:"accepted"` // decided by this evidence, and standing
}

// originEvidence marks decisions that were accepted from a list of compiled files, so that all of them can be taken back.
const originEvidence = "compiled-files"

// Kernel weighs the open findings of the release's kernel against its list of compiled files.
func (s *Service) Kernel(ctx context.Context, tenant, release string) (Kernel, error) {
	out := Kernel{Release: release, Unbuilt: []Unbuilt{}}
	compiled, err := s.cfg.SBOM.CompiledFiles(ctx, tenant, release)
	if err != nil {
		return out, err
	}
	out.Files = len(compiled)
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		out.Open, out.Accepted, out.Unbuilt = 0, 0, []Unbuilt{}
		if compiled != nil {
			if out.Evidence, err = s.cfg.SBOM.EvidenceHash(tx, tenant, release); err != nil {
				return err
			}
		}
		about, err := s.releases(tx, tenant, []string{release})
		if err != nil {
			return err
		}
		open, err := s.kernelHits(tx, tenant, release)
		if err != nil {
			return err
		}
		book := s.book(tx, tenant)
		for _, h := range open {
			decided, err := book.on(h.group, about[release].Product)
			if err != nil {
				return err
			}
			if d := decided.at(about[release].Product, h.component, release, s.now()); d != nil {
				if d.Origin == originEvidence {
					out.Accepted++
				}
				continue
			}
			out.Open++
			if compiled == nil {
				continue
			}
			b, err := body(tx, h.hash)
			if err != nil {
				return err
			}
			r, err := record.Parse(b)
			if err != nil {
				return fmt.Errorf("record %s: %w", h.record, err)
			}
			if left, _ := record.Unbuilt(r.Files(), compiled, nil); left {
				out.Unbuilt = append(out.Unbuilt, Unbuilt{Vulnerability: h.name, Component: h.component, Record: h.record, Files: r.Files()})
			}
		}
		return nil
	})
	return out, err
}

// kernelHit is an open hit of a record about the kernel.
type kernelHit struct{ group, name, component, record, hash string }

// kernelHits are those of a release, one for each vulnerability and component.
func (s *Service) kernelHits(tx *store.Tx, tenant, release string) ([]kernelHit, error) {
	keys, err := s.cfg.SBOM.Keys(tx, tenant, release)
	if err != nil {
		return nil, err
	}
	var components []string
	for _, k := range keys {
		components = append(components, k.Component)
	}
	var out []kernelHit
	for part := range slices.Chunk(slices.Compact(components), 128) {
		list, args := store.In([]any{tenant, record.RuleKernel}, part)
		rows, err := tx.Query(`SELECT g.group_id, v.name, h.component_id, h.record_id, r.content_hash FROM vuln_hit h CROSS JOIN vuln_grouped g CROSS JOIN vuln_group v CROSS JOIN vuln_record r
			WHERE g.tenant = h.tenant AND g.record_id = h.record_id AND v.tenant = g.tenant AND v.id = g.group_id
			AND r.tenant = h.tenant AND r.id = h.record_id AND r.is_current = 1 AND h.tenant || '' = $1 AND h.rule = $2 AND h.until = 9223372036854775807 AND h.component_id IN `+list+` ORDER BY v.name, h.component_id, h.record_id`, args...)
		some, err := store.Collect(rows, err, func(r *sql.Rows) (h kernelHit, err error) {
			return h, r.Scan(&h.group, &h.name, &h.component, &h.record, &h.hash)
		})
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	return slices.CompactFunc(out, func(a, b kernelHit) bool { return a.group == b.group && a.component == b.component }), nil
}

// AcceptUnbuilt decides, in the name of a person, that the release is not affected by what was left out of its kernel: by
// all that is proposed, or by those named. Releases with the same kernel and the same evidence inherit it.
func (s *Service) AcceptUnbuilt(ctx context.Context, tenant, actor, release string, names []string) (int, error) {
	k, err := s.Kernel(ctx, tenant, release)
	if err != nil {
		return 0, err
	}
	about, err := s.cfg.Release(ctx, tenant, release)
	if err != nil {
		return 0, err
	}
	accepted := 0
	for _, u := range k.Unbuilt {
		if len(names) > 0 && !slices.Contains(names, u.Vulnerability) {
			continue
		}
		files := strings.Join(u.Files, ", ")
		if _, err := s.Decide(ctx, tenant, actor, u.Vulnerability, Deciding{Product: about.Product, Component: u.Component, Status: NotAffected,
			Justification: string(vex.CodeNotPresent), Origin: originEvidence, rests: []string{k.Evidence},
			Evidence: fmt.Sprintf("The kernel was built from %d files; none of these is among them: %.3000s. List: %s.", k.Files, files, k.Evidence)}); err != nil {
			return accepted, err
		}
		accepted++
	}
	if accepted == 0 {
		return 0, problem.NotFound("No open finding of this kernel stands in files that were all left out.").
			Hint("Send the list of compiled files: openthings sbom evidence RELEASE FILE")
	}
	return accepted, nil
}

// ReopenUnbuilt takes back, at once, all that was accepted for the release by its list of compiled files.
func (s *Service) ReopenUnbuilt(ctx context.Context, tenant, actor, release, reason string) (int, error) {
	about, err := s.cfg.Release(ctx, tenant, release)
	if err != nil {
		return 0, err
	}
	if strings.TrimSpace(reason) == "" {
		return 0, problem.Invalid("Say why the evidence is not relied on any more.").At("reason")
	}
	var accepted []kernelHit
	var evidence string
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		accepted = nil
		if evidence, err = s.cfg.SBOM.EvidenceHash(tx, tenant, release); err != nil {
			return err
		}
		open, err := s.kernelHits(tx, tenant, release)
		if err != nil {
			return err
		}
		book := s.book(tx, tenant)
		for _, h := range open {
			decided, err := book.on(h.group, about.Product)
			if err != nil {
				return err
			}
			if d := decided.at(about.Product, h.component, release, s.now()); d != nil && d.Origin == originEvidence {
				accepted = append(accepted, h)
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for i, h := range accepted {
		if _, err := s.Decide(ctx, tenant, actor, h.name, Deciding{Product: about.Product, Component: h.component, Status: UnderInvestigation,
			rests: []string{evidence}, Evidence: reason}); err != nil {
			return i, err
		}
	}
	return len(accepted), nil
}
