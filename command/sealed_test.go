// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/wire"
)

// Words that a command and its answers carry, and that nothing may hold in the clear.
const (
	plantedArgs   = "Hafenstrasse-17-Erika"
	plantedDetail = "opened-the-door-of-Erika"
	plantedData   = "pulse-of-Erika-72"
)

// What a device was asked and what it answered is nowhere in the files of the database, and nobody reads it when the
// device's key is gone; that it was asked, by whom and how it ended stays.
func TestErasedCommandsAreUnreadable(t *testing.T) {
	dir, clk := t.TempDir(), clock.NewHand(t0)
	r, end := begin(t, "sqlite://"+filepath.Join(dir, "platform.db"), filepath.Join(t.TempDir(), "keys"), clk, func(_ context.Context, m gateway.Downlink) error {
		if !bytes.Contains(m.Payload, []byte(plantedArgs)) {
			t.Errorf("the device got %s", m.Payload)
		}
		return nil
	})
	planted := map[string]string{"place": plantedArgs}
	done, refused, waits := r.send("dev_a", "unlock", planted), r.send("dev_a", "unlock", planted), r.send("dev_b", "unlock", planted)
	for _, id := range []string{done, refused, waits} {
		r.until(id, Received)
	}
	r.must(r.says("dev_a", "cmd/"+done+"/res", `{"ok":true,"detail":"`+plantedDetail+`","data":{"saw":"`+plantedData+`"}}`))
	r.must(r.says("dev_a", "cmd/"+refused+"/ack", `{"ok":false,"reason":"`+plantedDetail+`"}`))
	c := r.get(done)
	if string(c.Args) != `{"place":"`+plantedArgs+`"}` || c.Reason != plantedDetail || string(c.Result) != `{"saw":"`+plantedData+`"}` || c.Erased {
		t.Errorf("before the erasure: %+v", c)
	}
	if c := r.get(refused); c.Reason != "refused by the device: "+plantedDetail {
		t.Errorf("refused: %q", c.Reason)
	}
	r.must(r.cfg.DB.Write(t.Context(), func(tx *store.Tx) error { return r.cfg.Keys.DestroySubject(tx, "ten", "dev_a") }))
	for _, c := range []Command{r.get(done), r.get(refused)} {
		if !c.Erased || string(c.Args) != "null" || c.Result != nil || c.Reason != "" || !c.State.Ended() || c.Actor != "per_x" || c.Ended == nil {
			t.Errorf("after the erasure: %+v", c)
		}
	}
	if c := r.get(waits); c.Erased || c.Args == nil {
		t.Errorf("another device's: %+v", c)
	}
	cs, err := r.List(t.Context(), "ten", "dev_a", "", 10)
	if err != nil || len(cs) != 2 || !cs[0].Erased {
		t.Errorf("the list: %+v, %v", cs, err)
	}
	err = r.cfg.DB.Write(t.Context(), func(tx *store.Tx) error {
		_, err := r.Send(tx, "ten", "dev_a", "unlock", planted, t0.Add(DefaultLife), "per_x")
		return err
	})
	if !problem.Is(err, problem.KindConflict) {
		t.Errorf("a command to an erased device: %v", err)
	}
	// What it still says changes the state and leaves no word.
	r.must(r.says("dev_a", "cmd/"+refused+"/res", `{"ok":true,"detail":"`+plantedDetail+`"}`))
	end()
	files := 0
	if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		for _, word := range []string{plantedArgs, plantedDetail, plantedData, wire.Digest([]byte(`{"place":"` + plantedArgs + `"}`))} {
			if bytes.Contains(b, []byte(word)) {
				t.Errorf("%s holds %q", e.Name(), word)
			}
		}
		if e.Name() == "platform.db" && !bytes.Contains(b, []byte(done)) {
			t.Errorf("%s does not hold the row itself, so the search proves nothing", e.Name())
		}
		return err
	}); err != nil || files == 0 {
		t.Errorf("%d files, %v", files, err)
	}
}

// What an earlier version wrote in the clear is sealed when the platform starts, and gone where the key is.
func TestCommandsOfEarlierVersionsAreSealed(t *testing.T) {
	clk := clock.NewHand(t0)
	storetest.EachURL(t, func(t *testing.T, url string) {
		keyDir := filepath.Join(t.TempDir(), "keys")
		first, end := begin(t, url, keyDir, clk, func(context.Context, gateway.Downlink) error { return gateway.ErrOffline })
		ids := []string{}
		for _, device := range []string{"dev_a", "dev_b", "dev_c"} {
			ids = append(ids, first.send(device, "unlock", nil))
		}
		for _, q := range []string{
			`UPDATE command SET asked = NULL, answered = NULL, args = '{"place":"` + plantedArgs + `"}'`,
			`UPDATE command SET state = 'done', reason = '` + plantedDetail + `', result = '{"saw":"` + plantedData + `"}' WHERE device <> 'dev_c'`,
		} {
			first.must(first.cfg.DB.Write(t.Context(), func(tx *store.Tx) error { _, err := tx.Exec(q); return err }))
		}
		first.must(first.cfg.DB.Write(t.Context(), func(tx *store.Tx) error { return first.cfg.Keys.DestroySubject(tx, "ten", "dev_b") }))
		end()
		again, end := begin(t, url, keyDir, clk, func(context.Context, gateway.Downlink) error { return gateway.ErrOffline })
		defer end()
		again.must(again.sealOld(t.Context()))
		var n int
		again.must(again.cfg.DB.QueryRow(t.Context(), `SELECT count(*) FROM command WHERE args <> '' OR result <> '' OR reason = '`+plantedDetail+`'`).Scan(&n))
		if n != 0 {
			t.Errorf("%d rows lie open", n)
		}
		a, b, c := again.get(ids[0]), again.get(ids[1]), again.get(ids[2])
		if string(a.Args) != `{"place":"`+plantedArgs+`"}` || a.Reason != plantedDetail || string(a.Result) != `{"saw":"`+plantedData+`"}` {
			t.Errorf("sealed later: %+v", a)
		}
		if !b.Erased || b.Reason != "" || b.Result != nil {
			t.Errorf("of an erased device: %+v", b)
		}
		if string(c.Args) != string(a.Args) || c.State != Queued {
			t.Errorf("still waiting: %+v", c)
		}
	})
}

// A job's page and list say in the device's words why its part failed, as long as they can be read.
func TestWordsOfAJobAreTheDevices(t *testing.T) {
	eachYard(t, func(y *yard) {
		id := y.create(Job{})
		y.turn()
		p := y.in(id, Started)[0]
		var cmd string
		y.must(y.cfg.DB.QueryRow(y.t.Context(), `SELECT command FROM command_job_device WHERE job = $1 AND device = $2`, id, p).Scan(&cmd))
		y.must(y.says(p, "cmd/"+cmd+"/res", `{"ok":false,"detail":"`+plantedDetail+`"}`))
		words := func() []string {
			ps, err := y.Service.parts(y.t.Context(), Job{Tenant: "ten", ID: id}, string(Failed), "", 10)
			y.must(err)
			out := []string{}
			for _, p := range ps {
				out = append(out, p.Reason)
			}
			return out
		}
		if d := cmp.Diff([]string{plantedDetail}, words()); d != "" {
			y.t.Errorf("(-want +got):\n%s", d)
		}
		y.must(y.cfg.DB.Write(y.t.Context(), func(tx *store.Tx) error { return y.cfg.Keys.DestroySubject(tx, "ten", p) }))
		if d := cmp.Diff([]string{""}, words()); d != "" {
			y.t.Errorf("after the erasure (-want +got):\n%s", d)
		}
	})
}
