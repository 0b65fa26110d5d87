// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"
	"strings"

	"github.com/openthings-platform/openthings/tenant"
)

// name is what people call the thing with this id in the visitor's tenant; "" when nobody has named it. Names are shown
// to whoever may see the id: they stand beside facts that the visitor already reads.
func (h *house) name(ctx context.Context, id string) string {
	who, _ := tenant.ActorFrom(ctx)
	kind, _, _ := strings.Cut(id, "_")
	var name string
	var err error
	switch kind {
	case "system", "vuln", "update":
		return "the platform"
	case "host":
		return "host administrator"
	case "per", "tok":
		name, err = h.tenant.ActorName(ctx, id)
	case "ten":
		t, e := h.tenant.Get(ctx, who.Tenant)
		if t.ID == id {
			name, err = t.Name, e
		}
	case "sol":
		name, err = h.tenant.SolutionName(ctx, id)
	case "prd":
		if name = h.productName(ctx, who.Tenant, id); name == id {
			name = ""
		}
	case "rev":
		r, e := h.product.Revision(ctx, who.Tenant, id)
		name, err = r.Name, e
	case "grp":
		name, err = h.fleet.GroupName(ctx, who.Tenant, id)
	case "alr":
		name, err = h.alarm.Name(ctx, who.Tenant, id)
	case "nep":
		name, err = h.notify.Name(ctx, who.Tenant, id)
	case "bat", "sta", "tca", "etk":
		name, err = h.enroll.Name(ctx, who.Tenant, id)
	case "dev":
		d, e := h.identity.Get(ctx, who.Tenant, id)
		name, err = d.Serial, e
	case "rel":
		r, e := h.update.Get(ctx, who.Tenant, id)
		if e == nil {
			name = h.productName(ctx, who.Tenant, r.Product) + " " + r.Version
		}
		err = e
	case "job":
		j, e := h.command.Job(ctx, who.Tenant, id)
		name, err = j.What(), e
	case "dpl":
		d, e := h.update.Deployment(ctx, who.Tenant, id)
		if e == nil {
			name = "deployment of " + h.update.ReleaseName(ctx, who.Tenant, d.Release)
		}
		err = e
	case "adv":
		name, err = h.advisory.Title(ctx, who.Tenant, id)
	case "cpn":
		name, err = h.inform.Title(ctx, who.Tenant, id)
	case "rpt":
		name, err = h.desk.Name(ctx, who.Tenant, id)
	case "cas", "asm", "sig":
		name, err = h.respond.Title(ctx, who.Tenant, id)
	}
	if err != nil {
		return "" // the id stands for itself
	}
	return name
}

// devicesBySolution counts the tenant's devices by where they serve.
func (h *house) devicesBySolution(ctx context.Context, tenant string) (map[string]int64, error) {
	census, err := h.identity.Count(ctx, tenant)
	out := map[string]int64{}
	for _, c := range census {
		out[c.Solution] += c.Devices
	}
	return out, err
}
