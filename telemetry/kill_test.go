// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// each place runs fn once per engine with a place of its own.
func eachPlace(t *testing.T, fn func(t *testing.T, at place)) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		at := sqlitePlace(t.TempDir())
		if t.Name()[len(t.Name())-len("sqlite"):] != "sqlite" {
			at.Platform, at.Records = url, url
		}
		fn(t, at)
	})
}

// The process is killed at random moments while devices publish over MQTT and it compacts what they said: every
// acknowledged message is there, once and in its device's order. OPENTHINGS_ROUNDS says how often.
func TestS02_KillNineLosesNothingAcknowledged(t *testing.T) {
	eachPlace(t, func(t *testing.T, at place) {
		kills := rounds(5)
		l := newLoad(newParty(t, 8))
		for range kills {
			d := startDoor(t, l.party, at)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				l.publish(ctx, d.addr, most/kills)
			}()
			more := l.acks.Load() + 50 + rand.Int64N(400)
			for tick := time.NewTicker(time.Millisecond); l.acks.Load() < more; <-tick.C {
				select {
				case <-ended: // all that may be sent was sent
					more = 0
				default:
				}
			}
			d.kill()
			cancel()
			<-ended
		}
		v := l.judge(t, at)
		t.Logf("%d kills: %d sent, %d acknowledged, %d found", kills, v.Sent, v.Acked, v.Found)
		if err := v.Err(); err != nil {
			t.Error(err)
		}
		if v.Acked < 50*min(kills, 100) {
			t.Errorf("only %d messages were acknowledged: the test proves too little", v.Acked)
		}
	})
}

// compactChild compacts what is in the inbox up to the last moment before its transaction would commit, says so, and
// waits there to be killed.
func compactChild() error {
	ctx := context.Background()
	var at place
	if err := json.Unmarshal([]byte(os.Getenv("TELEMETRY_CHILD_PLACE")), &at); err != nil {
		return err
	}
	s, _, err := at.open(ctx, nil)
	if err != nil {
		return err
	}
	b := s.newBatch()
	if b.rows, _, err = readInbox(ctx, s.cfg.DB, enoughRecords); err != nil {
		return err
	}
	for _, row := range b.rows {
		records, _, err := s.open(ctx, row)
		if err != nil {
			return err
		}
		for _, r := range records {
			if err := s.sort(ctx, b, r); err != nil {
				return err
			}
		}
	}
	if err := s.pack(ctx, b); err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := s.put(tx, b); err != nil {
			return err
		}
		fmt.Println("between")
		select {}
	})
}

// The compactor is killed when it has written the chunks and taken the rows out of the inbox, and has not committed:
// every value is there once, in the inbox, and the next compaction brings it into a chunk.
func TestS05_KilledInCompaction(t *testing.T) {
	eachPlace(t, func(t *testing.T, at place) {
		s, done, err := at.open(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		r := rig{s, t, nil}
		r.append(message("dev_a", t0, 1, 20), message("dev_a", t0.Add(time.Second), 2, 21), message("dev_b", t0, 1, 30))
		want := r.all("dev_a") + r.all("dev_b")
		where, err := json.Marshal(at)
		if err != nil {
			t.Fatal(err)
		}
		for range rounds(2) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "TELEMETRY_CHILD=compact", "TELEMETRY_CHILD_PLACE="+string(where))
			cmd.Stderr = newWords(t)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			cmd.Process.Kill()
			cmd.Wait()
			if line != "between\n" {
				t.Fatalf("the compactor says %q, %v", line, err)
			}
			if got := r.all("dev_a") + r.all("dev_b"); got != want {
				t.Errorf("after the kill: %s, want %s", got, want)
			}
		}
		if n := r.rows("telemetry_chunk"); n != 0 {
			t.Errorf("%d chunks were left behind", n)
		}
		if err := s.settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := r.all("dev_a") + r.all("dev_b"); got != want || r.rows("telemetry_inbox") != 0 || r.rows("telemetry_chunk") != 2 {
			t.Errorf("after the next compaction: %s, want %s", got, want)
		}
		if _, err := os.Stat(filepath.Join(at.Keys, "platform.key")); err != nil {
			t.Error(err)
		}
	})
}
