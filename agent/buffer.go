// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/wire"
)

// Buffer says how much a device keeps while the platform is out of reach, and at what cost. The zero value is usable: a
// day's outage at a measurement every ten seconds takes less than a third of it.
type Buffer struct {
	// Bytes bounds what waits on disk and in memory; 0: 4 MiB, at least 64 KiB. Beyond it the oldest measurements go first, then
	// events, then security events; those two together never take more than three quarters. What went is counted and told.
	Bytes int64
	// Age is how old measurements may be and still be sent, by the platform's word on the time; 0: 30 days.
	Age time.Duration
	// Flush is how long measurements may wait in memory before they are written; 0: one minute. A power cut costs at most
	// the measurements of that time that the platform had not acknowledged. Events are on disk before they count.
	Flush time.Duration
	// Pace is how many measurements a second from before an outage are sent after it; 0: 50. Fresh ones go beside them,
	// at once.
	Pace float64
}

const (
	leastBytes   = 64 << 10
	flushBytes   = 16 << 10 // of measurements in memory: more are written at once
	mostFresh    = 64 << 10 // bytes of measurements in memory while nothing can be written
	mostSegment  = 64 << 10
	mostReports  = 32 // of losses that the platform does not know of; beyond, the last one counts on
	backlogBusy  = 4  // measurements of the backlog that may be in flight, so that a fresh one waits for a round trip at most
	eventsBusy   = 4
	lostClass    = "l"
	freshClass   = "f"
	backlogClass = "t"
	eventClass   = "e"
	chainClass   = "s"
)

func (c Buffer) withDefaults() Buffer {
	c.Bytes = max(cmp.Or(c.Bytes, 4<<20), leastBytes)
	c.Age = cmp.Or(c.Age, 30*24*time.Hour)
	c.Flush = cmp.Or(c.Flush, time.Minute)
	c.Pace = cmp.Or(c.Pace, 50)
	return c
}

// parcel is an entry on its way, and where it was taken from.
type parcel struct {
	class string
	entry
}

// lostReport is a loss that the platform is yet to be told of.
type lostReport struct {
	TS int64 `json:"ts,omitempty"`
	wire.Lost
}

// lostFile is buffer/lost.json: what was given up, and up to which number of each spool. It is written before anything goes.
type lostFile struct {
	Floor   map[string]uint64 `json:"floor"`
	Reports []lostReport      `json:"reports"`
}

const lostName = "buffer/lost.json"

// buffer is what the platform has not acknowledged: security events and events, on disk from the first moment; and
// measurements, in memory while they are fresh, on disk when nobody has taken them for a while.
type buffer struct {
	disk   disk
	limits Buffer

	mu       sync.Mutex // guards the fields below, and the folder against a wipe
	security *spool
	events   *spool
	backlog  *spool
	fresh    []entry // oldest first; their numbers are the backlog's
	weight   int64   // of fresh, in bytes
	since    time.Time
	busy     map[string]map[uint64]bool // what is in flight, by class
	lost     lostFile
	unsaved  bool // lost is not as it is on disk
	shut     bool
}

func openBuffer(d disk, limits Buffer) (*buffer, error) {
	b := &buffer{disk: d, limits: limits.withDefaults(), lost: lostFile{Floor: map[string]uint64{}}}
	b.release()
	if err := d.readJSON(lostName, &b.lost); err != nil { // damaged: what was to be told is lost as well
		b.lost = lostFile{Floor: map[string]uint64{}}
	}
	size := min(b.limits.Bytes/16, mostSegment)
	var err error
	for _, x := range []struct {
		s     **spool
		class string
		whole bool
	}{{&b.security, chainClass, true}, {&b.events, eventClass, false}, {&b.backlog, backlogClass, false}} {
		if *x.s, err = openSpool(d, x.class, size, x.whole); err != nil {
			return nil, fmt.Errorf("buffer: %w", err)
		}
		if err = (*x.s).giveUp(b.lost.Floor[x.class]); err != nil {
			return nil, fmt.Errorf("buffer: %w", err)
		}
	}
	return b, nil
}

// put keeps a measurement. now is the device's clock.
func (b *buffer) put(e entry, now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shut {
		return nil
	}
	e.no = b.backlog.next
	b.backlog.next++
	if len(b.fresh) == 0 {
		b.since = now
	}
	b.fresh, b.weight = append(b.fresh, e), b.weight+frameBytes(e)
	var err error
	if b.weight >= flushBytes {
		err = b.write(now)
	}
	return errors.Join(err, b.trim())
}

// putEvent makes an event durable.
func (b *buffer) putEvent(e entry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.no = b.events.next
	return b.store(b.events, e)
}

// putSecurity makes a link of the chain durable; its number is the one that the chain gave it.
func (b *buffer) putSecurity(e entry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.store(b.security, e)
}

func (b *buffer) store(s *spool, e entry) error {
	if b.shut {
		return errors.New("the device is being wiped")
	}
	if err := s.append([]entry{e}, e.no-1); err != nil {
		return err
	}
	return b.trim()
}

// write puts the measurements in memory on disk.
func (b *buffer) write(now time.Time) error {
	if len(b.fresh) == 0 || b.shut {
		return nil
	}
	b.since = now // if it fails, it is tried again after as long a while
	if err := b.backlog.append(b.fresh, b.fresh[0].no-1); err != nil {
		return err
	}
	for _, e := range b.fresh { // one in flight stays that
		if b.busy[freshClass][e.no] {
			b.busy[backlogClass][e.no] = true
		}
	}
	b.fresh, b.weight, b.busy[freshClass] = nil, 0, map[uint64]bool{}
	return nil
}

// flush writes what has waited in memory for long enough, or all, and says how long the rest may wait.
func (b *buffer) flush(now time.Time, all bool) (wait time.Duration, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if waited := now.Sub(b.since); all || waited >= b.limits.Flush || waited < 0 {
		err = errors.Join(b.write(now), b.trim())
	}
	if len(b.fresh) == 0 {
		return b.limits.Flush, err
	}
	return b.limits.Flush - now.Sub(b.since), err
}

// close forgets everything and takes nothing more: the device is about to be wiped.
func (b *buffer) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fresh, b.shut = nil, true
	b.security, b.events, b.backlog = &spool{disk: b.disk}, &spool{disk: b.disk}, &spool{disk: b.disk}
}

// take returns what is to be sent next and notes that it is in flight. Security events go one after the other; then
// events, reports of losses, fresh measurements, and, if it may, the backlog. now is 0 if the time is not certain.
func (b *buffer) take(now int64, backlog bool) (p parcel, ok bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shut {
		return p, false, nil
	}
	for _, from := range []struct {
		class string
		s     *spool
		most  int
	}{{chainClass, b.security, 1}, {eventClass, b.events, eventsBusy}} {
		if len(b.busy[from.class]) >= from.most {
			continue
		}
		e, ok, err := from.s.first(func(no uint64) bool { return b.busy[from.class][no] })
		if ok || err != nil {
			b.busy[from.class][e.no] = ok
			return parcel{from.class, e}, ok, err
		}
	}
	if len(b.lost.Reports) > 0 && len(b.busy[lostClass]) == 0 {
		e, err := b.lost.Reports[0].entry()
		b.busy[lostClass][0] = true
		return parcel{lostClass, e}, err == nil, err
	}
	for _, e := range b.fresh {
		if !b.busy[freshClass][e.no] {
			b.busy[freshClass][e.no] = true
			return parcel{freshClass, e}, true, nil
		}
	}
	if !backlog || len(b.busy[backlogClass]) >= backlogBusy {
		return p, false, nil
	}
	if now > 0 {
		if err := b.trimAge(now - b.limits.Age.Milliseconds()); err != nil {
			return p, false, err
		}
	}
	e, ok, err := b.backlog.first(func(no uint64) bool { return b.busy[backlogClass][no] })
	if ok {
		b.busy[backlogClass][e.no] = true
	}
	return parcel{backlogClass, e}, ok, err
}

// waits says whether measurements from before wait on disk.
func (b *buffer) waits() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.backlog.oldest() != nil
}

// done notes that the platform has it. back puts it back.
func (b *buffer) done(p parcel) error { return b.settle(p, true) }

func (b *buffer) back(p parcel) { _ = b.settle(p, false) } // which touches no disk

// refused gives up what the platform can never take, so that it does not hold up all the rest.
func (b *buffer) refused(p parcel) error {
	if p.class == lostClass || p.class == chainClass { // a hole in the chain is seen over there
		return b.done(p)
	}
	b.mu.Lock()
	b.note(wire.LostRefused, p.entry)
	err := b.save()
	b.mu.Unlock()
	return errors.Join(err, b.done(p))
}

func (b *buffer) settle(p parcel, acked bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for class := range b.busy {
		if class == p.class || class == backlogClass && p.class == freshClass { // it may have been written meanwhile
			delete(b.busy[class], p.no)
		}
	}
	if !acked || b.shut {
		return nil
	}
	switch p.class {
	case chainClass:
		return b.security.ack(p.no)
	case eventClass:
		return b.events.ack(p.no)
	case lostClass:
		b.lost.Reports = b.lost.Reports[1:]
		b.unsaved = true
		return b.save()
	}
	for i, e := range b.fresh {
		if e.no == p.no {
			b.weight -= frameBytes(e)
			b.fresh = append(b.fresh[:i:i], b.fresh[i+1:]...)
			return nil
		}
	}
	return b.backlog.ack(p.no)
}

// release forgets what was in flight: the session is over, and who knows what arrived.
func (b *buffer) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.busy = map[string]map[uint64]bool{}
	for _, class := range []string{lostClass, freshClass, backlogClass, eventClass, chainClass} {
		b.busy[class] = map[uint64]bool{}
	}
}

// entry is the event that tells of a loss.
func (r lostReport) entry() (entry, error) {
	body, err := json.Marshal(struct {
		TS     int64     `json:"ts,omitempty"`
		Detail string    `json:"detail"`
		Data   wire.Lost `json:"data"`
	}{r.TS, fmt.Sprintf("%d messages were given up (%s)", r.Count, r.Why), r.Lost})
	return entry{topic: "event/lost", body: body}, err
}
