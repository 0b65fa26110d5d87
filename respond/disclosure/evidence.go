// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"context"
	"time"

	"github.com/openthings-platform/openthings/store"
)

// Record is what may be shown of a report to an outsider: that it came, what was promised, when each step was done. Who
// sent it, what they wrote and what people noted about it are not in it, whatever the embargo says.
type Record struct {
	ID        string    `json:"id"`
	Product   string    `json:"product,omitempty"`
	Received  time.Time `json:"received"`
	Channel   string    `json:"channel"`
	Exploited string    `json:"exploited" enum:"yes,no,unknown"`
	Status    Status    `json:"status"`
	Sides     []Side    `json:"sides,omitempty"`
	Verdict   Verdict   `json:"verdict,omitempty"`
	Policy    int64     `json:"policy" doc:"Version of the policy that it came under"`
	Promise   Promise   `json:"promise"`
	Timers    []Timer   `json:"timers" doc:"What was promised, and when it was done"`
	Signal    string    `json:"signal,omitempty" doc:"What its finder saw exploited became this signal"`
	Advisory  string    `json:"advisory,omitempty"`
	URL       string    `json:"url,omitempty"`
	Steps     []Step    `json:"steps"`
}

// Step is an event of a report without what it says. Its digest is the one in the log.
type Step struct {
	Seq      int64     `json:"seq"`
	Kind     EventKind `json:"kind"`
	Recorded time.Time `json:"recorded"`
	By       Author    `json:"by" enum:"finder,person,platform"`
	Digest   string    `json:"digest"`
}

// Records are the newest reports about a product of the tenant, or all of the tenant's if it is empty, the newest first. The
// caller has checked access.
func (s *Service) Records(ctx context.Context, tenant, product string, limit int) (out []Record, err error) {
	var fs []file
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		fs, err = files(tx, tenant, `($2 = '' OR product = $2) ORDER BY id DESC LIMIT $3`, product, limit)
		return err
	})
	out = []Record{}
	for _, f := range fs {
		out = append(out, f.record(s.now()))
	}
	return out, err
}

func (f file) record(now time.Time) Record {
	st := f.state()
	r := Record{ID: f.ID, Product: st.Product, Received: f.Received, Exploited: st.Exploited, Status: st.Status, Sides: st.Sides(now), Verdict: st.Verdict,
		Promise: st.Promise, Timers: Timers(st), Signal: st.Signal, Advisory: st.Advisory, URL: st.URL}
	for _, e := range f.Rows {
		if e.Kind == ReportReceived {
			r.Channel, r.Policy = e.Data.Channel, e.Data.Policy
		}
		r.Steps = append(r.Steps, Step{e.Seq, e.Kind, e.Recorded, e.By, e.digest})
	}
	return r
}

// ProductsOf is the product of each of these reports of the tenant, by id.
func (s *Service) ProductsOf(ctx context.Context, tenant string, ids []string) (map[string]string, error) {
	in, args := store.In([]any{tenant}, ids)
	return store.Pairs(s.cfg.DB.Query(ctx, `SELECT id, product FROM disclosure_report WHERE tenant = $1 AND id IN `+in, args...))
}
