// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// background publishes until stop is called, which returns when the last answer was noted.
func (l *load) background(ctx context.Context, addr string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.publish(ctx, addr, most)
	}()
	return func() { cancel(); <-ended }
}

// more waits until n further receipts have come, or for as long as patience lasts, and says whether they came.
func (l *load) more(n int64, patience time.Duration) bool {
	want, end := l.acks.Load()+n, time.After(patience)
	for tick := time.NewTicker(time.Millisecond); l.acks.Load() < want; <-tick.C {
		select {
		case <-end:
			return false
		default:
		}
	}
	return true
}

// long is how long a test waits for what has to happen.
const long = time.Minute

// PostgreSQL is stopped at once and started again while devices publish: the gateway goes on by itself, and every
// acknowledged message is there.
func TestS08_RestartOfPostgreSQL(t *testing.T) {
	server := storetest.NewServer(t)
	at := place{Platform: server.URL(), Records: server.URL(), Keys: filepath.Join(t.TempDir(), "keys")}
	l := newLoad(newParty(t, 8))
	d := startDoor(t, l.party, at)
	stop := l.background(t.Context(), d.addr)
	for range rounds(2) {
		if !l.more(200, long) {
			t.Fatal("no receipts came")
		}
		server.Stop()
		server.Start()
	}
	if !l.more(200, long) {
		t.Error("no receipts come after the restart")
	}
	stop()
	d.kill()
	v := l.judge(t, at)
	t.Logf("%d sent, %d acknowledged, %d found", v.Sent, v.Acked, v.Found)
	if err := v.Err(); err != nil {
		t.Error(err)
	}
}

// The primary is killed with all its processes and its synchronous standby takes over, while devices publish over MQTT
// through the real gateway. Before, the standby is out of reach for a while: receipts stop, they do not run ahead of it;
// also when somebody cancels the wait. Nothing acknowledged is lost.
//
// The control is in the test: a session that says synchronous_commit = local is told that its rows are kept, and they
// are gone. The platform refuses that setting (TestCommitTooEarlyIsRefused in store).
func TestS08_FailoverLosesNothingAcknowledged(t *testing.T) {
	primary := storetest.NewServer(t)
	standby := primary.Standby()
	url := primary.URL(standby)
	at := place{Platform: url, Records: url, Keys: filepath.Join(t.TempDir(), "keys")}
	l := newLoad(newParty(t, 8))
	d := startDoor(t, l.party, at)
	primary.Exec(`CREATE TABLE control (n bigint)`)
	stop := l.background(t.Context(), d.addr)
	if !l.more(500, long) {
		t.Fatal("no receipts came")
	}

	if primary.Freeze("walsender") == 0 {
		t.Fatal("nothing sends to the standby")
	}
	waits := func() bool { // for the standby; false: receipts go on, more than were under way
		for before := l.acks.Load(); l.acks.Load() < before+300; {
			if primary.Is(`SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'`) {
				return true
			}
		}
		return false
	}
	ahead := !waits()
	local, err := pgx.Connect(t.Context(), primary.URL()+"&synchronous_commit=local")
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close(t.Context())
	if _, err := local.Exec(t.Context(), `INSERT INTO control SELECT generate_series(1, 100)`); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		primary.Exec(`SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`)
		ahead = ahead || !waits()
	}
	acked := l.acks.Load()

	primary.Kill()
	standby.Promote()
	if !l.more(500, long) {
		t.Error("no receipts come after the takeover")
	}
	stop()
	d.kill()
	v := l.judge(t, at)
	t.Logf("%d sent, %d acknowledged, %d of them before the takeover, %d found", v.Sent, v.Acked, acked, v.Found)
	if err := v.Err(); err != nil {
		t.Error(err)
	}
	if ahead {
		t.Error("receipts went on while the standby was out of reach")
	}
	standby.Until(`SELECT count(*) = 0 FROM control`) // else the takeover lost nothing at all, and the test proves nothing
}

// A standby takes over that never heard of the keys which this process has at hand: nothing may be sealed with them any
// more, or it could never be read.
func TestS08_KeysOfALostPrimary(t *testing.T) {
	url := storetest.PostgresURL(t)
	r := newRig(t, storetest.Open(t, url, schema), clock.NewHand(t0))
	r.append(message("dev_a", t0, 1, 20))
	r.compactAll() // the keys of the hour and of the device are at hand now
	var writer int
	if err := r.cfg.DB.Write(t.Context(), func(tx *store.Tx) error {
		return tx.QueryRow(`SELECT pg_backend_pid()`).Scan(&writer)
	}); err != nil {
		t.Fatal(err)
	}
	admin, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(t.Context())
	for _, q := range []string{`TRUNCATE seal_hour, seal_subject, telemetry_inbox, telemetry_chunk, telemetry_latest`, `SELECT pg_terminate_backend($1)`} {
		args := []any{writer}[:strings.Count(q, "$")]
		if _, err := admin.Exec(t.Context(), q, args...); err != nil {
			t.Fatal(err)
		}
	}
	for again := true; again; { // the first one may learn that the connection is gone
		again = r.Append(t.Context(), []gateway.Record{message("dev_a", t0, 2, 21)}) != nil
	}
	for range 2 { // the first pass finds out
		if _, err := r.step(t.Context()); err != nil && !errors.Is(err, errMoved) {
			t.Fatal(err)
		}
	}
	if got := r.all("dev_a"); strings.Count(got, `"count": 1`) != 1 {
		t.Errorf("what was acknowledged after the takeover is read as %s", got)
	}
	if n := r.rows("telemetry_inbox"); n != 0 {
		t.Errorf("%d rows remain in the inbox", n)
	}
}
