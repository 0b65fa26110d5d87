// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openthings-platform/openthings/agent/keys"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// Version names this agent in its inventory.
const Version = "0.1.0"

// Ends of Run that are not failures.
var (
	// ErrReboot asks whoever runs the agent to start it again, as a bootloader would.
	ErrReboot = errors.New("agent: reboot")
	// ErrWiped says that the device has erased itself and will not come back.
	ErrWiped = errors.New("agent: wiped")
)

// errUnhealthy ends the trial of an image whose time is up.
var errUnhealthy = errors.New("it did not reach the platform in time")

// Config is what Run needs. Dir, HTTPS, MQTT, Product and Revision are mandatory.
type Config struct {
	Dir   string // the state directory that Provision made
	HTTPS string // host:port of the HTTPS device door (8444)
	MQTT  string // host:port of the MQTT device door (8883)

	// Product and Revision say what this firmware is built for: the product's id and the hardware revision's name, as
	// they stand in signed releases.
	Product  string
	Revision string

	Label    string                    // of the enrolment policy, as in /.well-known/est/LABEL/simpleenroll; empty: none
	Keys     string                    // the key store, as in agent/keys.Open; empty: the one that Provision used
	Roots    *x509.CertPool            // whom to trust as a server besides the trust bundle from the line; may be nil
	Clock    clock.Clock               // nil: clock.System
	Log      *slog.Logger              // nil: nothing is logged
	Sensors  func() map[string]float64 // what to measure; nil: uptime in seconds
	Interval time.Duration             // between measurements, until a command set-interval; 0: 10 s
	Retry    time.Duration             // first back-off after a failure, doubling up to 64 times; 0: 1 s

	Apply  Apply  // brings the device to what is desired of it; nil: the agent knows its own settings only
	Buffer Buffer // what is kept while the platform is out of reach
	Socket string // path of a unix socket for other programs of the device, see Request; empty: none

	// OnNotice is called at each start, and when there is another notice or end of support to show; Agent.Notices and
	// Agent.Support say what. One call at a time; what comes meanwhile makes one more. nil: somebody looks for themselves.
	OnNotice func()

	Probe Probe // how the device looks at itself for its baseline report

	// Health looks at a freshly booted image before it is committed; an error rolls back. nil: reaching the platform is enough.
	Health func(ctx context.Context, image string) error
	// HealthFor is how long a new image may take to become healthy; 0: 5 minutes.
	HealthFor time.Duration
}

type agent struct {
	Config
	disk    disk
	unit    unit
	keys    keys.Store
	proven  crypto.PublicKey // that the platform has seen a proof for
	idevid  *credential
	pins    *pins
	time    *calendar
	started time.Time
	slot    string   // the slot that this start booted
	image   slotInfo // what runs in it

	mu         sync.Mutex // guards the fields below
	rec        record
	interval   time.Duration
	installing func() // stops the update machine and waits for it; nil while none runs

	online     atomic.Pointer[mqtt.Client] // the live session, if any
	end        chan error                  // ErrReboot or ErrWiped, from whatever asked for it
	kick       chan struct{}               // a measurement waits in the buffer
	retime     chan struct{}               // the interval has changed
	timely     chan struct{}               // the platform has said what time it is
	owed       chan struct{}               // the platform could not keep the end of an update
	standing   standing
	route      route
	chored     time.Time // by the device's clock: the chores were last done; sessions follow one another
	introduced time.Time // the same of what goes before an enrolment; only live touches it

	counting  sync.Mutex // guards seq, and that measurements are put in its order
	seq       uint64     // of the last measurement of this start
	chain     chain
	suspicion string        // what the start found wrong with the log of security events
	fellBack  bool          // this start is the first after an update that was rolled back
	failed    sync.Map      // keys and certificates of which it was told that they cannot be used
	behind    time.Duration // how far the device's clock is behind the platform's, as far as was told; guarded by mu

	current atomic.Pointer[credential] // the LDevID of the session used last
	later   atomic.Pointer[[]byte]     // an offer that came while another update was unfinished
	twin    twin
	notices notices
	buffer  *buffer
	answers []answer // commands.json; only the handler of messages touches it
	pool    clients
}

// Run is one power cycle: it returns ErrReboot when the device must start again, ErrWiped after a wipe, or ctx's error.
// Any other error says that the state directory is unusable.
func Run(ctx context.Context, c Config) error { return New(c).Run(ctx) }

// run calls running with the agent once it runs, and with nil when it does not any more.
func run(ctx context.Context, c Config, d disk, running func(*agent)) error {
	a, err := newAgent(c, d)
	if err != nil {
		return err
	}
	if a.keys != nil {
		defer a.keys.Close() //nolint:errcheck // what was signed is signed
	}
	if a.rec.Wiping != "" {
		// Power went before the receipt was acknowledged. There is no way back, and no proof either.
		if err := a.eraseAll(); err != nil {
			return err
		}
		return ErrWiped
	}
	trial, err := a.boot()
	if err != nil {
		return err
	}
	defer func() {
		if _, err := a.buffer.flush(a.Clock.Now(), true); err != nil {
			a.Log.Error("measurements could not be written", "error", err)
		}
	}()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var work sync.WaitGroup
	defer work.Wait()
	defer running(nil)
	defer cancel(nil)
	a.startedUp(trial)
	if trial {
		if err := a.tryOut(ctx); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx) // switched off, which is no verdict; the next start finds the trial unfinished
			}
			return a.rollBack(err)
		}
		work.Go(func() { a.watchdog(ctx, cancel) })
	}
	running(a)
	work.Go(func() { a.measure(ctx) })
	work.Go(func() { a.liveTwin(ctx) })
	work.Go(func() { a.tellingNotices(ctx) })
	if a.OnNotice != nil {
		work.Go(func() { a.watchNotices(ctx) })
	}
	work.Go(func() { a.flushing(ctx) })
	work.Go(func() { a.sealing(ctx) })
	if a.Socket != "" {
		work.Go(func() { a.serveLocal(ctx) })
	}
	work.Go(func() {
		select {
		case err := <-a.end:
			cancel(err)
		case <-ctx.Done():
		}
	})
	a.live(ctx, &work)
	cause := context.Cause(ctx)
	if errors.Is(cause, errUnhealthy) {
		return a.rollBack(cause)
	}
	if errors.Is(cause, ErrWiped) {
		running(nil)
		work.Wait() // nothing may write into the directory any more
		if err := a.eraseAll(); err != nil {
			return err
		}
	}
	return cause
}

// Supervise runs the agent again after each ErrReboot, until ctx ends or the device is wiped (nil).
func Supervise(ctx context.Context, c Config) error { return New(c).Supervise(ctx) }

func supervise(ctx context.Context, run func(context.Context) error) error {
	for {
		err := run(ctx)
		if errors.Is(err, ErrReboot) && ctx.Err() == nil {
			continue
		}
		if errors.Is(err, ErrWiped) {
			return nil
		}
		return err
	}
}

func newAgent(c Config, d disk) (*agent, error) {
	if c.Dir == "" || c.HTTPS == "" || c.MQTT == "" || c.Product == "" || c.Revision == "" {
		return nil, errors.New("agent: Dir, HTTPS, MQTT, Product and Revision are mandatory")
	}
	if c.Clock == nil {
		c.Clock = clock.System
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Interval <= 0 {
		c.Interval = 10 * time.Second
	}
	if c.Retry <= 0 {
		c.Retry = time.Second
	}
	if c.HealthFor <= 0 {
		c.HealthFor = 5 * time.Minute
	}
	a := &agent{Config: c, disk: d, started: c.Clock.Now(), interval: c.Interval,
		end: make(chan error, 1), kick: make(chan struct{}, 1), retime: make(chan struct{}, 1), timely: make(chan struct{}, 1), owed: make(chan struct{}, 1)}
	if a.disk.exists("wiped") {
		a.rec.Wiping = "done" // what a power cut left behind is erased now
		return a, nil
	}
	if info, err := os.Stat(c.Dir); err != nil {
		return nil, fmt.Errorf("agent: provision the unit first: %w", err)
	} else if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("agent: %s must be readable by its owner only (mode 0700)", c.Dir)
	}
	var err error
	if a.rec, err = a.disk.load(); err != nil {
		return nil, err
	}
	if err := a.disk.readJSON("unit.json", &a.unit); err != nil {
		return nil, err
	}
	a.keys, err = openKeys(cmp.Or(c.Keys, a.unit.Keys), a.disk)
	if a.rec.Wiping != "" {
		if err != nil { // without its hardware no key can be used, and the files go all the same
			a.Log.Error("the key store", "error", err)
		}
		return a, nil
	}
	if err != nil {
		return nil, err
	}
	if err := a.load(); err != nil {
		return nil, errors.Join(err, a.keys.Close())
	}
	return a, nil
}

// load reads the state directory.
func (a *agent) load() (err error) {
	if !a.disk.exists("idevid.pem") {
		return errors.New("agent: the unit has not left the line: provision it and install what the station answered")
	}
	if a.idevid, err = readPair(a.disk, a.keys, "idevid.pem"); err != nil {
		return fmt.Errorf("agent: the certificate of birth: %w", err)
	}
	if a.pins, err = openPins(a.disk, a.Roots); err != nil {
		return err
	}
	a.time = openCalendar(a.Clock, a.disk)
	for _, c := range []*credential{a.idevid, a.pair("ldevid.pem"), a.pair("next.pem")} {
		if c != nil {
			if err := a.time.seen(c.Leaf.NotBefore); err != nil {
				return err
			}
		}
	}
	var set settings
	if err := a.disk.readJSON("config.json", &set); err != nil {
		return err
	}
	if set.Interval > 0 {
		a.interval = set.Interval
	}
	if err := a.disk.readJSON("commands.json", &a.answers); err != nil {
		return err
	}
	if err := a.loadTwin(); err != nil {
		return err
	}
	a.loadNotices()
	a.buffer, err = openBuffer(a.disk, a.Buffer)
	return err
}

// record returns the boot record as it is on disk now.
func (a *agent) record() record {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.rec
	if r.Update != nil {
		p := *r.Update
		r.Update = &p
	}
	return r
}

// change puts an altered boot record on disk, and only then into force.
func (a *agent) change(edit func(*record)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.rec
	if r.Update != nil {
		p := *r.Update
		r.Update = &p
	}
	if r.Wiping != "" {
		return errors.New("the device is being wiped")
	}
	edit(&r)
	if err := a.disk.save(&r); err != nil {
		return err
	}
	a.rec = r
	return nil
}

// finish ends this power cycle. Only the first reason counts.
func (a *agent) finish(why error) {
	select {
	case a.end <- why:
	default:
	}
}

// clients holds the HTTPS client of the credential used last, so that its connection is used again.
type clients struct {
	mu   sync.Mutex // guards the fields below
	cred *credential
	http *http.Client
}

func (a *agent) client(c *credential) *http.Client {
	a.pool.mu.Lock()
	defer a.pool.mu.Unlock()
	if a.pool.http == nil || a.pool.cred != c {
		if a.pool.http != nil {
			a.pool.http.CloseIdleConnections()
		}
		a.pool.cred = c
		a.pool.http = &http.Client{Timeout: time.Hour, Transport: &http.Transport{
			TLSClientConfig: a.tls(c, hostOf(a.HTTPS)), ResponseHeaderTimeout: 30 * time.Second, TLSHandshakeTimeout: 30 * time.Second, IdleConnTimeout: 30 * time.Second}}
	}
	return a.pool.http
}

// sleep waits for d, unless ctx ends before.
func (a *agent) sleep(ctx context.Context, d time.Duration) error {
	t := a.Clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// inventory is what runs here, as seen now.
func (a *agent) inventory() wire.Inventory {
	r := a.record()
	inv := wire.Inventory{Version: a.image.Version, SecurityVersion: a.image.SecurityVersion, Image: a.image.Image, Slot: a.slot,
		Floor: r.Floor, Boot: r.Boot, Agent: Version, Bundle: a.pins.current().Version}
	if r.Update != nil && r.Update.State == wire.UpdateCommitted {
		inv.Update = r.Update.ID
	}
	return inv
}
