// SPDX-License-Identifier: AGPL-3.0-only

package update

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// jobAdvance looks at a deployment: offers what is admitted, judges what came back. Its key is the deployment.
const jobAdvance = "update.advance"

type advanceData struct {
	Tenant string `json:"tenant"`
}

const (
	pageSize   = 1000             // devices looked at together
	offersOnce = 16               // offers on their way at the same time
	offerTime  = 10 * time.Second // for a device to acknowledge an offer
)

// Deploy starts a deployment of a published release. It writes one row and one per wave; the devices are found later.
func (s *Service) Deploy(ctx context.Context, d Deployment, percent []int64) (Deployment, error) {
	if err := checkWaves(percent); err != nil {
		return Deployment{}, err
	}
	now := s.cfg.Clock.Now()
	d.ID, d.State, d.Created, d.Waves = store.NewID("dpl"), Running, store.Time(store.Millis(now)), nil
	for i, p := range percent {
		w := Wave{N: int64(i), Percent: p, State: WaveWaiting}
		if i == 0 {
			w.State, w.Opened = WaveOpen, d.Created
		}
		d.Waves = append(d.Waves, w)
	}
	return d, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		r, err := one(scanRelease(tx.QueryRow(`SELECT `+releaseColumns+` FROM release WHERE tenant = $1 AND id = $2`, d.Tenant, d.Release)))("release")
		if err != nil {
			return err
		}
		if r.State != Published {
			return problem.Forbidden("update.published", "The release is %s; only a published one can be deployed.", r.State)
		}
		if r.Product != d.Product {
			return problem.Invalid("The release belongs to product %s.", r.Product).At("product")
		}
		overridden, err := aboveFloor(tx, r, d.Override)
		if err != nil {
			return err
		}
		if len(overridden) == 0 {
			d.Override = ""
		}
		if err := insertDeployment(tx, d); err != nil {
			return err
		}
		data := map[string]any{"release": r.ID, "version": r.Version, "product": d.Product, "solution": d.Solution, "waves": percent}
		if d.Override != "" {
			data["override"], data["advised"] = d.Override, overridden
		}
		if err := audit.Append(tx, audit.Entry{Tenant: d.Tenant, Actor: d.Actor, Kind: "deployment.started", Subject: d.ID, Data: data}); err != nil {
			return err
		}
		if err := s.cfg.DB.Emit(tx, "deployment.started", d.Tenant, d.ID, data); err != nil {
			return err
		}
		return s.cfg.DB.Enqueue(tx, jobAdvance, d.ID, now, advanceData{Tenant: d.Tenant})
	})
}

// moves lists which state a person may lead a deployment to.
var moves = map[string][]string{Paused: {Running}, Running: {Paused}, Aborted: {Running, Paused}}

// verbs names the leaf of each move.
var verbs = map[string]string{Paused: "paused", Running: "resumed", Aborted: "aborted", Completed: "completed"}

// Steer pauses, resumes or aborts a deployment. Updates that devices have begun go on; no device begins a new one.
func (s *Service) Steer(ctx context.Context, tenant, id, to, actor, reason string) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		d, err := loadDeployment(tx, tenant, id)
		if err != nil {
			return err
		}
		for _, from := range moves[to] {
			if d.State == from {
				return s.move(tx, d, to, actor, reason)
			}
		}
		return problem.Conflict("The deployment is %s.", d.State)
	})
}

func (s *Service) move(tx *store.Tx, d Deployment, to, actor, reason string) error {
	now := s.cfg.Clock.Now()
	var ended time.Time
	if to == Aborted || to == Completed {
		ended = now
	}
	moved, err := moveDeployment(tx, d, to, reason, ended)
	if err != nil || !moved {
		return err
	}
	err = audit.Append(tx, audit.Entry{Tenant: d.Tenant, Actor: actor, Kind: "deployment." + verbs[to], Subject: d.ID,
		Data: map[string]any{"release": d.Release, "reason": reason}})
	switch {
	case err != nil:
		return err
	case to == Running:
		return s.cfg.DB.Enqueue(tx, jobAdvance, d.ID, now, advanceData{Tenant: d.Tenant})
	case !ended.IsZero():
		return s.cfg.DB.Emit(tx, "deployment.ended", d.Tenant, d.ID, map[string]any{"state": to, "release": d.Release, "reason": reason})
	}
	return nil
}

// endAll aborts every deployment of a release that is being withdrawn.
func (s *Service) endAll(tx *store.Tx, tenant, release, actor, reason string) error {
	rows, err := tx.Query(`SELECT `+deploymentColumns+` FROM deployment WHERE tenant = $1 AND release_id = $2 AND ended = 0`, tenant, release)
	open, err := store.Collect(rows, err, func(r *sql.Rows) (Deployment, error) { return scanDeployment(r) })
	if err != nil {
		return err
	}
	for _, d := range open {
		if err := s.move(tx, d, Aborted, actor, reason); err != nil {
			return err
		}
	}
	return nil
}

// advanceJob looks at a deployment until there is nothing more to do now.
func (s *Service) advanceJob(ctx context.Context, j store.Job) error {
	var data advanceData
	if err := j.Decode(&data); err != nil {
		return err
	}
	for {
		again, err := s.advance(ctx, data.Tenant, j.Key)
		if err != nil || !again {
			return err
		}
	}
}

// advance makes one round: offers to the devices that the open waves admit, counts outcomes, lets the gate decide.
func (s *Service) advance(ctx context.Context, tenant, id string) (again bool, err error) {
	d, err := s.Deployment(ctx, tenant, id)
	if problem.Is(err, problem.KindNotFound) || d.State != Running {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	r, err := s.Get(ctx, tenant, d.Release)
	if err != nil {
		return false, err
	}
	p, deadline, err := s.round(ctx, d, r)
	if err != nil {
		return false, err
	}
	now := s.cfg.Clock.Now()
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		again = false
		switch judge(p, int(d.Wave) == len(d.Waves)-1) {
		case abort:
			return s.move(tx, d, Aborted, "system", fmt.Sprintf("%d devices failed", p.Failed))
		case widen:
			again, err = openWave(tx, d, now)
			return err
		case complete:
			if err := setWave(tx, d, d.Wave, WaveDone, now); err != nil {
				return err
			}
			return s.move(tx, d, Completed, "system", "")
		}
		if deadline.IsZero() {
			return nil
		}
		return s.cfg.DB.Enqueue(tx, jobAdvance, d.ID, deadline, advanceData{Tenant: tenant})
	})
	return again, err
}

// round walks the devices asked for, offers to those that are admitted, connected and not yet begun, ends what has been
// silent too long, and counts. A wave that the fleet is too small for gets one device all the same, the connected one with
// the lowest place, so that no release goes to everybody untried. deadline is when the next silence ends, or zero.
func (s *Service) round(ctx context.Context, d Deployment, r Release) (p progress, deadline time.Time, err error) {
	updates, err := updatesOf(ctx, s.cfg.DB, d.Tenant, d.ID, "", 1<<30)
	if err != nil {
		return p, deadline, err
	}
	byDevice := make(map[string]Update, len(updates))
	for _, u := range updates {
		byDevice[u.Device] = u
	}
	now := s.cfg.Clock.Now()
	first := ""
	within, err := s.within(ctx, d)
	if err != nil {
		return p, deadline, err
	}
	filter := identity.Filter{Product: d.Product, Solutions: within, State: identity.Commissioned, Limit: pageSize}
	for {
		devices, err := s.cfg.Identity.List(ctx, d.Tenant, filter)
		if err != nil {
			return p, deadline, err
		}
		running, err := s.running(ctx, d.Tenant, devices)
		if err != nil {
			return p, deadline, err
		}
		var begin []string
		for _, dev := range devices {
			u, begun := byDevice[dev.ID]
			if !begun && !Admitted(d.ID, dev.ID, d.Waves[d.Wave].Percent) {
				if running[dev.ID] != r.ID && s.cfg.Live(dev.ID) && (first == "" || place(d.ID, dev.ID) < place(d.ID, first)) {
					first = dev.ID
				}
				continue
			}
			p.Admitted++
			switch {
			case begun && u.State == wire.UpdateCommitted, !begun && running[dev.ID] == r.ID:
				p.Committed++
			case begun && !u.Ended.IsZero():
				p.Failed++
			case begun && now.Before(u.Offered.Add(s.cfg.Deadline)):
				p.Open++
				if end := u.Offered.Add(s.cfg.Deadline); deadline.IsZero() || end.Before(deadline) {
					deadline = end
				}
			case begun:
				p.Failed++
				err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
					return s.end(tx, d.Tenant, u, wire.UpdateFailed, "deadline", "it took the offer and was not heard of again", r)
				})
				if err != nil {
					return p, deadline, err
				}
			case s.cfg.Live(dev.ID):
				begin = append(begin, dev.ID)
			}
		}
		last := len(devices) < pageSize
		if last && p.Admitted == 0 && first != "" {
			begin, p.Admitted = append(begin, first), 1
		}
		n, err := s.offerAll(ctx, d, r, begin)
		if err != nil {
			return p, deadline, err
		}
		if p.Open += n; n > 0 && deadline.IsZero() {
			deadline = now.Add(s.cfg.Deadline)
		}
		if last {
			return p, deadline, nil
		}
		filter.After = devices[len(devices)-1].ID
	}
}

func (s *Service) running(ctx context.Context, tenant string, devices []identity.Device) (map[string]string, error) {
	if len(devices) == 0 {
		return nil, nil
	}
	ids := make([]string, len(devices))
	for i, d := range devices {
		ids[i] = d.ID
	}
	return s.cfg.Fleet.Running(ctx, tenant, ids)
}

// offerAll offers to several devices at once and returns how many have begun.
func (s *Service) offerAll(ctx context.Context, d Deployment, r Release, devices []string) (int64, error) {
	var mu sync.Mutex // guards n and failed
	var n int64
	var failed error
	var wg sync.WaitGroup
	slots := make(chan struct{}, offersOnce)
	for _, device := range devices {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			begun, err := s.offer(ctx, d, r, device, false)
			mu.Lock()
			defer mu.Unlock()
			if begun {
				n++
			}
			failed = errors.Join(failed, err)
		})
	}
	wg.Wait()
	return n, failed
}

// offer writes the device's row, then sends. A device that was not reached has not begun: its row goes again. watch has
// the deployment looked at when the device has been silent too long; a round sees to that for all of its offers at once.
func (s *Service) offer(ctx context.Context, d Deployment, r Release, device string, watch bool) (begun bool, err error) {
	u := Update{ID: store.NewID("upd"), Deployment: d.ID, Release: r.ID, Device: device, Wave: d.Wave, State: Offered, Offered: s.cfg.Clock.Now()}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) (err error) {
		begun, err = insertUpdate(tx, d.Tenant, u)
		if err != nil || !begun || !watch {
			return err
		}
		return s.cfg.DB.Enqueue(tx, jobAdvance, d.ID, u.Offered.Add(s.cfg.Deadline), advanceData{Tenant: d.Tenant})
	})
	if err != nil || !begun {
		return false, err
	}
	if err := s.send(ctx, u, r); err != nil {
		s.cfg.Log.InfoContext(ctx, "offer not delivered", "device", device, "deployment", d.ID, "error", err)
		return false, s.cfg.DB.Write(context.WithoutCancel(ctx), func(tx *store.Tx) error { return retractUpdate(tx, d.Tenant, u.ID) })
	}
	return true, nil
}

func (s *Service) send(ctx context.Context, u Update, r Release) error {
	b, err := json.Marshal(wire.Offer{Update: u.ID, Release: r.ID, Target: r.Path, NotAfter: u.Offered.Add(s.cfg.Deadline).UnixMilli()})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, offerTime)
	defer cancel()
	return s.cfg.Send(ctx, gateway.Downlink{Device: u.Device, Topic: wire.TopicOffer, Payload: b, Type: "application/json", Expires: u.Offered.Add(s.cfg.Deadline)})
}

// Ready is called when a device has subscribed. It never blocks.
func (s *Service) Ready(p gateway.Peer) {
	select {
	case s.arrived <- p:
	default:
	}
}

// Work offers to devices as they connect, until ctx ends.
func (s *Service) Work(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for range offersOnce {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case p := <-s.arrived:
					if err := s.consider(ctx, p.Tenant, p.Device); err != nil && ctx.Err() == nil {
						s.cfg.Log.ErrorContext(ctx, "offer to a device that connected", "device", p.Device, "error", err)
					}
				}
			}
		})
	}
	<-ctx.Done()
	return nil
}

// within are the solutions whose devices the deployment reaches: its own and all below, as they stand now; none means all
// of the product.
func (s *Service) within(ctx context.Context, d Deployment) ([]string, error) {
	switch {
	case d.Solution == "":
		return nil, nil
	case s.cfg.Tenants == nil:
		return []string{d.Solution}, nil
	}
	return s.cfg.Tenants.Within(ctx, d.Tenant, d.Solution)
}

// consider offers a device what running deployments have for it, and repeats an offer that it has not answered.
func (s *Service) consider(ctx context.Context, tenant, device string) error {
	open, err := listDeployments(ctx, s.cfg.DB, tenant, "", Running)
	if err != nil || len(open) == 0 {
		return err
	}
	dev, err := s.cfg.Identity.Get(ctx, tenant, device)
	if err != nil || dev.State != identity.Commissioned {
		return err
	}
	running, err := s.running(ctx, tenant, []identity.Device{dev})
	if err != nil {
		return err
	}
	for _, x := range open {
		if x.Product != dev.Product || running[device] == x.Release {
			continue
		}
		if within, err := s.within(ctx, x); err != nil {
			return err
		} else if len(within) > 0 && !slices.Contains(within, dev.Solution) {
			continue
		}
		d, err := s.Deployment(ctx, tenant, x.ID)
		if err != nil {
			return err
		}
		before, err := updatesOf(ctx, s.cfg.DB, tenant, d.ID, device, 1)
		if err != nil {
			return err
		}
		if len(before) == 0 && !Admitted(d.ID, device, d.Waves[d.Wave].Percent) {
			continue
		}
		r, err := s.Get(ctx, tenant, d.Release)
		if err != nil {
			return err
		}
		switch {
		case len(before) == 0:
			_, err = s.offer(ctx, d, r, device, true)
		case before[0].State == Offered:
			err = s.send(ctx, before[0], r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Deployment returns a deployment with its waves, or problem.NotFound.
func (s *Service) Deployment(ctx context.Context, tenant, id string) (d Deployment, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		d, err = loadDeployment(tx, tenant, id)
		return err
	})
	return d, err
}
