// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/openthings-platform/openthings/store"
)

// SupportRecord is what was ever published and decided about the support of one placement cohort.
type SupportRecord struct {
	Cohort
	Versions  []Published   `json:"versions" doc:"The newest first"`
	Decisions []EndDecision `json:"end_decisions" doc:"What a person decided about the end, the newest first"`
	Notices   []NoticeStep  `json:"notices" doc:"Notices of the end that were announced or left out"`
}

// NoticeStep is one step of the schedule of notices.
type NoticeStep struct {
	End    string `json:"end" doc:"The month of the end that the notice was about"`
	Months int64  `json:"months" doc:"Before it; negative: after it"`
	Left   bool   `json:"left_out,omitempty" doc:"It was due before the end was published"`
}

// SupportRecords reads the support of every cohort of a product of the tenant.
func (s *Service) SupportRecords(ctx context.Context, tenant, product string) (out []SupportRecord, err error) {
	cs, err := s.Cohorts(ctx, tenant, product)
	for _, c := range cs {
		if err != nil {
			return nil, err
		}
		r := SupportRecord{Cohort: c, Notices: []NoticeStep{}}
		if r.Versions, err = s.Versions(ctx, tenant, c.ID); err != nil {
			return nil, err
		}
		if r.Decisions, err = s.EndDecisions(ctx, tenant, c.ID); err != nil {
			return nil, err
		}
		err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
			list, err := notices(tx, tenant, c.ID)
			for _, t := range list {
				r.Notices = append(r.Notices, NoticeStep{string(t.end), int64(t.step), t.skip})
			}
			return err
		})
		out = append(out, r)
	}
	return out, err
}

// PageVersions are the newest versions of the user information of a product of the tenant as they were published, the newest
// first, at most limit.
func (s *Service) PageVersions(ctx context.Context, tenant, product string, limit int) ([]Page, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT version, texts, actor, published FROM product_page WHERE tenant = $1 AND product = $2 ORDER BY version DESC LIMIT $3`, tenant, product, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (p Page, err error) {
		var text string
		var at int64
		if err := r.Scan(&p.Version, &text, &p.Actor, &at); err != nil {
			return p, err
		}
		p.Published = store.Time(at)
		if err := json.Unmarshal([]byte(text), &p.Texts); err != nil {
			return p, fmt.Errorf("product: page of %s: %w", product, err)
		}
		return p, nil
	})
}

// ProductsOf is the product of each of these hardware revisions of the tenant, by id.
func (s *Service) ProductsOf(ctx context.Context, tenant string, ids []string) (map[string]string, error) {
	in, args := store.In([]any{tenant}, ids)
	return store.Pairs(s.cfg.DB.Query(ctx, `SELECT id, product FROM hardware_revision WHERE tenant = $1 AND id IN `+in, args...))
}
