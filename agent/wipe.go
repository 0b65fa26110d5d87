// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"

	"github.com/openthings-platform/openthings/agent/keys"
	"github.com/openthings-platform/openthings/wire"
)

// wipeMethod is named in the receipt. Without a disk encrypted from the first boot nothing stronger is true.
const wipeMethod = "unlink+overwrite"

// area is a part of the device that a receipt names, and the files that make it up.
type area struct {
	name  string
	files []string // patterns below the state directory
}

// areas are erased before the receipt is signed. The IDevID key and the boot record, which holds the intent to wipe, go
// when the receipt has been acknowledged.
var areas = []area{
	{"telemetry-buffer", []string{"buffer/*"}},
	{"config", []string{"config.json*", "commands.json*", "twin.json*", "root.json*", "bundle.json*", "time.json*", "notices.json*", "support.json*"}},
	{"ldevid-key", []string{"ldevid.pem*", "ldevid-*", "next.pem*"}},
	{"slot-a", []string{"slot-a*"}},
	{"slot-b", []string{"slot-b*"}},
}

// startWipe begins the last command of a device. The intent is on disk first; from then on every start goes on erasing,
// and nothing runs again.
func (a *agent) startWipe(ctx context.Context, work *sync.WaitGroup, id string, payload []byte) {
	var args wire.WipeArgs
	if err := json.Unmarshal(payload, &args); err != nil || args.Nonce == "" || len(args.Nonce) > 256 {
		a.acknowledge(ctx, id, "a wipe needs a nonce")
		return
	}
	if err := a.change(func(r *record) { r.Wiping = id }); err != nil {
		a.acknowledge(ctx, id, "the boot record cannot be written: "+err.Error())
		return
	}
	a.acknowledge(ctx, id, "")
	work.Go(func() { a.wipe(ctx, id, args.Nonce) })
}

// wipe erases, then proves it. The key of the open session lives in memory only by the time the receipt is signed.
func (a *agent) wipe(ctx context.Context, id, nonce string) {
	a.mu.Lock()
	stop := a.installing
	a.mu.Unlock()
	if stop != nil {
		stop()
	}
	a.buffer.close()
	a.notices.close()
	erased, err := a.erase()
	if err != nil {
		a.result(ctx, id, wire.CommandResult{Detail: "not everything could be erased: " + err.Error()})
		a.finish(ErrWiped)
		return
	}
	receipt := wire.WipeReceipt{Device: a.unit.Device, Serial: a.unit.Serial, Command: id, Nonce: nonce, Method: wipeMethod,
		Areas: erased, Image: a.image.Image, At: a.now().UnixMilli()}
	signed, err := wire.Sign(rand.Reader, a.idevid.key, receipt)
	if err == nil {
		var data []byte
		if data, err = json.Marshal(signed); err == nil {
			a.result(ctx, id, wire.CommandResult{OK: true, Detail: "wiped", Data: data})
		}
	}
	if err != nil {
		a.Log.Error("the wipe receipt could not be signed", "error", err)
	}
	a.finish(ErrWiped)
}

// result delivers the wipe's end, across sessions if need be, until it is acknowledged or the device is switched off.
func (a *agent) result(ctx context.Context, id string, r wire.CommandResult) {
	for n := 0; ; n++ {
		err := a.publish(ctx, "cmd/"+id+"/res", r)
		if err == nil || ctx.Err() != nil {
			return
		}
		a.Log.Warn("the wipe receipt is not acknowledged yet", "error", err)
		if a.sleep(ctx, a.backoff(n)) != nil {
			return
		}
	}
}

// erase shreds what areas lists and returns the names of what is gone.
func (a *agent) erase() ([]string, error) {
	var names []string
	for _, key := range []string{keyA, keyB} { // where keys lie elsewhere than in files, the store is the one to ask
		if err := a.destroy(key); err != nil {
			return nil, err
		}
	}
	for _, x := range areas {
		for _, pattern := range x.files {
			if err := a.disk.shredAll(pattern); err != nil {
				return nil, err
			}
		}
		names = append(names, x.name)
	}
	return names, syncDir(a.disk.dir)
}

// destroy removes a key from its store. One whose file is unreadable, because a power cut left the erasing half done,
// is gone already.
func (a *agent) destroy(name string) error {
	if a.keys == nil {
		return nil // the mark is on disk: every key went before it
	}
	err := a.keys.Destroy(name)
	if errors.Is(err, keys.ErrElsewhere) {
		return nil
	}
	return err
}

// eraseAll leaves an empty directory with a mark, so that nobody provisions or runs on it by mistake.
func (a *agent) eraseAll() error {
	if _, err := a.erase(); err != nil {
		return err
	}
	if err := a.destroy("idevid"); err != nil {
		return err
	}
	for _, pattern := range []string{"idevid.key*", "attestation.key*"} {
		if err := a.disk.shredAll(pattern); err != nil {
			return err
		}
	}
	if err := a.disk.write("wiped", nil); err != nil { // before the boot record goes, which says the same
		return err
	}
	for _, pattern := range []string{"idevid.pem*", "chain.pem*", "pin.json*", "unit.json*", "boot.*", "*.tmp"} {
		if err := a.disk.shredAll(pattern); err != nil {
			return err
		}
	}
	if err := os.Remove(a.disk.path("buffer")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return syncDir(a.disk.dir)
}

func (d disk) shredAll(pattern string) error {
	found, err := filepath.Glob(d.path(pattern))
	if err != nil {
		return err
	}
	for _, f := range found {
		name, err := filepath.Rel(d.dir, f)
		if err != nil {
			return err
		}
		if err := d.shred(name); err != nil {
			return err
		}
	}
	return nil
}
