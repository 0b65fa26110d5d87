// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/command"
	"github.com/openthings-platform/openthings/conform"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/notify"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/respond/disclosure"
	"github.com/openthings-platform/openthings/respond/inform"
	"github.com/openthings-platform/openthings/respond/oncall"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/telemetry"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/vuln"
)

// told are the events of the stages that people outside are told of. A stage announces and does not know who listens, so
// the words for people stand here. words returns a title and the page to look at; an empty title tells nobody.
var told = []struct {
	topic, text string
	words       func(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error)
}{
	{"vuln.exploited", "a vulnerability that a feed knows as exploited is in a release of yours", func(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error) {
		var x vuln.Exploited
		if err := e.Decode(&x); err != nil {
			return n, err
		}
		return notify.Notice{Title: x.Group + " is known to be exploited and in " + h.productName(ctx, e.Tenant, x.Product) + " " + x.Version,
			Text: "Find out whether it can be reached and whether it was exploited in this product. Since 2026-09-11 an exploited vulnerability is reported within 24 hours of becoming aware (Regulation (EU) 2024/2847, Article 14).",
			Link: "/vulnerabilities/" + x.ID, Data: x}, nil
	}},
	{vuln.TopicStopped, "the making of units is stopped: no such unit gets a new identity", func(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error) {
		return stopNotice(h, ctx, e, "The making of %s is stopped", "Devices in the field are not concerned. A person lifts it on the product's page or with openthings stop lift.")
	}},
	{vuln.TopicResumed, "the making of units goes on: a stop was lifted", func(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error) {
		return stopNotice(h, ctx, e, "The making of %s goes on", "")
	}},
	{vuln.FeedStale, "a source of vulnerability records brought nothing good for too long: what is found may not be all", func(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error) {
		return feedNotice(e, "The feed %s is stale", "Until it is good again, “nothing found” means: not found in what was known then.")
	}},
	{vuln.FeedGood, "a source of vulnerability records is good again", func(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error) {
		return feedNotice(e, "The feed %s is good again", "")
	}},
	{"case.deadline", "a clock of a case is near its end or over it", func(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error) {
		var d respond.Escalation
		if err := e.Decode(&d); err != nil {
			return n, err
		}
		due := map[respond.EventKind]string{respond.DeadlineSoon: "is due soon", respond.DeadlineOverdue: "is overdue",
			respond.SpreadingAssumed: "is over: assume that others know", respond.HoldOver: "is over"}
		n = notify.Notice{Title: h.called(ctx, e.Subject) + ": " + d.Stage.Name() + " " + cmp.Or(due[d.Level], "has no date yet"), Link: "/cases/" + e.Subject, Data: d, Severity: notify.Grave}
		if d.Level == respond.DeadlineSoon || d.Level == respond.DeadlineOverdue {
			n.Thread = dutyThread(e.Subject, d.Duty())
		}
		if d.Level == respond.DeadlineOverdue {
			n.Severity = notify.Critical
		}
		return n, nil
	}},
	{respond.TopicDutyEnded, "a duty of a case needs nobody any more: it is met, or the case is closed", func(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error) {
		var d respond.DutyEnded
		if err := e.Decode(&d); err != nil {
			return n, err
		}
		return notify.Notice{Title: h.called(ctx, e.Subject) + ": " + d.Stage.Name() + " needs nobody any more", Link: "/cases/" + e.Subject, Data: d,
			Severity: notify.Info, Thread: dutyThread(e.Subject, respond.Duty(d)), Phase: notify.Over}, nil
	}},
	{conform.TopicStale, "rules of the law were not compared with their source for more than 90 days", func(_ *house, _ context.Context, e store.Event) (n notify.Notice, err error) {
		var x conform.Stale
		if err := e.Decode(&x); err != nil {
			return n, err
		}
		return notify.Notice{Title: fmt.Sprintf("%d rules of the law were last compared with their source on %s or later, more than 90 days ago", x.Rules, x.Oldest),
			Text: "Compare them with the Official Journal, or install a newer version of the platform, which brings compared rules.", Link: "/law", Data: x}, nil
	}},
	{respond.TopicIdle, "a signal waits for a person's decision for too long", func(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error) {
		var x respond.Idle
		if err := e.Decode(&x); err != nil {
			return n, err
		}
		about := "a product that nobody has named yet"
		if x.Product != "" {
			about = h.productName(ctx, e.Tenant, x.Product)
		}
		return notify.Notice{Title: "Nobody has decided about the signal “" + x.Title + "” for " + about,
			Text: "It came in at " + x.Intake.UTC().Format("2006-01-02 15:04 UTC") + ". Being aware begins with an immediate assessment (C(2026) 5252, points 211-214); one that lies idle postpones nothing.",
			Link: "/signals/" + e.Subject, Data: x, Severity: notify.Grave, Thread: "idle " + e.Subject}, nil
	}},
	{respond.TopicDecided, "a person decided about a signal", func(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error) {
		var x respond.SignalDecided
		if err := e.Decode(&x); err != nil {
			return n, err
		}
		return notify.Notice{Title: h.called(ctx, e.Subject) + ": " + string(x.Verdict), Link: "/signals/" + e.Subject, Data: x,
			Severity: notify.Info, Thread: "idle " + e.Subject, Phase: notify.Over}, nil
	}},
	{oncall.TopicUnanswered, "everybody on call was called three times, and nobody answered", unanswered},
	{inform.TopicSent, "users are told something: a campaign was sent", campaignSent},
	{inform.TopicFinished, "a campaign reached everybody that it could reach, and whom not", campaignFinished},
	{"advisory.hold_ended", "an advisory that was held back may be published", holdEnded},
	{"advisory.published", "a security advisory was published", advisoryPublished},
	{disclosure.TopicReceived, "a finder reported a vulnerability", reportCame("A finder reported a vulnerability")},
	{disclosure.TopicAdded, "a finder added something to a report", reportCame("A finder added something to a report")},
	{disclosure.TopicDeadline, "a promise to a finder is near its end or over it", reportDeadline},
	{disclosure.TopicExpiring, "a security.txt ends within 30 days and was not replaced", securityTxtEnds},
	{"clone.detected", "a device was seen twice: same key, certificate or serial number", func(_ *house, _ context.Context, e store.Event) (n notify.Notice, err error) {
		var d map[string]any
		if err := e.Decode(&d); err != nil {
			return n, err
		}
		return notify.Notice{Title: fmt.Sprintf("Two devices show the same %v", d["what"]), Text: "They are suspended until a person decides which one is genuine.", Link: "/enrol/quarantine", Data: d, Thread: e.Subject}, nil
	}},
	{"clone.decided", "a person decided which of the devices that were seen twice is genuine", func(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error) {
		var d struct{ Genuine, Reason string }
		if err := e.Decode(&d); err != nil {
			return n, err
		}
		n = notify.Notice{Title: "Of the devices that were seen twice, " + h.called(ctx, d.Genuine) + " is genuine", Text: d.Reason, Link: "/enrol/quarantine", Data: d, Severity: notify.Info, Thread: e.Subject, Phase: notify.Over}
		switch d.Genuine {
		case enroll.CloneNone:
			n.Title = "Of the devices that were seen twice, none is genuine: they are barred"
		case enroll.CloneFalse:
			n.Title = "Devices that were seen twice are no clones after all"
		}
		return n, nil
	}},
	{"clone.flood", "a line station, a trusted CA or a token names more serial numbers of other units than are believed", floodNotice},
	{identity.TopicEnding, "an authority comes near its end, or is over it", endingNotice},
	{identity.TopicLists, "published revocation lists or an OCSP responder are about to end and were not renewed", listsNotice},
	{identity.TopicListsGood, "published revocation lists and OCSP responders are good again", func(_ *house, _ context.Context, e store.Event) (n notify.Notice, err error) {
		// Each node says so; what they say together is told once.
		return notify.Notice{Title: "Revocation lists and OCSP answers are good again", Link: "/revocations", Severity: notify.Info, Thread: listsThread, Phase: notify.Over,
			Key: e.Topic + "_" + store.Time(e.At).UTC().Truncate(10*time.Minute).Format("200601021504")}, nil
	}},
	{"batch.surplus", "more units have an identity than were made, or a line station wants more than its quota", surplusNotice},
	{"station.forked", "a copy of an offline line station is at work", forkNotice},
	{"station.clock", "the clock of a line station is off, and it is refused", clockNotice},
	{"unit.refused", "an offline line station brought units that were not taken", refusedNotice},
	{"trusted-ca.refused", "devices that a trusted CA has signed are kept out", refusedByCANotice},
	{telemetry.ChainBroken, "a device's chain of security events is broken: something is missing, altered or forged", func(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error) {
		var b telemetry.ChainBreak
		if err := e.Decode(&b); err != nil {
			return n, err
		}
		return notify.Notice{Title: fmt.Sprintf("The chain of security events of device %s is broken: %s at %d to %d", h.called(ctx, e.Subject), b.Kind, b.From, b.To),
			Text: "Somebody may have deleted or altered what the device keeps of logins, changes and updates. Look at its security events.", Link: "/devices/" + e.Subject, Data: b}, nil
	}},
	{"deployment.ended", "a deployment was aborted", func(_ *house, _ context.Context, e store.Event) (n notify.Notice, err error) {
		var d struct{ State, Release, Reason string }
		if err := e.Decode(&d); err != nil || d.State != "aborted" {
			return n, err
		}
		return notify.Notice{Title: "A deployment was aborted: " + d.Reason, Link: "/deployments/" + e.Subject, Data: map[string]any{"release": d.Release, "reason": d.Reason}}, nil
	}},
	{"job.ended", "a job over many devices was aborted, or is done", func(_ *house, _ context.Context, e store.Event) (n notify.Notice, err error) {
		var j command.JobEnded
		if err := e.Decode(&j); err != nil || j.State == string(command.Cancelled) { // a person did that
			return n, err
		}
		n = notify.Notice{Title: fmt.Sprintf("The job %s is done: %d of %d devices did it", j.Title, j.Counts.Done, j.Counts.Devices), Text: j.Reason, Link: "/jobs/" + e.Subject, Data: j}
		if j.State == command.Aborted {
			n.Title = "The job " + j.Title + " was aborted: " + j.Reason
			n.Text = fmt.Sprintf("%d of %d devices had done it, %d failed; nobody else begins.", j.Counts.Done, j.Counts.Devices, j.Counts.Failed+j.Counts.Expired)
		}
		return n, nil
	}},
	{telemetry.GapOpened, "messages of a device did not arrive, by its own count", func(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error) {
		var g struct {
			Missing int64            `json:"missing"`
			Holes   []telemetry.Hole `json:"holes"`
		}
		if err := e.Decode(&g); err != nil {
			return n, err
		}
		return notify.Notice{Title: fmt.Sprintf("Messages of device %s are missing: %d did not arrive, by its own count", h.called(ctx, e.Subject), g.Missing),
			Text: "They may still come. A device whose line comes and goes is told of once a day.", Link: "/devices/" + e.Subject, Data: g,
			Key: "gap_" + e.Subject + "_" + store.Time(e.At).UTC().Format("20060102")}, nil
	}},
}

// dutyThread joins what is told of one duty of a case.
func dutyThread(id string, d respond.Duty) string {
	return strings.TrimSuffix(fmt.Sprintf("%s %s %d", id, d.Stage, d.Request), " 0")
}

// feedNotice says how a source of vulnerability records is.
func feedNotice(e store.Event, title, text string) (n notify.Notice, err error) {
	var f vuln.FeedHealth
	if err := e.Decode(&f); err != nil {
		return n, err
	}
	switch {
	case f.State == vuln.SourceBehind:
		text = "What it brings was made on " + f.Made.Format("2006-01-02") + ". " + text
	case f.Error != "":
		text = f.Error + ". " + text
	}
	return notify.Notice{Title: fmt.Sprintf(title, f.Name), Text: strings.TrimSpace(text), Link: "/vulnerabilities/feeds", Data: f}, nil
}

// stopNotice says that the making of units is stopped, or goes on.
func stopNotice(h *house, ctx context.Context, e store.Event, title, text string) (n notify.Notice, err error) {
	var x vuln.StopTold
	if err := e.Decode(&x); err != nil {
		return n, err
	}
	title = fmt.Sprintf(title, h.productName(ctx, e.Tenant, x.Product))
	if x.Vulnerability != "" {
		title += " (" + x.Vulnerability + ")"
	}
	return notify.Notice{Title: title, Text: strings.TrimSpace(strings.TrimSuffix(x.Reason, ".") + ". " + text), Link: "/products/" + x.Product, Data: x}, nil
}

// called is the name of a thing, or its id when nobody has named it.
func (h *house) called(ctx context.Context, id string) string { return cmp.Or(h.name(ctx, id), id) }

// tellOutside has the events of the stages told to whoever the tenant named.
func (h *house) tellOutside() {
	for _, t := range told {
		h.notify.Know(notify.Topic{Name: t.topic, Text: t.text})
		h.announces(t.topic).On(t.topic, "notify", func(ctx context.Context, e store.Event) error {
			n, err := t.words(h, tenant.WithActor(ctx, tenant.System(e.Tenant)), e)
			if err != nil || n.Title == "" {
				return err
			}
			n.Topic, n.Subject, n.Key = e.Topic, e.Subject, cmp.Or(n.Key, e.ID)
			to := []string{e.Tenant}
			if e.Tenant == "" { // what is the platform's concerns everybody on it
				if to, err = h.tenantIDs(ctx); err != nil {
					return err
				}
			}
			return h.db.Write(ctx, func(tx *store.Tx) error {
				for _, n.Tenant = range to {
					if err := h.notify.Tell(tx, n); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
}

// announces is the handle on which a topic is emitted.
func (h *house) announces(topic string) *store.DB {
	if topic == telemetry.GapOpened {
		return h.records
	}
	return h.db
}

// Mail names the server that mail leaves by.
type Mail struct {
	Server       string // smtps://user@host:465 or smtp://host:587; empty: no mail
	From         string
	PasswordFile string
	CAFile       string // PEM; empty: the roots of the machine
}

// mailer is nil when no server is named.
func (m Mail) mailer() (*notify.Mailer, error) {
	if m.Server == "" {
		return nil, nil
	}
	password, err := smallFile("--mail-password-file", m.PasswordFile)
	if err != nil {
		return nil, err
	}
	var roots *x509.CertPool
	if m.CAFile != "" {
		pem, err := smallFile("--mail-ca", m.CAFile)
		if err != nil {
			return nil, err
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, problem.Invalid("the file holds no certificate").At("--mail-ca")
		}
	}
	return notify.NewMailer(m.Server, strings.TrimRight(string(password), "\r\n"), m.From, roots)
}

// smallFile reads a file that a flag names; no name, no content.
func smallFile(flag, path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil || len(b) > 1<<20 {
		return nil, problem.Invalid("the file cannot be read").At(flag).Because(err)
	}
	return b, nil
}
