// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/update/trust"
	"github.com/openthings-platform/openthings/wire"
)

// maxRounds is how often the machine is started on one update before it gives up, across restarts.
const maxRounds = 12

var idShape = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// readOffer refuses an offer whose ids could not stand in a path or a topic.
func readOffer(payload []byte) (o wire.Offer, ok bool) {
	err := json.Unmarshal(payload, &o)
	return o, err == nil && idShape.MatchString(o.Update) && idShape.MatchString(o.Release)
}

// offered begins an update, or says by false that there is nothing to begin: another one runs, or this one has ended.
func (a *agent) offered(payload []byte) bool {
	o, ok := readOffer(payload)
	if !ok {
		a.Log.Warn("an offer of an update could not be read")
		return false
	}
	r := a.record()
	if slices.Contains(r.Done, o.Update) {
		return false
	}
	if r.Update != nil {
		if r.Update.ID != o.Update {
			a.later.Store(&payload) // until the one at hand has ended and been reported
		}
		return false
	}
	p := progress{ID: o.Update, Release: o.Release, Path: o.Target, State: wire.UpdateDownloading}
	if o.NotAfter != 0 && a.now().UnixMilli() > o.NotAfter {
		p.State, p.Rule, p.Reason = wire.UpdateRefused, trust.RuleExpired, "the offer has expired"
	}
	if err := a.change(func(r *record) { r.Update = &p }); err != nil {
		a.Log.Error("the boot record cannot be written", "error", err)
		return false
	}
	if final(p.State) {
		a.reportUpdate()
		return false
	}
	return true
}

// install takes the update in the boot record from wherever it stands to the armed slot, and asks for the restart. What
// the platform cannot answer now is tried again; what is refused or broken ends the update.
func (a *agent) install(ctx context.Context) {
	for n := 0; ; n++ {
		err := a.change(func(r *record) { r.Update.Rounds++ })
		if err == nil {
			err = a.prepare(ctx)
		}
		if err == nil {
			a.say(wire.UpdateRebooting)
			a.finish(ErrReboot)
			return
		}
		if ctx.Err() != nil {
			return // the intent is on disk; the next start takes it up
		}
		var refusal *trust.Refusal
		var status *statusError
		state := ""
		switch {
		case errors.As(err, &refusal):
			state = wire.UpdateRefused
		case errors.As(err, &status) && status.refused(), a.record().Update.Rounds >= maxRounds:
			state = wire.UpdateFailed
		}
		a.Log.Warn("update not installed", "error", err, "state", state)
		if state != "" {
			a.giveUp(state, err)
			return
		}
		if a.sleep(ctx, a.backoff(n)) != nil {
			return
		}
	}
}

// giveUp ends an update before its slot was armed, and cleans up.
func (a *agent) giveUp(state string, why error) {
	slot := other(a.slot)
	for _, name := range []string{slotFile(slot) + ".part", slotFile(slot) + ".json", slotFile(slot)} {
		if err := a.disk.remove(name); err != nil {
			a.Log.Error("clean-up after an update", "error", err)
		}
	}
	var id string
	err := a.change(func(r *record) {
		id, r.Update.State, r.Update.Rule, r.Update.Reason = r.Update.ID, state, ruleOf(why), why.Error()
	})
	if err != nil {
		a.Log.Error("the boot record cannot be written", "error", err)
		return
	}
	a.updateEnded(id, state, ruleOf(why), why.Error())
	if state == wire.UpdateRefused {
		a.tell("update-refused", why.Error(), map[string]any{"update": id, "rule": ruleOf(why)})
	}
	a.reportUpdate()
}

// prepare is DECIDE, DOWNLOAD, VERIFY, STAGE and ARM.
func (a *agent) prepare(ctx context.Context) error {
	cred, err := a.operational()
	if err != nil {
		return err
	}
	p := a.record().Update
	if p.Target == nil { // once decided, expiry no longer matters: an update begun may end
		t, err := a.decide(ctx, cred, *p)
		if err != nil {
			return err
		}
		if err := a.change(func(r *record) { r.Update.Target, r.Metadata = &t, max(r.Metadata, t.Metadata) }); err != nil {
			return err
		}
		p.Target = &t
	}
	slot := other(a.slot)
	part := slotFile(slot) + ".part"
	a.say(wire.UpdateDownloading)
	if err := a.download(ctx, *p.Target, part); err != nil {
		return err
	}
	if err := a.state(wire.UpdateVerified); err != nil {
		return err
	}
	if err := a.disk.remove(slotFile(slot) + ".json"); err != nil { // the old content of the slot ends here
		return err
	}
	if err := a.disk.rename(part, slotFile(slot)); err != nil {
		return err
	}
	if err := a.checkSlot(slot, *p.Target); err != nil { // as the next start will see it
		return err
	}
	info := slotInfo{Version: p.Target.Version, SecurityVersion: p.Target.SecurityVersion, DataFloor: p.Target.DataFloor, Image: p.Target.SHA256}
	if err := a.disk.writeJSON(slotFile(slot)+".json", info); err != nil {
		return err
	}
	if err := a.state(wire.UpdateStaged); err != nil {
		return err
	}
	return a.change(func(r *record) { r.Trial, r.Tried, r.Update.State = slot, false, wire.UpdateRebooting })
}

// decide follows root rotations, fetches the signed list and lets update/trust judge.
func (a *agent) decide(ctx context.Context, cred *credential, p progress) (trust.Target, error) {
	root, err := a.root(ctx, cred)
	if err != nil {
		return trust.Target{}, err
	}
	list, err := a.do(ctx, cred, "GET", "/d/1/ota/"+url.PathEscape(p.Release)+"/targets.json", "", nil, trust.MaxTargets)
	if err != nil {
		return trust.Target{}, err
	}
	r := a.record()
	return trust.Decide(root, list, p.Path, trust.Device{Product: a.Product, Revision: a.Revision, Floor: r.Floor,
		Running: a.image.SecurityVersion, DataFloor: r.DataFloor, Metadata: r.Metadata}, a.now())
}

// maxRotations bounds one walk along the chain of roots.
const maxRotations = 256

// root returns the trusted root after following the chain of its successors, each of them stored before it is used.
func (a *agent) root(ctx context.Context, cred *credential) (*trust.Root, error) {
	b, err := a.disk.read("root.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &trust.Refusal{Rule: trust.RuleSignature, Reason: "this device was given no update root on the line"}
	}
	if err != nil {
		return nil, err
	}
	root, err := trust.ParseRoot(b)
	if err != nil {
		return nil, err
	}
	for range maxRotations {
		next, err := a.do(ctx, cred, "GET", fmt.Sprintf("/d/1/trust/root.json?version=%d", root.Version+1), "", nil, trust.MaxRoot)
		var status *statusError
		if errors.As(err, &status) && status.status == http.StatusNotFound {
			return root, nil
		}
		if err != nil {
			return nil, err
		}
		if bytes.Equal(next, b) {
			return root, nil // a platform that knows the latest root only
		}
		if root, err = root.Rotate(next); err != nil {
			return nil, err
		}
		if err := a.disk.write("root.json", next); err != nil {
			return nil, err
		}
	}
	return root, nil
}

// download brings the image into the file name, taking up a part that is there, and checks all of it.
func (a *agent) download(ctx context.Context, t trust.Target, name string) error {
	for {
		resumed, err := a.fetch(ctx, t, name)
		if err != nil {
			return err
		}
		err = a.checkFile(name, t)
		if ruleOf(err) == "" {
			return err
		}
		if rerr := a.disk.remove(name); rerr != nil {
			return rerr
		}
		if !resumed { // a part torn by a power cut is not the platform's fault: once more from the start
			return err
		}
	}
}

func (a *agent) fetch(ctx context.Context, t trust.Target, name string) (resumed bool, err error) {
	cred, err := a.operational() // as it is now: an image takes hours, and a certificate that was replaced meanwhile must not be shown again
	if err != nil {
		return false, err
	}
	if err := a.disk.powered("write " + name); err != nil {
		return false, err
	}
	f, err := os.OpenFile(a.disk.path(name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false, err
	}
	defer f.Close()
	have, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return false, err
	}
	if have >= t.Length {
		return true, nil // whole, or too long: checking it will tell
	}
	req, err := http.NewRequestWithContext(ctx, "GET", "https://"+a.HTTPS+"/d/1/blob/"+strings.TrimPrefix(t.SHA256, "sha256:"), nil)
	if err != nil {
		return false, err
	}
	if have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	resp, err := a.client(cred).Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusPartialContent:
		resumed = have > 0
	case http.StatusOK:
		have = 0
	default:
		return false, &statusError{status: resp.StatusCode, text: "the image"}
	}
	if _, err := f.Seek(have, io.SeekStart); err != nil {
		return false, err
	}
	if err := f.Truncate(have); err != nil {
		return false, err
	}
	n, err := io.Copy(f, io.LimitReader(resp.Body, t.Length-have+1)) // one byte more than signed is enough to refuse it
	if err == nil && have+n < t.Length {
		err = io.ErrUnexpectedEOF
	}
	if serr := f.Sync(); err == nil {
		err = serr
	}
	return resumed, err
}

// state puts a step on disk, then says it.
func (a *agent) state(s string) error {
	if err := a.change(func(r *record) { r.Update.State = s }); err != nil {
		return err
	}
	a.say(s)
	return nil
}

// say tells a step of the update if the platform is in reach. Only the end of an update is worth waiting for.
func (a *agent) say(state string) {
	p := a.record().Update
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := a.publish(ctx, "ota/"+p.ID+"/status", wire.UpdateStatus{State: state, Inventory: a.inventory()}); err != nil {
		a.Log.Debug("step of an update not delivered", "state", state, "error", err)
	}
}

// reportUpdate delivers the end of an update; what does not get through waits on disk, and owe tries again.
func (a *agent) reportUpdate() {
	p := a.record().Update
	if p == nil || !final(p.State) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	status := wire.UpdateStatus{State: p.State, Rule: p.Rule, Reason: p.Reason, Inventory: a.inventory()}
	err := a.publish(ctx, "ota/"+p.ID+"/status", status)
	if err == nil {
		err = a.reported(p.ID)
	}
	if err != nil {
		a.Log.Info("end of an update not delivered yet", "error", err)
		nudge(a.owed)
		return
	}
	if next := a.later.Swap(nil); next != nil {
		a.offered(*next)
	}
}

// owe delivers the end of an update that the platform could not keep, as when its disk was full, while the session lasts: it
// may last for months, and the deployment waits.
func (a *agent) owe(session, ctx context.Context, work *sync.WaitGroup) {
	for n := 0; ; n++ {
		select {
		case <-session.Done():
			return
		case <-a.owed:
		}
		if a.sleep(session, a.backoff(n)) != nil {
			return
		}
		a.reportUpdate()
		a.resume(ctx, work) // an offer may have waited for it
	}
}
