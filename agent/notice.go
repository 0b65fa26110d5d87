// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// Bounds of what a device keeps for those who use it.
const (
	maxNotices       = 16
	maxNoticeBytes   = 128 << 10 // of all their JSON
	maxNoticeReports = 64        // that the platform does not have yet
)

const (
	noticesName = "notices.json"
	supportName = "support.json"
)

// ErrNotice is returned for a notice that the device does not keep.
var ErrNotice = errors.New("agent: there is no such notice")

// Notice is a text of the maker for the people who use the device, in one language. Show Text as it is: it is plain.
type Notice struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind"`     // support, security, cessation, other
	Severity string    `json:"severity"` // info, warning, critical
	Lang     string    `json:"lang"`
	Title    string    `json:"title"`
	Text     string    `json:"text"`
	URL      string    `json:"url,omitempty"`
	Ends     time.Time `json:"ends,omitzero"`     // not shown from then on
	Received time.Time `json:"received,omitzero"` // zero: the device did not know the time
	State    string    `json:"state,omitempty"`   // shown, acknowledged; empty: neither
}

// notices is what the maker tells those who use the device, and what they have seen of it.
type notices struct {
	kick    chan struct{} // a report is to be told
	changed chan struct{} // for Config.OnNotice

	mu      sync.Mutex // guards the fields below, and their files against a wipe
	kept    noticeFile
	support *wire.Support // nil: nothing is published
	shut    bool
}

// noticeFile is notices.json. A mark and the report of it are one write, so that neither is without the other.
type noticeFile struct {
	Notices []keptNotice        `json:"notices"` // oldest first
	Reports []wire.NoticeReport `json:"reports"` // that the platform is yet to acknowledge, oldest first
}

type keptNotice struct {
	wire.Notice
	Received int64    `json:"received,omitempty"` // ms
	State    string   `json:"state,omitempty"`    // shown, acknowledged
	Before   []string `json:"before,omitempty"`   // ids of those whose place it took: none of them comes back
}

// loadNotices reads what is kept. What cannot be read is given up: no notice is worth a device that does not start.
func (a *agent) loadNotices() {
	n := &a.notices
	n.kick, n.changed = make(chan struct{}, 1), make(chan struct{}, 1)
	if err := a.disk.readJSON(noticesName, &n.kept); err != nil {
		a.Log.Error("the notices", "error", err)
		n.kept = noticeFile{}
	}
	if err := a.disk.readJSON(supportName, &n.support); err != nil {
		a.Log.Error("the end of support", "error", err)
		n.support = nil
	}
	nudge(n.changed)
}

// errSame says that nothing has to be written.
var errSame = errors.New("it is so already")

// changeNotices puts altered notices on disk, and only then into force.
func (a *agent) changeNotices(edit func(*noticeFile) error) error {
	n := &a.notices
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.shut {
		return errors.New("the device is being wiped")
	}
	next := noticeFile{slices.Clone(n.kept.Notices), slices.Clone(n.kept.Reports)}
	if err := edit(&next); err != nil {
		if errors.Is(err, errSame) {
			return nil
		}
		return err
	}
	if err := a.disk.writeJSON(noticesName, next); err != nil {
		return err
	}
	n.kept = next
	return nil
}

// close forgets everything and takes nothing more: the device is about to be wiped.
func (n *notices) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kept, n.support, n.shut = noticeFile{}, nil, true
}

// keepNotice takes a notice from the platform. It is on disk when this returns nil.
func (a *agent) keepNotice(payload []byte) error {
	n, err := wire.ParseNotice(payload)
	if err != nil {
		return err
	}
	now, sure := a.time.now()
	if err := a.changeNotices(func(f *noticeFile) error {
		if sure { // an end counts on the platform's word alone
			f.Notices = slices.DeleteFunc(f.Notices, func(k keptNotice) bool { return ended(k.Notice, now) })
		}
		return f.add(n, a.stamp(), sure && ended(n, now))
	}); err != nil {
		return err
	}
	nudge(a.notices.changed)
	return nil
}

func ended(n wire.Notice, now time.Time) bool { return n.Ends != 0 && now.UnixMilli() >= n.Ends }

// add puts a notice in its place.
func (f *noticeFile) add(n wire.Notice, at int64, over bool) error {
	for _, k := range f.Notices {
		switch {
		case k.ID == n.ID && reflect.DeepEqual(k.Notice, n):
			return errSame
		case k.ID == n.ID:
			return fmt.Errorf("another notice %s is kept already: a correction needs an id of its own", n.ID)
		case k.Replaces == n.ID, slices.Contains(k.Before, n.ID):
			return fmt.Errorf("%s took its place already", k.ID)
		}
	}
	if over {
		return errors.New("it had ended when it came")
	}
	fresh := keptNotice{Notice: n, Received: at}
	if i := f.index(n.Replaces); i >= 0 {
		old := f.Notices[i]
		fresh.Before = append(slices.Clone(old.Before), old.ID)
		fresh.Before = fresh.Before[max(0, len(fresh.Before)-maxNotices):]
		f.Notices[i] = fresh
	} else {
		f.Notices = append(f.Notices, fresh)
	}
	return f.fit(n.ID)
}

// fit gives up the oldest of what is beyond the bounds: critical ones last, the newcomer never for the sake of older ones of
// its own weight.
func (f *noticeFile) fit(newcomer string) error {
	for len(f.Notices) > maxNotices || f.bytes() > maxNoticeBytes {
		victim := -1
		for i, k := range f.Notices {
			if k.ID != newcomer && (victim < 0 || weight(k.Severity) < weight(f.Notices[victim].Severity)) {
				victim = i
			}
		}
		if victim < 0 || weight(f.Notices[victim].Severity) > weight(f.Notices[f.index(newcomer)].Severity) {
			return errors.New("there is no room beside notices that matter more")
		}
		f.Notices = slices.Delete(f.Notices, victim, victim+1)
	}
	return nil
}

// weight is 1 for what is critical: between info and warning age alone decides who goes.
func weight(severity string) int {
	if severity == wire.NoticeCritical {
		return 1
	}
	return 0
}

func (f *noticeFile) bytes() (n int) {
	for _, k := range f.Notices {
		b, err := json.Marshal(k)
		if err != nil {
			panic("agent: " + err.Error()) // texts and numbers only
		}
		n += len(b)
	}
	return n
}

func (f *noticeFile) index(id string) int {
	return slices.IndexFunc(f.Notices, func(k keptNotice) bool { return k.ID == id })
}

// markNotice keeps that a notice was shown or acknowledged, once, and has the platform told of it.
func (a *agent) markNotice(id, state string) error {
	if state != wire.NoticeShown && state != wire.NoticeAcknowledged {
		return fmt.Errorf("%.40q is nothing that becomes of a notice: shown or acknowledged", state)
	}
	err := a.changeNotices(func(f *noticeFile) error {
		i := f.index(id)
		if i < 0 {
			return ErrNotice
		}
		if s := f.Notices[i].State; s == state || s == wire.NoticeAcknowledged {
			return errSame
		}
		f.Notices[i].State = state
		f.Reports = append(f.Reports, wire.NoticeReport{Notice: id, State: state, At: a.stamp()})
		f.Reports = f.Reports[max(0, len(f.Reports)-maxNoticeReports):]
		return nil
	})
	nudge(a.notices.kick)
	return err
}

// tellingNotices tells the platform what became of notices, until ctx ends.
func (a *agent) tellingNotices(ctx context.Context) {
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-a.notices.kick:
		}
		err := a.tellNotices(ctx)
		if err == nil || a.online.Load() == nil { // the next session begins with it
			n = 0
			continue
		}
		a.Log.Info("what became of a notice is not told yet", "error", err)
		if a.sleep(ctx, a.pause(n, err)) != nil {
			return
		}
		n++
		nudge(a.notices.kick)
	}
}

// tellNotices sends the reports one after the other. Each is forgotten once the platform has acknowledged it; what a power
// cut lets come again counts once there.
func (a *agent) tellNotices(ctx context.Context) error {
	for {
		a.notices.mu.Lock()
		reports := a.notices.kept.Reports
		a.notices.mu.Unlock()
		if len(reports) == 0 {
			return nil
		}
		r := reports[0]
		err := a.publish(ctx, wire.TopicNotice, r)
		var refused *mqtt.Error
		if errors.As(err, &refused) && slices.Contains(never, refused.Reason) {
			a.Log.Error("the platform can never take what became of a notice", "notice", r.Notice, "error", err)
			err = nil
		}
		if err != nil {
			return err
		}
		if err := a.changeNotices(func(f *noticeFile) error {
			f.Reports = slices.DeleteFunc(f.Reports, func(x wire.NoticeReport) bool { return x == r })
			return nil
		}); err != nil {
			return err
		}
	}
}

// watchNotices calls OnNotice when there is something new to show.
func (a *agent) watchNotices(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.notices.changed:
			a.OnNotice()
		}
	}
}

// shows lists what is to be shown now.
func (f noticeFile) shows(now time.Time, langs []string) []Notice {
	out := []Notice{}
	for _, k := range slices.Backward(f.Notices) {
		if ended(k.Notice, now) {
			continue
		}
		t := k.In(langs...)
		out = append(out, Notice{ID: k.ID, Kind: k.Kind, Severity: k.Severity, Lang: t.Lang, Title: t.Title, Text: t.Text, URL: k.URL, Ends: moment(k.Ends), Received: moment(k.Received), State: k.State})
	}
	slices.SortStableFunc(out, func(x, y Notice) int { return cmp.Compare(rank(x.Severity), rank(y.Severity)) })
	return out
}

func rank(severity string) int {
	return slices.Index([]string{wire.NoticeCritical, wire.NoticeWarning, wire.NoticeInfo}, severity)
}

// moment is ms since 1970 as a time in UTC; 0 is none.
func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func (a *agent) noticesNow(langs []string) []Notice {
	a.notices.mu.Lock()
	defer a.notices.mu.Unlock()
	return a.notices.kept.shows(a.now(), langs)
}

// askSupport asks until when the maker supports the device, and keeps it. A platform that has nothing to say leaves what is
// kept: what was published is never taken back.
func (a *agent) askSupport(ctx context.Context, cred *credential) error {
	b, err := a.do(ctx, cred, "GET", "/d/1/support", "", nil, 4<<10)
	if err != nil {
		return optional(err)
	}
	s, err := wire.ParseSupport(b)
	if err != nil {
		return err
	}
	n := &a.notices
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.shut || n.support != nil && *n.support == s {
		return nil
	}
	if err := a.disk.writeJSON(supportName, s); err != nil {
		return err
	}
	n.support = &s
	nudge(n.changed)
	return nil
}

func (a *agent) supportNow() (wire.Support, error) {
	a.notices.mu.Lock()
	defer a.notices.mu.Unlock()
	if a.notices.support == nil {
		return wire.Support{}, ErrSupport
	}
	return *a.notices.support, nil
}

// ErrSupport says that the device knows of no published end of support.
var ErrSupport = errors.New("agent: no end of support is known")

// ReadNotices lists what the device in dir shows, in one of the languages (see wire.Notice.In): the gravest first, then the
// newest. The device need not be running.
func ReadNotices(dir string, langs ...string) ([]Notice, error) {
	d, err := born(dir)
	if err != nil {
		return nil, err
	}
	var f noticeFile
	if err := d.readJSON(noticesName, &f); err != nil {
		return nil, err
	}
	now, _ := openCalendar(clock.System, d).now()
	return f.shows(now, langs), nil
}

// ReadSupport is until when the maker supports the device in dir, as the platform said last. The device need not be running.
func ReadSupport(dir string) (wire.Support, error) {
	d, err := born(dir)
	if err != nil {
		return wire.Support{}, err
	}
	var s *wire.Support
	if err := d.readJSON(supportName, &s); err != nil {
		return wire.Support{}, err
	}
	if s == nil {
		return wire.Support{}, ErrSupport
	}
	return *s, nil
}

// born is a state directory with a device in it.
func born(dir string) (disk, error) {
	d := disk{dir: dir}
	if !d.exists("unit.json") {
		return d, fmt.Errorf("agent: %s holds no device", dir)
	}
	return d, nil
}
