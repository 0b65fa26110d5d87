// SPDX-License-Identifier: AGPL-3.0-only

package demo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/telemetry/history"
	"github.com/openthings-platform/openthings/wire"
)

// newFleet makes a platform with n commissioned devices that are switched off again, and returns it with their
// operational certificates.
func newFleet(t *testing.T, database string, n int) (*world, []tls.Certificate) {
	t.Helper()
	w := &world{cfg: Config{Devices: n, Binary: builtBinary, Database: database}, dir: t.TempDir()}
	t.Cleanup(w.close)
	certs, err := w.commissioned(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return w, certs
}

// A message that was acknowledged is there after the platform was killed, at whatever moment: 50 devices publish with
// QoS 1 and the platform is killed with SIGKILL, twenty times or OPENTHINGS_ROUNDS.
func TestM01_KillNineLosesNothingAcknowledged(t *testing.T) {
	const devices = 50
	kills := 20
	if n, err := strconv.Atoi(os.Getenv("OPENTHINGS_ROUNDS")); err == nil && n > 0 {
		kills = n
	}
	eachEngine(t, func(t *testing.T, database string) {
		w, certs := newFleet(t, database, devices)
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		rng := rand.New(rand.NewPCG(seed, 0))
		base := time.Now().UTC().Truncate(time.Second)
		sent := make([]uint64, devices) // the last number given out
		log := &history.History{}
		for range kills {
			life, kill := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			first := make(chan struct{}, devices) // a receipt of this round
			for i := range devices {
				wg.Go(func() { w.flood(life, certs[i], base, w.devices[i].serial, &sent[i], log, first) })
			}
			<-first // there is work to lose
			after := time.NewTimer(time.Duration(rng.IntN(400)) * time.Millisecond)
			<-after.C
			w.platform.kill()
			kill()
			wg.Wait()
			var err error
			if w.platform, err = startPlatform(t.Context(), builtBinary, w.platform.dir, database); err != nil {
				t.Fatal(err)
			}
			w.api.Base = w.platform.URL
		}
		for _, d := range w.devices {
			found := w.numbers(t, d, base)
			for _, n := range slices.Sorted(maps.Keys(found)) { // a query gives them by time
				for range found[n] {
					log.Found(d.serial, n)
				}
			}
		}
		v := log.Check()
		t.Logf("%d kills: %d sent, %d acknowledged, %d found", kills, v.Sent, v.Acked, v.Found)
		if err := v.Err(); err != nil {
			t.Error(err)
		}
		if v.Acked < devices*min(kills, 20) {
			t.Errorf("only %d messages were acknowledged: the test proves too little", v.Acked)
		}
	})
}

// flood sends numbered messages until the connection breaks, and notes which got a receipt.
func (w *world) flood(ctx context.Context, cert tls.Certificate, base time.Time, serial string, sent *uint64, log *history.History, first chan<- struct{}) {
	c, err := w.mqtt(ctx, cert)
	if err != nil {
		return // killed before it got in
	}
	defer c.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	for ctx.Err() == nil && *sent < perDevice {
		*sent++
		n := *sent
		// Each message has a millisecond of its own, so that it can be told apart when it is read back.
		body := fmt.Sprintf(`{"ts":%d,"boot":1,"seq":%d,"values":{"n":%d}}`, base.UnixMilli()+int64(n), n, n)
		log.Sent(serial, n)
		wg.Add(1)
		err := c.Go(ctx, wire.Root+"tele/kill", []byte(body), func(err error) {
			defer wg.Done()
			if err != nil {
				return
			}
			log.Acked(serial, n)
			select {
			case first <- struct{}{}:
			default:
			}
		})
		if err != nil {
			wg.Done()
			return
		}
	}
	<-ctx.Done()
}

// perDevice bounds what one device sends, so that a query shows every single message.
const perDevice = 9000

// numbers reads back which messages of a device are there, and how often.
func (w *world) numbers(t *testing.T, d *device, base time.Time) map[uint64]int {
	t.Helper()
	const max = 10000
	var out struct {
		Series []struct {
			Field  string
			Points []struct {
				Last  float64
				Count int
			}
		}
	}
	path := "/v1/devices/" + d.id + "/telemetry" + query("fields", "kill/n", "from", base.Format(time.RFC3339Nano),
		"to", base.Add(max*time.Millisecond).Format(time.RFC3339Nano), "max", fmt.Sprint(max))
	if err := w.until(t.Context(), 30*time.Second, func() (bool, error) {
		err := w.get(t.Context(), path, &out)
		return err == nil, err
	}); err != nil {
		t.Fatal(err)
	}
	found := map[uint64]int{}
	for _, s := range out.Series {
		for _, p := range s.Points {
			found[uint64(p.Last)] += p.Count
		}
	}
	return found
}

// A killed platform leaves its socket and locks behind: the next start must not be fooled by them, nor must a second
// platform start on the same folder.
func TestSecondPlatformIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	a, err := startPlatform(t.Context(), builtBinary, dir, "")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := startPlatform(t.Context(), builtBinary, dir, ""); err == nil {
		b.kill()
		t.Error("two platforms run on one folder")
	}
	a.kill()
	if _, err := os.Stat(filepath.Join(dir, "host.sock")); errors.Is(err, os.ErrNotExist) {
		t.Fatal("a killed platform tidied up: the test proves nothing")
	}
	c, err := startPlatform(t.Context(), builtBinary, dir, "")
	if err != nil {
		t.Fatal(err)
	}
	c.stop()
}
