// SPDX-License-Identifier: AGPL-3.0-only

package evidence

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/evidence/verify"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

func (s *Service) logRoutes(a *api.API) {
	api.Raw(a, api.Op{ID: "export-audit-log", Method: "GET", Path: "/v1/audit/export", Verb: string(tenant.AuditRead), Stage: "evidence",
		Summary: "The entries of the audit log in a time, of the whole tenant or about one product, each with its proof",
		Doc: "Query: `from` and `to` (RFC 3339 or a day; from that instant on, until before that one; by default all until now) and `product`. A stream of lines of any length that `openthings verify FILE --log-key KEY` checks " +
			"without the platform. Needs the right to export evidence too. The export itself becomes an entry of the audit log."}, s.downloadLog)
}

// Span is which entries of the log an export holds.
type Span struct {
	From, To time.Time // from that instant on, until before that one
	Product  string    // only what is about it and about what belongs to it; empty: everything of the tenant
}

// spanOf reads a span from a query or a form; absent ends are the beginning of the log and now.
func (s *Service) spanOf(q url.Values) (x Span, err error) {
	if x.From, err = moment(q.Get("from"), "from", 0); err != nil {
		return x, err
	}
	if x.To, err = moment(q.Get("to"), "to", 1); err != nil {
		return x, err
	}
	if x.From.IsZero() {
		x.From = time.UnixMilli(0).UTC()
	}
	if x.To.IsZero() {
		x.To = s.cfg.Clock.Now().UTC().Truncate(time.Millisecond)
	}
	if !x.From.Before(x.To) {
		return x, problem.Invalid("The time ends before it begins.").At("to")
	}
	x.Product = strings.TrimSpace(q.Get("product"))
	return x, nil
}

// moment reads an instant, or a day, which as an end is meant with all of it.
func moment(text, at string, days int) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.DateOnly, text); err == nil {
		return t.AddDate(0, 0, days), nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return t, problem.Invalid("%q is not a time.", text).At(at).Hint("Write it as 2026-11-21 or as 2026-11-21T08:00:00Z.")
	}
	return t.UTC().Truncate(time.Millisecond), nil
}

func (s *Service) downloadLog(w http.ResponseWriter, r *http.Request) error {
	span, err := s.spanOf(r.URL.Query())
	if err != nil {
		return err
	}
	name := "audit-" + span.From.Format(time.DateOnly) + "-" + span.To.Format(time.DateOnly) + ".log.txt"
	return s.ExportLog(r.Context(), span, func() io.Writer {
		h := w.Header()
		h.Set("Content-Type", "text/plain; charset=utf-8")
		h.Set("Content-Disposition", `attachment; filename="`+name+`"`)
		h.Set("Cache-Control", "no-store")
		return w
	})
}

// ExportLog streams the entries of a span to the writer that begin returns, once nothing can refuse any more. What
// is held in memory is one page. A stream that breaks off has no end and verifies as cut off.
func (s *Service) ExportLog(ctx context.Context, span Span, begin func() io.Writer) error {
	who, _ := tenant.ActorFrom(ctx)
	thing := tenant.Thing{Tenant: who.Tenant, Product: span.Product}
	for _, v := range []tenant.Verb{tenant.AuditRead, tenant.EvidenceExport} {
		if err := tenant.Require(ctx, v, thing); err != nil {
			return err
		}
	}
	subject := who.Tenant
	if span.Product != "" {
		subject = span.Product
		if _, err := s.cfg.Products.Get(ctx, who.Tenant, span.Product); err != nil {
			return err
		}
	}
	if err := s.cfg.Audit.Wait(ctx); err != nil {
		return err
	}
	c, err := s.cfg.Audit.Checkpoint(ctx)
	if err != nil {
		return err
	}
	w := begin()
	out, err := verify.NewExport(w, verify.LogHeader{Tenant: who.Tenant, Product: span.Product, From: span.From, To: span.To, LogKey: s.cfg.Audit.VerifierKey(), Checkpoint: c.Note})
	if err != nil {
		return err
	}
	var keep func(context.Context, []string) (map[string]bool, error)
	if span.Product != "" {
		keep = func(ctx context.Context, subjects []string) (map[string]bool, error) {
			return s.belonging(ctx, who.Tenant, span.Product, subjects)
		}
	}
	err = s.cfg.Audit.Walk(ctx, c, who.Tenant, store.Millis(span.From), store.Millis(span.To), keep, func(page []audit.Proven) error {
		for _, e := range page {
			if err := out.Entry(verify.Entry{Index: e.Pos, Leaf: e.Leaf, Data: e.Data, Proof: e.Proof}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	n, digest := out.Sum()
	record := verify.LogExported{Product: span.Product, From: span.From, To: span.To, Size: c.Size, Entries: n, SHA256: digest}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		return audit.Append(tx, audit.Entry{Tenant: who.Tenant, Actor: who.ID, Kind: verify.KindLogExported, Subject: subject, Data: record})
	})
	if err != nil {
		return err
	}
	end, err := s.trailer(ctx, who.Tenant, subject, c, record)
	if err != nil {
		return err
	}
	_, err = w.Write(end)
	return err
}

// trailer is the signed end of an export: its record in the log, proven.
func (s *Service) trailer(ctx context.Context, tenantID, subject string, from audit.Checkpoint, record verify.LogExported) ([]byte, error) {
	if err := s.cfg.Audit.Wait(ctx); err != nil {
		return nil, err
	}
	want, err := json.Marshal(record)
	if err != nil {
		return nil, err
	}
	items, err := s.cfg.Audit.List(ctx, tenantID, audit.Filter{Subject: subject, Kind: verify.KindLogExported}, pageSize)
	if err != nil {
		return nil, err
	}
	for _, it := range items {
		if !bytes.Equal(it.Data, want) {
			continue
		}
		set, err := s.cfg.Audit.ProveEntry(ctx, tenantID, it.ID)
		if err != nil {
			return nil, err
		}
		_, growth, err := s.cfg.Audit.Consistency(ctx, from.Size, set.Checkpoint.Size)
		if err != nil {
			return nil, err
		}
		e := set.Entries[0]
		text, err := verify.LogTrailer{Record: verify.Entry{Index: e.Pos, Leaf: e.Leaf, Data: e.Data, Proof: e.Proof}, Checkpoint: set.Checkpoint.Note, Growth: growth}.Text()
		if err != nil {
			return nil, err
		}
		return s.cfg.Audit.Sign(text)
	}
	return nil, errors.New("evidence: the log does not show the export that was just recorded")
}

// belonging says which of the subjects are the product or belong to it: devices, releases, cases and the like. Of what
// no room knows the product, such as people and tenants, none belongs to any.
func (s *Service) belonging(ctx context.Context, tenantID, product string, subjects []string) (map[string]bool, error) {
	yes, by := map[string]bool{product: true}, map[string][]string{}
	for _, id := range subjects {
		kind, _, _ := strings.Cut(id, "_")
		by[kind] = append(by[kind], id)
	}
	for kind, ids := range by {
		of := s.cfg.ProductsOf[kind]
		if of == nil {
			continue
		}
		owners, err := of(ctx, tenantID, ids)
		if err != nil {
			return nil, err
		}
		for id, owner := range owners {
			yes[id] = owner == product
		}
	}
	return yes, nil
}
