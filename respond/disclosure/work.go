// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/store"
)

// The events that the room announces.
const (
	TopicReceived = "report.received"
	TopicAdded    = "report.added"
	TopicDeadline = "report.deadline"
	TopicExpiring = "securitytxt.expiring"
)

// Told is the data of TopicReceived and TopicAdded.
type Told struct {
	Exploited string `json:"exploited"`
}

// Expiring is the data of TopicExpiring: a file that was signed for a host, ” for this platform, and when it ends.
type Expiring struct {
	Host    string    `json:"host"`
	Expires time.Time `json:"expires"`
}

const (
	jobEscalate = "disclosure.escalate"
	jobLog      = "disclosure.log"
	jobRenew    = "disclosure.renew"
	jobExpiring = "disclosure.expiring"
)

type reminder struct {
	Tenant, Report string
	Escalation     Escalation
}

type gather struct{ Tenant string }

func (s *Service) react() {
	s.cfg.DB.Handle(jobEscalate, s.escalate)
	s.cfg.DB.Handle(jobLog, s.log)
	s.cfg.DB.Handle(jobRenew, s.renew)
	s.cfg.DB.Handle(jobExpiring, s.expiring)
}

// arm enqueues an alarm for each timer that runs. One that is enqueued already stays a single one; one of a timer that has
// moved since finds nothing to do when it rings.
func (s *Service) arm(tx *store.Tx, f file) error {
	st := f.state()
	for _, e := range Escalations(st) {
		if st.Escalated[e] {
			continue
		}
		key := fmt.Sprintf("%s %s %s %d", f.ID, e.Timer, e.Level, e.At)
		if err := s.cfg.DB.Enqueue(tx, jobEscalate, key, time.UnixMilli(e.At), reminder{f.Tenant, f.ID, e}); err != nil {
			return err
		}
	}
	return nil
}

// escalate writes that a timer is near its end or over it. The event's place in the log and Check make it once, however
// often the job runs and on however many machines.
func (s *Service) escalate(ctx context.Context, j store.Job) error {
	var al reminder
	if err := j.Decode(&al); err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		f, err := fileBy(tx, al.Tenant, "id", al.Report)
		if err != nil {
			return err
		}
		r := row{Event: Event{Seq: int64(len(f.Rows)) + 1, Kind: al.Escalation.Level, Recorded: s.now(), By: ByPlatform, Actor: "system",
			Data: Data{Timer: al.Escalation.Timer, Due: time.UnixMilli(al.Escalation.At).UTC()}}}
		if checkEscalation(f.state(), r.Event, s.now()) != nil || !f.state().Closed.IsZero() {
			return nil // on record already, or the report has moved on
		}
		if err := s.write(tx, &f, r); err != nil {
			return err
		}
		return s.cfg.DB.Emit(tx, TopicDeadline, al.Tenant, al.Report, al.Escalation)
	})
}

// logged is how many events one leaf names.
const logged = 300

// log gathers what finders wrote since into one leaf of the tenant.
func (s *Service) log(ctx context.Context, j store.Job) error {
	var g gather
	if err := j.Decode(&g); err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		rows, err := tx.Query(`SELECT report, seq, digest FROM disclosure_event WHERE tenant = $1 AND logged = 0 ORDER BY report, seq LIMIT $2`, g.Tenant, logged)
		es, err := store.Collect(rows, err, func(r *sql.Rows) (l leafOf, err error) { return l, r.Scan(&l.Report, &l.Seq, &l.Digest) })
		if err != nil || len(es) == 0 {
			return err
		}
		for _, e := range es {
			if _, err := tx.Exec(`UPDATE disclosure_event SET logged = 1 WHERE tenant = $1 AND report = $2 AND seq = $3`, g.Tenant, e.Report, e.Seq); err != nil {
				return err
			}
		}
		if len(es) == logged {
			if err := s.cfg.DB.Enqueue(tx, jobLog, g.Tenant, s.now(), g); err != nil {
				return err
			}
		}
		return audit.Append(tx, audit.Entry{Tenant: g.Tenant, Actor: "system", Kind: "reports.received", Subject: g.Tenant, Data: map[string]any{"events": es}})
	})
}
