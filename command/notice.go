// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// States of a notice on a device, besides wire.NoticeShown and wire.NoticeAcknowledged.
const (
	NoticeAsked     = "asked"     // it is on its way
	NoticeStored    = "stored"    // the device keeps it, and shows it from now on
	NoticeFailed    = "failed"    // the device did not take it, or is too old to know notices
	NoticeExpired   = "expired"   // nobody came for it in time
	NoticeCancelled = "cancelled" // taken back before the device had it
)

// NoticePolicy is how a notice is asked for: it may come twice, since the same notice twice is one.
var NoticePolicy = Policy{AckTimeout: 30, ResultTimeout: 600, Retries: 5, Backoff: 10, Idempotent: true}

// noticeKind stands in every product's catalogue. Whether a device understands it, it says itself.
var noticeKind = Declared{Name: wire.CommandNotice, Title: "Notice to the users", Policy: NoticePolicy}

// NoticeState tells that a notice has come to a state on a device.
type NoticeState struct {
	Tenant, Device string
	Notice         string // its id
	Command        string // that carried it
	State          string // stored, shown, acknowledged, failed, expired, cancelled
	At             time.Time
	Reason         string // the platform's words on an end without the device keeping it; the device's own stand with the command
}

// NoticeHook hears of a notice's state in the transaction in which it is reached. An error puts it off.
type NoticeHook func(*store.Tx, NoticeState) error

// DeviceNotice is a notice on a device and what became of it.
type DeviceNotice struct {
	Notice       string     `json:"notice" doc:"Its id"`
	Command      string     `json:"command" doc:"The one that carried it last"`
	State        string     `json:"state" enum:"asked,stored,shown,acknowledged,failed,expired,cancelled"`
	Asked        time.Time  `json:"asked"`
	Stored       *time.Time `json:"stored,omitempty" doc:"The device keeps it since"`
	Shown        *time.Time `json:"shown,omitempty" doc:"By the device's clock, if that can be right"`
	Acknowledged *time.Time `json:"acknowledged,omitempty" doc:"Somebody at the device said that they have read it"`
	Reason       string     `json:"reason,omitempty" doc:"Why the device does not keep it"`
	Erased       bool       `json:"erased,omitempty" doc:"The device's data was erased: nobody can read any more what the notice said"`

	Content json.RawMessage `json:"content,omitempty" doc:"What it says: kind, severity, texts by language, as it was sent"`
}

// OnNotice lets a later stage hear what becomes of notices: each state of a notice on a device once. Call it before work
// begins.
func (s *Service) OnNotice(h NoticeHook) {
	if s.noticeHook != nil {
		panic("command: two hooks for notices")
	}
	s.noticeHook = h
}

// checkNotice refuses arguments that are no notice.
func checkNotice(args json.RawMessage) (wire.Notice, error) {
	n, err := wire.ParseNotice(args)
	if err != nil {
		return n, problem.Invalid("No notice for a device: %s.", err).At("args")
	}
	return n, nil
}

// askNotice notes that a notice is on its way. One that the device has keeps what became of it.
func askNotice(tx *store.Tx, c Command) error {
	_, err := tx.Exec(`INSERT INTO command_notice(tenant, device, notice, command, failed, stored, shown, acknowledged) VALUES ($1, $2, $3, $4, '', 0, 0, 0)
		ON CONFLICT (tenant, device, notice) DO UPDATE SET command = excluded.command, failed = ''`, c.Tenant, c.Device, c.Notice, c.ID)
	return err
}

// noticeEnded takes the end of a command that carried a notice.
func (s *Service) noticeEnded(tx *store.Tx, c Command, to State, reason string, at time.Time) error {
	if to == Done {
		return s.noticeReached(tx, NoticeState{Tenant: c.Tenant, Device: c.Device, Notice: c.Notice, Command: c.ID, State: NoticeStored, At: at})
	}
	n, err := tx.Exec(`UPDATE command_notice SET failed = $5 WHERE tenant = $1 AND device = $2 AND notice = $3 AND command = $4 AND stored = 0`,
		c.Tenant, c.Device, c.Notice, c.ID, string(to))
	if err != nil || n == 0 {
		return err // the device has it, or another command carries it by now
	}
	return s.tellNotice(tx, NoticeState{Tenant: c.Tenant, Device: c.Device, Notice: c.Notice, Command: c.ID, State: string(to), At: at, Reason: reason})
}

// noticeWay is what has become of a notice that has come to a state, in order, and the column of each.
var noticeWay = []struct{ state, column string }{{NoticeStored, "stored"}, {wire.NoticeShown, "shown"}, {wire.NoticeAcknowledged, "acknowledged"}}

// noticeReached notes a state and those on the way to it, each once.
func (s *Service) noticeReached(tx *store.Tx, n NoticeState) error {
	for _, w := range noticeWay {
		moved, err := tx.Exec(`UPDATE command_notice SET `+w.column+` = $4 WHERE tenant = $1 AND device = $2 AND notice = $3 AND `+w.column+` = 0`, n.Tenant, n.Device, n.Notice, store.Millis(n.At))
		if err != nil {
			return err
		}
		if moved == 1 {
			on := n
			on.State = w.state
			if err := s.tellNotice(tx, on); err != nil {
				return err
			}
		}
		if w.state == n.State {
			return nil
		}
	}
	return nil
}

func (s *Service) tellNotice(tx *store.Tx, n NoticeState) error {
	if n.State == wire.NoticeShown || n.State == wire.NoticeAcknowledged {
		data := map[string]any{"notice": n.Notice, "command": n.Command, "at": store.Millis(n.At)}
		if err := audit.Append(tx, audit.Entry{Tenant: n.Tenant, Actor: n.Device, Kind: "notice." + n.State, Subject: n.Device, Data: data}); err != nil {
			return err
		}
	}
	if s.noticeHook == nil {
		return nil
	}
	return s.noticeHook(tx, n)
}

// NoticeReported takes what a device says of a notice: register it with telemetry.Route(wire.TopicNotice, …). A report that
// comes again changes nothing, and one on a notice that the device was never sent is a problem of kind not-found.
func (s *Service) NoticeReported(ctx context.Context, r gateway.Record) error {
	rep, err := wire.ParseNoticeReport(r.Body)
	if err != nil || r.Topic != wire.TopicNotice {
		return problem.Invalid("This says nothing of a notice.").Because(err)
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		n := NoticeState{Tenant: r.Tenant, Device: r.Device, Notice: rep.Notice, State: rep.State}
		var asked int64
		err := tx.QueryRow(`SELECT n.command, c.created FROM command_notice n JOIN command c ON c.tenant = n.tenant AND c.id = n.command WHERE n.tenant = $1 AND n.device = $2 AND n.notice = $3`,
			r.Tenant, r.Device, rep.Notice).Scan(&n.Command, &asked)
		if errors.Is(err, store.ErrNoRows) {
			return problem.NotFound("There is no such notice for this device.")
		}
		if err != nil {
			return err
		}
		at := r.At // when it was received, unless the device's clock can be right
		if rep.At >= asked && rep.At <= r.At {
			at = rep.At
		}
		n.At = store.Time(at)
		return s.noticeReached(tx, n)
	})
}

// Notices returns a page of a device's notices, the one that was sent last first; before is the command of the last one of
// the page before.
func (s *Service) Notices(ctx context.Context, tenant, device, before string, limit int) ([]DeviceNotice, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT notice, command, failed, stored, shown, acknowledged FROM command_notice
		WHERE tenant = $1 AND device = $2 AND ($3 = '' OR command < $3) ORDER BY command DESC LIMIT $4`, tenant, device, before, limit)
	out, err := store.Collect(rows, err, scanNotice)
	if err != nil || len(out) == 0 {
		return nil, err
	}
	ids := make([]string, len(out))
	for i, n := range out {
		ids[i] = n.Command
	}
	list, args := store.In([]any{tenant}, ids)
	rows, err = s.cfg.DB.Query(ctx, `SELECT `+columns+` FROM command WHERE tenant = $1 AND id IN `+list+` ORDER BY id DESC`, args...)
	carriers, err := store.Collect(rows, err, func(r *sql.Rows) (*Command, error) {
		c, err := scan(r.Scan)
		return &c, err
	})
	if err != nil {
		return nil, err
	}
	if err := s.open(ctx, carriers...); err != nil {
		return nil, err
	}
	for i, c := range carriers {
		n := &out[i]
		n.Asked, n.Erased, n.Content = c.Created, c.Erased, c.Args
		if n.Stored == nil && c.State.Ended() {
			n.Reason = c.Reason
		}
	}
	return out, nil
}

func scanNotice(r *sql.Rows) (n DeviceNotice, err error) {
	var failed string
	var at [3]int64
	if err := r.Scan(&n.Notice, &n.Command, &failed, &at[0], &at[1], &at[2]); err != nil {
		return n, err
	}
	n.Stored, n.Shown, n.Acknowledged = moment(at[0]), moment(at[1]), moment(at[2])
	n.State = NoticeAsked
	if failed != "" {
		n.State = failed
	}
	for i, w := range noticeWay {
		if at[i] != 0 {
			n.State = w.state
		}
	}
	return n, nil
}
