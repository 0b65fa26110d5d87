// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"

	"github.com/openthings-platform/openthings/notify"
	"github.com/openthings-platform/openthings/respond/disclosure"
	"github.com/openthings-platform/openthings/store"
)

// Notices about finders' reports name the report by its number alone: what it says is sealed, and may be under an embargo.

// reportCame tells people that a finder wrote.
func reportCame(title string) func(*house, context.Context, store.Event) (notify.Notice, error) {
	return func(_ *house, _ context.Context, e store.Event) (n notify.Notice, err error) {
		var x disclosure.Told
		if err := e.Decode(&x); err != nil {
			return n, err
		}
		n = notify.Notice{Title: title + " (" + e.Subject + ")", Link: "/disclosure/reports/" + e.Subject, Data: x}
		if x.Exploited == "yes" {
			n.Title += ": seen exploited"
			n.Text = "Assess it at once: whoever becomes aware of an actively exploited vulnerability notifies within 24 hours (Regulation (EU) 2024/2847, Article 14). No embargo changes that."
		}
		return n, nil
	}
}

// reportDeadline tells people that a promise to a finder is near its end or broken.
func reportDeadline(_ *house, _ context.Context, e store.Event) (n notify.Notice, err error) {
	var x disclosure.Escalation
	if err := e.Decode(&x); err != nil {
		return n, err
	}
	due := "is due soon"
	if x.Level == disclosure.DeadlineOverdue {
		due = "is overdue"
	}
	return notify.Notice{Title: "Report " + e.Subject + ": " + disclosure.Timer{Name: x.Timer}.Words() + " " + due, Link: "/disclosure/reports/" + e.Subject, Data: x}, nil
}

// securityTxtEnds tells people that a security.txt ends and nothing replaced it.
func securityTxtEnds(_ *house, _ context.Context, e store.Event) (n notify.Notice, err error) {
	var x disclosure.Expiring
	if err := e.Decode(&x); err != nil {
		return n, err
	}
	n = notify.Notice{Title: "security.txt of this platform ends on " + x.Expires.Format("2006-01-02") + " and was not renewed", Text: "It is signed anew every week; look at the log for why that fails.", Link: "/disclosure/contact", Data: x}
	if x.Host != "" {
		n.Title = "security.txt of " + x.Host + " ends on " + x.Expires.Format("2006-01-02")
		n.Text = "Sign it anew with openthings disclosure securitytxt " + x.Host + " and put it on that site."
	}
	return n, nil
}
