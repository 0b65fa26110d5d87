// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/command"
	"github.com/openthings-platform/openthings/conform"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/respond/advisory"
	"github.com/openthings-platform/openthings/respond/disclosure"
	"github.com/openthings-platform/openthings/respond/inform"
	"github.com/openthings-platform/openthings/respond/oncall"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/telemetry"
	"github.com/openthings-platform/openthings/vuln"
)

// TestToldOutside: each event in the table reaches whoever listens, in words and with names instead of ids; what is no
// matter for people outside reaches nobody.
func TestToldOutside(t *testing.T) {
	w := newWorldWith(t, func(c *Config) { c.PrivateHooks = true })
	m := w.newMaker("Lumen")
	u := m.make()
	heard := make(chan string, 20)
	on := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var b struct {
			Type string
			Data struct{ Title, Link string }
		}
		if err := json.NewDecoder(r.Body).Decode(&b); err != nil {
			t.Error(err)
		}
		heard <- b.Type + " | " + b.Data.Title + " | " + strings.TrimPrefix(b.Data.Link, w.info.URL)
	}))
	defer on.Close()
	w.post(m.owner, "/v1/notifications/endpoints", map[string]any{"name": "all", "kind": "webhook", "address": on.URL, "topics": []string{"*"}}, nil)
	type happening struct {
		topic, subject string
		data           any
		want           string // empty: nobody hears of it
	}
	events := []happening{
		{"deployment.ended", "dpl_1", map[string]any{"state": "completed"}, ""},
		{"deployment.ended", "dpl_2", map[string]any{"state": "aborted", "reason": "3 devices failed"}, "deployment.ended | A deployment was aborted: 3 devices failed | /deployments/dpl_2"},
		{"vuln.exploited", "vul_1", vuln.Exploited{Group: "CVE-2026-1", ID: "vul_1", Product: m.product, Version: "1.2"}, "vuln.exploited | CVE-2026-1 is known to be exploited and in "},
		{vuln.FeedStale, "osv", vuln.FeedHealth{Name: "osv", State: vuln.SourceStale}, vuln.FeedStale + " | The feed osv is stale | /vulnerabilities/feeds"},
		{vuln.FeedGood, "osv", vuln.FeedHealth{Name: "osv", State: vuln.SourceCurrent}, vuln.FeedGood + " | The feed osv is good again | /vulnerabilities/feeds"},
		{vuln.TopicStopped, "hld_1", vuln.StopTold{Hold: "hld_1", Product: m.product, Vulnerability: "CVE-2026-1", Reason: "exploited"}, vuln.TopicStopped + " | The making of "},
		{vuln.TopicResumed, "hld_1", vuln.StopTold{Hold: "hld_1", Product: m.product, Reason: "fixed"}, vuln.TopicResumed + " | The making of "},
		{oncall.TopicUnanswered, "cal_1", map[string]any{"title": "Early warning is due soon", "link": "/cases/cas_1"}, oncall.TopicUnanswered + " | Nobody on call answered: Early warning is due soon | /cases/cas_1"},
		{"advisory.published", "adv_1", advisory.Published{Advisory: "adv_1", Tracking: "LUMEN-1", Product: m.product, Vulnerability: "CVE-2026-1"}, "advisory.published | Advisory LUMEN-1 about CVE-2026-1 in "},
		{inform.TopicSent, "cpn_1", inform.Told{Subject: "Battery", States: map[string]int64{"waiting": 3}}, inform.TopicSent + " | Users are told “Battery”: 3 contacts | /inform/cpn_1"},
		{inform.TopicFinished, "cpn_1", inform.Told{Subject: "Battery", States: map[string]int64{"handed-over": 1, "read": 1, "failed": 1}}, inform.TopicFinished + " | “Battery” was handed over to 2 contacts, and 1 were not reached | /inform/cpn_1"},
		{"advisory.hold_ended", "adv_1", advisory.HoldEnded{Tracking: "LUMEN-1", Title: "Overflow"}, "advisory.hold_ended | The hold of advisory LUMEN-1 has ended: Overflow | /advisories/adv_1"},
		{"case.deadline", "cas_1", respond.Escalation{Stage: respond.EarlyWarning, Level: respond.DeadlineOverdue}, "case.deadline | cas_1: " + respond.EarlyWarning.Name() + " is overdue | /cases/cas_1"},
		{conform.TopicStale, "2026-11-21", conform.Stale{Rules: 3, Oldest: "2026-11-21"}, conform.TopicStale + " | 3 rules of the law were last compared with their source on 2026-11-21 or later"},
		{disclosure.TopicReceived, "rpt_1", disclosure.Told{Exploited: "yes"}, disclosure.TopicReceived + " | A finder reported a vulnerability (rpt_1): seen exploited | /disclosure/reports/rpt_1"},
		{disclosure.TopicAdded, "rpt_1", disclosure.Told{}, disclosure.TopicAdded + " | A finder added something to a report (rpt_1) | /disclosure/reports/rpt_1"},
		{disclosure.TopicDeadline, "rpt_1", disclosure.Escalation{Timer: disclosure.TimerTriage, Level: disclosure.DeadlineOverdue}, disclosure.TopicDeadline + " | Report rpt_1: tell the verdict is overdue | /disclosure/reports/rpt_1"},
		{disclosure.TopicExpiring, m.tenant, disclosure.Expiring{Host: "lumen.example", Expires: time.Date(2027, 1, 2, 0, 0, 0, 0, time.UTC)}, disclosure.TopicExpiring + " | security.txt of lumen.example ends on 2027-01-02 | /disclosure/contact"},
		{"case.deadline", "cas_1", respond.Escalation{Stage: respond.Spreading, Level: respond.SpreadingAssumed}, "case.deadline | cas_1: " + respond.Spreading.Name() + " is over: assume that others know | /cases/cas_1"},
		{respond.TopicIdle, "sig_1", respond.Idle{Product: m.product, Title: "Shells"}, respond.TopicIdle + " | Nobody has decided about the signal “Shells” for "},
		{respond.TopicDutyEnded, "cas_1", respond.DutyEnded{Stage: respond.EarlyWarning}, respond.TopicDutyEnded + " | cas_1: " + respond.EarlyWarning.Name() + " needs nobody any more | /cases/cas_1"},
		{respond.TopicDecided, "sig_1", respond.SignalDecided{Verdict: respond.Negative}, respond.TopicDecided + " | sig_1: negative | /signals/sig_1"},
		{"clone.detected", "cln_1", map[string]any{"what": "key"}, "clone.detected | Two devices show the same key | /enrol/quarantine"},
		{"clone.decided", "cln_1", map[string]any{"genuine": u.id, "reason": "it is on our desk"}, "clone.decided | Of the devices that were seen twice, " + u.serial + " is genuine | /enrol/quarantine"},
		{"clone.decided", "cln_2", map[string]any{"genuine": enroll.CloneNone}, "clone.decided | Of the devices that were seen twice, none is genuine: they are barred | /enrol/quarantine"},
		{"clone.decided", "cln_3", map[string]any{"genuine": enroll.CloneFalse}, "clone.decided | Devices that were seen twice are no clones after all | /enrol/quarantine"},
		{"clone.flood", m.stationID, map[string]any{"serial": "L-1", "door": "line"}, "clone.flood | Somebody names serial numbers of other units: the line station line | /enrol/stations/" + m.stationID},
		{"clone.flood", m.stationID, map[string]any{"serial": "L-2", "door": "line"}, ""}, // the same day
		{"batch.surplus", m.batch, map[string]any{"batch": m.batch, "issued": 5, "produced": 3}, "batch.surplus | More identities than units: batch 1 has 5, and 3 were made | /enrol/batches/" + m.batch},
		{"batch.surplus", m.batch, map[string]any{"batch": m.batch, "issued": 5, "produced": 5, "serials": 2}, "batch.surplus | Identities without a unit: 2 of batch 1 are not in the list of what was made | /enrol/batches/" + m.batch},
		{"batch.surplus", m.batch, map[string]any{"batch": m.batch, "station": m.stationID, "quota": 4, "serial": "L-9"}, "batch.surplus | The line station line wanted more units than its quota of 4 | /enrol/stations/" + m.stationID},
		{"station.forked", m.stationID, map[string]any{"station": m.stationID, "seq": 3}, "station.forked | A copy of the line station line is at work | /enrol/stations/" + m.stationID},
		{"station.clock", m.stationID, map[string]any{"station": m.stationID, "off_ms": -360_000}, "station.clock | The clock of the line station line is 6m0s behind: what it asks for is refused | /enrol/stations/" + m.stationID},
		{"unit.refused", m.stationID, map[string]any{"station": m.stationID, "serial": "L-9", "rule": "line.permit", "detail": "Late."}, "unit.refused | Units of the line station line were brought and not taken: L-9 | /enrol/stations/" + m.stationID},
		{"unit.refused", m.stationID, map[string]any{"station": m.stationID, "serial": "L-10"}, ""}, // the same day: no flood
		{"trusted-ca.refused", "tca_1", map[string]any{"ca": "tca_1", "serial": "L-11", "rule": "trusted-ca.crl", "text": "The list has ended."}, "trusted-ca.refused | Devices of the trusted CA tca_1 are kept out: The list has ended | /enrol/admission"},
		{"trusted-ca.refused", "tca_1", map[string]any{"ca": "tca_1", "serial": "L-12", "rule": "trusted-ca.crl", "text": "The list has ended."}, ""}, // the same day
		{"trusted-ca.refused", "tca_1", map[string]any{"ca": "tca_1", "rule": "trusted-ca.mapping", "text": "No serial number."}, "trusted-ca.refused | Devices of the trusted CA tca_1 are kept out: No serial number | /enrol/admission"},
		{identity.TopicEnding, "operational-1", identity.Ending{Level: "soon", NotAfter: time.Date(2036, 11, 19, 0, 0, 0, 0, time.UTC)}, identity.TopicEnding + " | The authority operational-1 ends on 2036-11-19 | /issuers"},
		{identity.TopicEnding, "operational-1", identity.Ending{Level: "over", NotAfter: time.Date(2036, 11, 19, 0, 0, 0, 0, time.UTC)}, identity.TopicEnding + " | The authority operational-1 has ended on 2036-11-19 | /issuers"},
		{identity.TopicLists, "lists", identity.ListsEnding{Alarm: "A revocation list ends."}, identity.TopicLists + " | Revocation lists or OCSP answers are about to end | /revocations"},
		{identity.TopicLists, "lists", identity.ListsEnding{Alarm: "Another one."}, ""}, // the same day, from another node
		{identity.TopicLists, "lists-2", identity.ListsEnding{Alarm: "The clock is behind.", Clock: true}, identity.TopicLists + " | No revocation list is signed: the clock of a node is in doubt | /revocations"},
		{identity.TopicListsGood, "lists", identity.ListsEnding{}, identity.TopicListsGood + " | Revocation lists and OCSP answers are good again | /revocations"},
		{telemetry.ChainBroken, u.id, telemetry.ChainBreak{Kind: "gap", From: 3, To: 5}, telemetry.ChainBroken + " | The chain of security events of device " + u.serial + " is broken: gap at 3 to 5 | /devices/" + u.id},
	}
	gap := map[string]any{"missing": 12, "holes": []telemetry.Hole{{Boot: 7, From: 3, To: 14}}}
	events = append(events, []happening{
		{"job.ended", "job_1", command.JobEnded{State: string(command.Cancelled), Title: "Restart"}, ""},
		{"job.ended", "job_2", command.JobEnded{State: command.Aborted, Reason: "3 devices failed", Title: "Restart"}, "job.ended | The job Restart was aborted: 3 devices failed | /jobs/job_2"},
		{"job.ended", "job_3", command.JobEnded{State: command.Completed, Title: "Restart", Counts: command.Counts{Devices: 5, Done: 4}}, "job.ended | The job Restart is done: 4 of 5 devices did it | /jobs/job_3"},
		{telemetry.GapOpened, u.id, gap, telemetry.GapOpened + " | Messages of device " + u.serial + " are missing: 12 did not arrive, by its own count | /devices/" + u.id},
		{telemetry.GapOpened, u.id, gap, ""}, // the same day: no flood
	}...)
	covered := map[string]bool{}
	for _, e := range events {
		covered[e.topic] = true
		of := m.tenant
		if e.topic == identity.TopicEnding || e.topic == identity.TopicLists || e.topic == identity.TopicListsGood { // the platform's own: every tenant hears of it
			of = ""
		}
		if err := w.h.announces(e.topic).Write(t.Context(), func(tx *store.Tx) error { return w.h.announces(e.topic).Emit(tx, e.topic, of, e.subject, e.data) }); err != nil {
			t.Fatal(err)
		}
		if e.want == "" {
			continue // what follows is the first that is heard
		}
		select {
		case got := <-heard:
			if title := strings.Split(got, " | ")[1]; !strings.HasPrefix(got, e.want) || strings.Contains(title, "prd_") {
				t.Errorf("told %q, want %q", got, e.want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("nobody heard of %s", e.topic)
		}
	}
	for open := 1; open > 0; { // until everything that was announced is looked at
		if err := w.h.records.QueryRow(t.Context(), `SELECT count(*) FROM job WHERE kind = $1`, "event:"+telemetry.GapOpened+":notify").Scan(&open); err != nil {
			t.Fatal(err)
		}
	}
	var gaps int
	if err := w.h.db.QueryRow(t.Context(), `SELECT count(*) FROM notify_notice WHERE topic = $1`, telemetry.GapOpened).Scan(&gaps); err != nil || gaps != 1 {
		t.Errorf("%d notices of one device's gaps in a day (%v)", gaps, err)
	}
	for _, thread := range []string{"cln_1", listsThread} { // one incident of a pager from its start to its end
		var begun, over int
		err := w.h.db.QueryRow(t.Context(), `SELECT count(CASE WHEN phase = '' THEN 1 END), count(CASE WHEN phase = 'over' THEN 1 END) FROM notify_notice WHERE thread = $1 AND tenant = $2`, thread, m.tenant).Scan(&begun, &over)
		if err != nil || begun == 0 || over != 1 {
			t.Errorf("%s began %d times and was over %d times (%v)", thread, begun, over, err)
		}
	}
	for _, row := range told {
		if !covered[row.topic] {
			t.Errorf("no event of this test is told as %s", row.topic)
		}
	}
}
