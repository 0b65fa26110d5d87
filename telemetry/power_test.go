// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/telemetry/history"
)

// The power goes off. While devices publish over MQTT, every write and every fsync of the platform's process is recorded;
// then, for each moment between two calls, the disk is laid as the power may have left it: with everything that was not
// synced, with nothing of it, with a part of it and torn writes. Each time the platform must open, both files must be
// sound, and every message that a client held a receipt for at that moment must be there, once.
//
// strace records (Debian has it), since it sees what the kernel was told and not what our code believes it said. CI replays
// a sample; OPENTHINGS_ROUNDS=100 and more replays every moment before an fsync in every way, and of all others as many as
// thirty a round, evenly: each run begins at another one, so that runs add up. From about 1000 on that is every moment.
func TestS01_PowerCutLosesNothingAcknowledged(t *testing.T) {
	l := newLoad(newParty(t, 4))
	l.pad = 7500 // so that SQLite checkpoints while it is recorded, however many messages share a commit
	calls, checkpoints := l.powerCuts(t, messages)
	if calls < 1000 || checkpoints < 50 || l.Count(history.Acked) != 4*messages {
		t.Error("the test proves too little")
	}
}

// The same for a device whose messages find nobody to share a commit with: each receipt has an fsync of its own.
func TestM02_PowerCutKeepsEachReceipt(t *testing.T) {
	l := newLoad(newParty(t, 1))
	l.window = 1
	if calls, _ := l.powerCuts(t, 60); calls < 300 || l.Count(history.Acked) != 60 {
		t.Error("the test proves too little")
	}
}

// powerCuts records a platform while each device sends so many messages, and replays the cuts. It says how many calls were
// recorded and how many of them were writes of checkpoints.
func (l *load) powerCuts(t *testing.T, each int) (recorded, checkpoints int) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatal("strace is needed to record writes and fsyncs: scripts/deps.sh test installs it")
	}
	dir := t.TempDir()
	trace := filepath.Join(t.TempDir(), "trace")
	d := startDoor(t, l.party, sqlitePlace(dir), traceArgs(trace)...)
	l.publish(t.Context(), d.addr, each)
	d.kill()
	f, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	calls, err := readTrace(f, dir)
	if err != nil {
		t.Fatal(err)
	}

	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	every := 0 // the how many-th of the states is replayed; 0: a sample
	if n := rounds(0); n >= 100 {
		if every = max(1, (len(calls)+1)*adversary/(30*n)); every%adversary == 0 {
			every++ // else it were one way only
		}
	}
	begin := random.IntN(max(1, every))
	states, synced := 0, 0
	model := newDisk()
	for i := 0; i <= len(calls); i++ {
		if i > 0 {
			c := calls[i-1]
			if err := model.apply(i-1, c); err != nil {
				t.Fatal(err)
			}
			if c.kind == "sync" {
				synced++
			}
			if c.kind == "write" && c.path == "telemetry.db" && c.off > 0 {
				checkpoints++
			}
		}
		at := time.Now() // of the cut: at the latest when the next call has ended, which it did not
		if i < len(calls) {
			at = calls[i].end
		}
		next := i == len(calls) || calls[i].kind == "sync"
		for how := range adversary {
			if every > 0 && !next && (i*adversary+how)%every != begin ||
				every == 0 && random.IntN(len(calls)) >= replayed && (!next || random.IntN(len(calls)) >= 4*replayed) {
				continue
			}
			if err := l.survives(t, model, how, random, at); err != nil {
				t.Fatalf("the power goes off after call %d of %d (%s), way %d: %v", i, len(calls), tail(calls[:i]), how, err)
			}
			states++
		}
	}
	t.Logf("%d calls recorded, %d of them fsyncs, %d writes of checkpoints; %d messages sent, %d acknowledged; %d states of the disk replayed",
		len(calls), synced, checkpoints, l.Count(history.Sent), l.Count(history.Acked), states)
	if synced < 50 || states < replayed/2 {
		t.Error("the test proves too little")
	}
	return len(calls), checkpoints
}

// replayed is about how many states are replayed per way in CI.
const replayed = 25

// messages is how many each device sends while it is recorded.
const messages = 1000

func tail(calls []call) string {
	var out []string
	for _, c := range calls[max(0, len(calls)-3):] {
		out = append(out, fmt.Sprintf("%s %s@%d+%d", c.kind, c.path, c.off, len(c.data)))
	}
	return strings.Join(out, ", ")
}

// survives lays the disk and judges what a platform finds there.
func (l *load) survives(t *testing.T, model *disk, how int, random *rand.Rand, at time.Time) (err error) {
	base := "/dev/shm" // nothing is proved by syncing the copies
	if _, err := os.Stat(base); err != nil {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "openthings-power-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := model.lay(dir, how, random); err != nil {
		return err
	}
	h := l.Until(at)
	s, done, err := sqlitePlace(dir).open(t.Context(), nil)
	if err != nil {
		return fmt.Errorf("%d messages were acknowledged, and the platform does not start: %w", h.Count(history.Acked), err)
	}
	defer func() { err = errors.Join(err, done()) }()
	for _, db := range []*store.DB{s.cfg.DB, s.cfg.Platform} {
		var verdict string
		if err := db.QueryRow(t.Context(), `PRAGMA integrity_check`).Scan(&verdict); err != nil || verdict != "ok" {
			return fmt.Errorf("integrity_check: %s %v", verdict, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.settle(ctx); err != nil {
		return err
	}
	if n, err := aside(ctx, s.cfg.DB); err != nil || n > 0 {
		return fmt.Errorf("%d rows of the inbox were damaged: %v", n, err)
	}
	if err := l.found(ctx, s, h); err != nil {
		return err
	}
	return h.Check().Err()
}

func aside(ctx context.Context, db *store.DB) (n int, err error) {
	return n, db.QueryRow(ctx, `SELECT count(*) FROM telemetry_inbox WHERE error <> ''`).Scan(&n)
}
