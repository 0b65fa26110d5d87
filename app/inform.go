// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"
	"fmt"

	"github.com/openthings-platform/openthings/notify"
	"github.com/openthings-platform/openthings/respond/inform"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// acting is who a job acts for. Jobs of the platform itself, such as those that take a notice to devices, are its own.
func (h *house) acting(ctx context.Context, t, id string) (tenant.Actor, error) {
	if own := tenant.System(t); id == own.ID {
		return own, nil
	}
	return h.tenant.Acting(ctx, t, id)
}

// campaignSent tells people that users are told.
func campaignSent(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error) {
	var x inform.Told
	if err := e.Decode(&x); err != nil {
		return n, err
	}
	n = notify.Notice{Title: fmt.Sprintf("Users are told “%s”: %d contacts", x.Subject, x.States[string(inform.Waiting)]), Link: "/inform/" + e.Subject, Data: x}
	if x.States[string(inform.Waiting)] == 0 {
		n.Text = "No contact in the register has this product. Users who are not reached by their devices have to be told by other ways."
	}
	return n, nil
}

// campaignFinished tells people how it went.
func campaignFinished(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error) {
	var x inform.Told
	if err := e.Decode(&x); err != nil {
		return n, err
	}
	n = notify.Notice{Title: fmt.Sprintf("“%s” was handed over to %d contacts", x.Subject, x.States[string(inform.Handed)]+x.States[string(inform.Read)]), Link: "/inform/" + e.Subject, Data: x}
	if bad := x.States[string(inform.Failed)] + x.States[string(inform.Bounced)]; bad > 0 {
		n.Title += fmt.Sprintf(", and %d were not reached", bad)
		n.Text = "Correct their addresses and try again, or tell them by other ways."
	}
	return n, nil
}
