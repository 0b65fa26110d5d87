// SPDX-License-Identifier: AGPL-3.0-only

package evidence_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/evidence"
	"github.com/openthings-platform/openthings/evidence/verify"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

func (d *desk) exportLog(ctx context.Context, span evidence.Span) ([]byte, error) {
	var b bytes.Buffer
	err := d.ExportLog(ctx, span, func() io.Writer { return &b })
	return b.Bytes(), err
}

func proves(d *desk, b []byte) error {
	_, err := verify.Bundle(bytes.NewReader(b), d.log.VerifierKey(), time.Now())
	return err
}

// TestTheLogByTimeAndProduct: an export holds just the entries of its time and its product, and neither a line nor a byte of it can
// be changed, left out or added.
func TestTheLogByTimeAndProduct(t *testing.T) {
	eachDesk(t, func(t *testing.T, d *desk) {
		second, err := d.products.Create(t.Context(), product.Product{Tenant: "ten_a", Name: "Lamp", Model: "l1"}, "per_ann")
		d.must(err)
		foreign, err := d.cases.AddSignal(ann, respond.Signal{Product: second.ID, Title: "Strange logins on lamps"})
		d.must(err)
		id := d.declared(time.Hour, false)
		for i := range 450 { // more than a page
			d.append(audit.Entry{Tenant: "ten_a", Actor: "per_1", Kind: "device.claimed", Subject: "dev_other", Data: i})
		}
		d.append(audit.Entry{Tenant: "ten_b", Actor: "per_1", Kind: "device.claimed", Subject: d.product})
		all := evidence.Span{From: time.UnixMilli(0), To: time.Now().Add(time.Hour)}
		b, err := d.exportLog(ann, all)
		d.must(err)
		whole, err := verify.Bundle(bytes.NewReader(b), d.log.VerifierKey(), time.Now())
		d.must(err)
		if whole.Entries < 455 || whole.Log == nil || strings.Contains(string(b), `"tenant":"ten_b"`) {
			t.Errorf("%d entries: %+v", whole.Entries, whole.Log)
		}
		one := all
		one.Product = d.product
		mine, err := d.exportLog(ann, one)
		d.must(err)
		r, err := verify.Bundle(bytes.NewReader(mine), d.log.VerifierKey(), time.Now())
		d.must(err)
		// product.created, signal.received, assessment.opened, decision.recorded, t0.set
		if r.Entries != 5 || !bytes.Contains(mine, []byte(id)) || bytes.Contains(mine, []byte(second.ID)) || bytes.Contains(mine, []byte(foreign.ID)) || bytes.Contains(mine, []byte("dev_other")) {
			t.Errorf("%d entries about the product: %s", r.Entries, mine)
		}
		none, err := d.exportLog(ann, evidence.Span{From: time.Now().Add(time.Hour), To: time.Now().Add(2 * time.Hour)})
		d.must(err)
		if r, err := verify.Bundle(bytes.NewReader(none), d.log.VerifierKey(), time.Now()); err != nil || r.Entries != 0 {
			t.Errorf("an empty time: %+v %v", r, err)
		}
		if _, err := d.exportLog(other, one); err == nil {
			t.Error("another tenant exported the entries of a product")
		}
		if _, err := d.exportLog(bob, all); err == nil {
			t.Error("somebody without the right to export did")
		}
		limited := tenant.Actor{ID: "per_l", Kind: tenant.KindPerson, Tenant: "ten_a", Grants: []tenant.Grant{{Role: tenant.Auditor, Tenant: "ten_a", Product: d.product}}}
		if _, err := d.exportLog(tenant.WithActor(t.Context(), limited), all); err == nil {
			t.Error("the auditor of one product exported the whole log")
		}
		if _, err := d.exportLog(tenant.WithActor(t.Context(), limited), one); err != nil {
			t.Errorf("the auditor of the product: %v", err)
		}
		if d.db.Engine() == store.Postgres {
			return
		}
		for i := range mine {
			bad := bytes.Clone(mine)
			bad[i] ^= 1
			if proves(d, bad) == nil {
				t.Fatalf("a flipped byte at %d of %d went unnoticed", i, len(mine))
			}
		}
		lines := bytes.SplitAfter(mine, []byte("\n"))
		for i := range lines {
			if proves(d, bytes.Join(append(append([][]byte{}, lines[:i]...), lines[i+1:]...), nil)) == nil && len(lines[i]) > 0 {
				t.Errorf("line %d left out went unnoticed", i)
			}
			if proves(d, bytes.Join(lines[:i], nil)) == nil && i < len(lines)-1 {
				t.Errorf("a file cut off before line %d went unnoticed", i)
			}
		}
		if proves(d, append(bytes.Clone(mine), '\n')) == nil || proves(d, append(bytes.Clone(mine), mine...)) == nil {
			t.Error("an added line went unnoticed")
		}
		if _, err := verify.Bundle(bytes.NewReader(mine), "", time.Now()); err != verify.ErrUnproven {
			t.Errorf("without a key: %v", err)
		}
	})
}

// TestTheLogIsExportedPageByPage: what is written does not wait for what is still to be read.
func TestTheLogIsExportedPageByPage(t *testing.T) {
	d := oneDesk(t)
	for i := range 1000 {
		d.append(audit.Entry{Tenant: "ten_a", Actor: "per_1", Kind: "device.claimed", Subject: "dev_1", Data: fmt.Sprint(i, strings.Repeat("x", 100))})
	}
	sizes := &writes{}
	d.must(d.ExportLog(ann, evidence.Span{From: time.UnixMilli(0), To: time.Now().Add(time.Hour)}, func() io.Writer { return sizes }))
	if sizes.n < 1000 || sizes.most > 64<<10 {
		t.Errorf("%d writes, the largest of %d bytes", sizes.n, sizes.most)
	}
	if err := d.ExportLog(ann, evidence.Span{From: time.UnixMilli(0), To: time.Now().Add(time.Hour)}, func() io.Writer { return &writes{fail: 300} }); err == nil {
		t.Error("a reader that went away was not noticed")
	}
}

// writes counts writes, and fails after some.
type writes struct{ n, most, fail int }

func (w *writes) Write(b []byte) (int, error) {
	w.n++
	w.most = max(w.most, len(b))
	if w.fail > 0 && w.n > w.fail {
		return 0, io.ErrClosedPipe
	}
	return len(b), nil
}
