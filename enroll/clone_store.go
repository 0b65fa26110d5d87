// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// maxSightings bounds the evidence kept of one suspected clone; what comes later is only counted.
const maxSightings = 50

// Clone is a suspicion that two units have one identity, with what was seen where.
type Clone struct {
	ID        string     `json:"id"`
	Tenant    string     `json:"-"`
	What      string     `json:"what" enum:"key,serial,idevid,ldevid,sessions" doc:"What was seen twice"`
	Mark      string     `json:"mark" doc:"Hash of the key, serial number or device that was seen twice"`
	State     string     `json:"state" enum:"open,decided"`
	Devices   []string   `json:"devices" doc:"Suspended until somebody decides"`
	Seen      int64      `json:"seen"`
	First     time.Time  `json:"first"`
	Last      time.Time  `json:"last"`
	Verdict   string     `json:"verdict,omitempty" doc:"Id of the genuine device, none, or false-alarm"`
	Actor     string     `json:"actor,omitempty"`
	Reason    string     `json:"reason,omitempty"`
	Decided   time.Time  `json:"decided,omitzero"`
	Sightings []Sighting `json:"sightings,omitempty"`
}

// Sighting is one thing that was seen.
type Sighting struct {
	At     time.Time `json:"at"`
	Device string    `json:"device,omitempty" doc:"Whose identity it was"`
	Serial string    `json:"serial,omitempty"`
	Place  string    `json:"place" doc:"Network that it came from"`
	Door   string    `json:"door" doc:"line, jitp, token, est, mqtt or https"`
	Key    string    `json:"key_hash,omitempty"`
	Detail string    `json:"detail"`

	by string // of a serial number: the line station, trusted CA or token that named it
}

const cloneColumns = `id, tenant, what, mark, state, devices, seen, first, last, verdict, actor, reason, decided`

func scanClone(r scanner) (Clone, error) {
	var c Clone
	var devices string
	var first, last, decided int64
	err := r.Scan(&c.ID, &c.Tenant, &c.What, &c.Mark, &c.State, &devices, &c.Seen, &first, &last, &c.Verdict, &c.Actor, &c.Reason, &decided)
	c.First, c.Last, c.Decided, c.Devices = store.Time(first), store.Time(last), store.Time(decided), strings.Fields(devices)
	if errors.Is(err, store.ErrNoRows) {
		return c, problem.NotFound("There is no such suspicion.")
	}
	return c, err
}

// Clones lists suspected clones in the order of their ids, those after the id given; open narrows to the undecided.
func (s *Service) Clones(ctx context.Context, tenant string, open bool, after string, limit int) ([]Clone, error) {
	q := `SELECT ` + cloneColumns + ` FROM clone WHERE tenant = $1 AND id > $2`
	if open {
		q += ` AND state = 'open'`
	}
	rows, err := s.cfg.DB.Query(ctx, q+` ORDER BY id LIMIT $3`, tenant, after, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (Clone, error) { return scanClone(r) })
}

// Clone returns a suspected clone with its evidence.
func (s *Service) Clone(ctx context.Context, tenant, id string) (Clone, error) {
	c, err := scanClone(s.reads(ctx)(`SELECT `+cloneColumns+` FROM clone WHERE tenant = $1 AND id = $2`, tenant, id))
	if err != nil {
		return c, err
	}
	rows, err := s.cfg.DB.Query(ctx, `SELECT at, device, serial, place, door, key_hash, detail FROM clone_sighting WHERE clone = $1 ORDER BY n`, id)
	c.Sightings, err = store.Collect(rows, err, func(r *sql.Rows) (g Sighting, err error) {
		var at int64
		err = r.Scan(&at, &g.Device, &g.Serial, &g.Place, &g.Door, &g.Key, &g.Detail)
		g.At = store.Time(at)
		return g, err
	})
	return c, err
}

// suspendedAsClone is the reason of a suspension that a verdict may end.
const suspendedAsClone = "clone"

// cloned records what was seen, opens a suspicion unless there is one, suspends the devices and cuts their sessions.
func (s *Service) cloned(ctx context.Context, tenant, what, mark string, devices []string, seen ...Sighting) error {
	return s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error { return s.clonedTx(tx, tenant, what, mark, devices, seen) })
}

func (s *Service) clonedTx(tx *store.Tx, tenant, what, mark string, devices []string, seen []Sighting) error {
	now := store.Millis(s.now())
	c, err := scanClone(tx.QueryRow(`SELECT `+cloneColumns+` FROM clone WHERE tenant = $1 AND what = $2 AND mark = $3 AND state = 'open'`, tenant, what, mark))
	fresh := problem.Is(err, problem.KindNotFound)
	if err != nil && !fresh {
		return err
	}
	if fresh {
		c = Clone{ID: store.NewID("cln"), Tenant: tenant, What: what, Mark: mark, State: "open"}
	}
	for _, d := range devices {
		if !slices.Contains(c.Devices, d) {
			c.Devices = append(c.Devices, d)
		}
	}
	if _, err = tx.Exec(`INSERT INTO clone(`+cloneColumns+`) VALUES ($1, $2, $3, $4, 'open', $5, $6, $7, $7, '', '', '', 0)
		ON CONFLICT (id) DO UPDATE SET devices = excluded.devices, seen = clone.seen + excluded.seen, last = excluded.last`,
		c.ID, tenant, what, mark, strings.Join(c.Devices, " "), len(seen), now); err != nil {
		return err
	}
	for i, g := range seen {
		if n := c.Seen + int64(i); n < maxSightings {
			if _, err := tx.Exec(`INSERT INTO clone_sighting(clone, n, at, device, serial, place, door, key_hash, detail) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
				c.ID, n, now, g.Device, g.Serial, g.Place, g.Door, g.Key, g.Detail); err != nil {
				return err
			}
		}
	}
	for _, id := range c.Devices {
		d, err := s.cfg.Identity.GetTx(tx, tenant, id)
		if err != nil {
			return err
		}
		if d.State.May(identity.Suspended) {
			if err := s.cfg.Identity.SetState(tx, tenant, id, identity.Suspended, "system", suspendedAsClone); err != nil {
				return err
			}
		}
	}
	if !fresh {
		return nil
	}
	data := map[string]any{"what": what, "mark": mark, "devices": c.Devices, "sightings": seen}
	if err := audit.Append(tx, audit.Entry{Tenant: tenant, Actor: "system", Kind: "clone.detected", Subject: c.ID, Data: data}); err != nil {
		return err
	}
	return s.cfg.DB.Emit(tx, "clone.detected", tenant, c.ID, data)
}

// suspect is suspicion for a door: it returns the refusal.
func (s *Service) suspect(ctx context.Context, refusal error, seen Sighting, tenant, product string) error {
	return errors.Join(refusal, s.suspicion(ctx, refusal, seen, tenant, product))
}

// suspicion looks at why a device was refused: a key or serial number that somebody else has is a clone, and the one
// who has it is suspended.
func (s *Service) suspicion(ctx context.Context, refusal error, seen Sighting, tenant, product string) error {
	if refusal == nil {
		return nil
	}
	var what, mark string
	var ids []string
	var known int64 // suspicions of this that are open
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		switch problem.Of(refusal).Rule {
		case identity.RuleUsedKey:
			what, mark = CloneKey, seen.Key
			c, err := s.cfg.Identity.CertificateOfKey(tx, tenant, seen.Key)
			if problem.Is(err, problem.KindNotFound) || err == nil && c.Kind == identity.Station {
				return nil // another tenant's, or a station's: refused, and nothing of this tenant to lock
			}
			if err != nil {
				return err
			}
			d, err := s.cfg.Identity.GetTx(tx, tenant, c.Subject)
			if err != nil || d.ID == seen.Device || d.Serial == seen.Serial && d.Product == product {
				return err // the same unit: a key for another purpose, or its certificate of birth anew
			}
			ids = append(ids, d.ID)
		case identity.RuleUsedSerial:
			what, mark = CloneSerial, product+" "+seen.Serial
			d, err := s.cfg.Identity.BySerialTx(tx, tenant, product, seen.Serial)
			if err != nil {
				return err
			}
			ids = append(ids, d.ID)
			if err := tx.QueryRow(`SELECT count(*) FROM clone WHERE tenant = $1 AND what = $2 AND mark = $3 AND state = 'open'`, tenant, what, mark).Scan(&known); err != nil {
				return err
			}
		}
		if seen.Device != "" {
			ids = append(ids, seen.Device)
		}
		return nil
	})
	if err != nil || what == "" || len(ids) == 0 || len(ids) == 1 && ids[0] == seen.Device {
		return err
	}
	if what == CloneSerial && known == 0 && s.accuses.Take(tenant+" "+seen.by, 1) != nil {
		return s.flooded(ctx, tenant, seen)
	}
	return s.cloned(ctx, tenant, what, mark, ids, seen)
}

// accusations bounds how many units are suspended on the word of one line station, trusted CA or token that names their
// serial numbers. Who shows another's key proves to hold it; a serial number is read off a box, or counted up, and whoever
// stole a station would lock the whole fleet out with it before somebody kills the station.
var accusations = api.Limits{PerSecond: 20.0 / 86400, Burst: 20}

// flooded notes, once an hour, that somebody names more serial numbers of others than are believed. They are refused.
func (s *Service) flooded(ctx context.Context, tenant string, seen Sighting) error {
	s.cfg.Log.WarnContext(ctx, "more serial numbers of other units than are believed", "tenant", tenant, "by", seen.by, "serial", seen.Serial)
	if s.floods.Take(tenant+" "+seen.by, 1) != nil {
		return nil
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		return s.tell(tx, "clone.flood", tenant, seen.by, seen.by, map[string]any{"serial": seen.Serial, "door": seen.Door, "place": seen.Place})
	})
}

// floods is one in an hour.
var floods = api.Limits{PerSecond: 1.0 / 3600, Burst: 1}

// twoHolders says that two units ask with the identity of one device, with what shows it.
type twoHolders struct{ seen []Sighting }

func (*twoHolders) Error() string { return "two units ask with the identity of one device" }

// noteAsk notes with which key a device asks for a certificate, and returns *twoHolders when that shows a second holder
// of the identity it asks with. A key that the device has not asked for before never does.
func (s *Service) noteAsk(tx *store.Tx, p gateway.Peer, keyHash string) error {
	now := s.now()
	fresh, err := tx.Exec(`INSERT INTO asked(device, key_hash, tenant, at, place) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (device, key_hash) DO NOTHING`,
		p.Device, keyHash, p.Tenant, store.Millis(now), place(p.From))
	if err != nil {
		return err
	}
	if fresh > 0 {
		return forgetAsked(tx, p)
	}
	rows, err := tx.Query(`SELECT key_hash, at, place FROM asked WHERE device = $1 AND tenant = $2`, p.Device, p.Tenant)
	asked, places := map[string]time.Time{}, map[string]string{}
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var key, from string
		var at int64
		err := r.Scan(&key, &at, &from)
		asked[key], places[key] = store.Time(at), from
		return struct{}{}, err
	})
	if err != nil || !returned(asked, keyHash, now) {
		return err
	}
	var seen []Sighting
	for key, at := range asked {
		seen = append(seen, Sighting{Device: p.Device, Place: places[key], Door: "est", Key: key, Detail: "first asked for this key at " + at.UTC().Format(time.RFC3339)})
	}
	slices.SortFunc(seen, func(a, b Sighting) int { return asked[a.Key].Compare(asked[b.Key]) })
	return &twoHolders{append(seen, Sighting{Device: p.Device, Place: place(p.From), Door: "est", Key: keyHash, Detail: "asks again for this key, with a certificate of kind " + string(p.Kind)})}
}

// forgetAsked drops the oldest of the keys that the device asked for, once there are too many.
func forgetAsked(tx *store.Tx, p gateway.Peer) error {
	var n int64
	err := tx.QueryRow(`SELECT count(*) FROM asked WHERE device = $1 AND tenant = $2`, p.Device, p.Tenant).Scan(&n)
	if err != nil || n <= keptAsks {
		return err
	}
	_, err = tx.Exec(`DELETE FROM asked WHERE device = $1 AND tenant = $2 AND key_hash NOT IN (SELECT key_hash FROM asked WHERE device = $1 AND tenant = $2 ORDER BY at DESC, key_hash LIMIT $3)`, p.Device, p.Tenant, keptAsks)
	return err
}

// keptAsks bounds the keys that are remembered of a device, however many it asks for.
const keptAsks = 64

// Used is identity's, and notes the first use of an LDevID.
func (s *Service) Used(ctx context.Context, p gateway.Peer) error {
	if err := s.cfg.Identity.Used(ctx, p); err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO first_use(fp, tenant, device, at, place) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (fp) DO NOTHING`,
			p.Fingerprint, p.Tenant, p.Device, store.Millis(s.now()), place(p.From))
		return err
	})
}

// Spent hears that somebody has proven to hold the key of an LDevID whose successor is in use.
func (s *Service) Spent(p gateway.Peer) {
	ctx := context.Background()
	var used int64
	var from string
	err := s.cfg.DB.QueryRow(ctx, `SELECT at, place FROM first_use WHERE device = $1 AND tenant = $2 AND fp <> $3 AND at >= coalesce((SELECT at FROM first_use WHERE fp = $3), 0) ORDER BY at DESC LIMIT 1`,
		p.Device, p.Tenant, p.Fingerprint).Scan(&used, &from)
	if errors.Is(err, store.ErrNoRows) {
		return
	}
	if err == nil && spentInUse(store.Time(used), s.now()) {
		err = s.cloned(ctx, p.Tenant, CloneLDevID, p.Device, []string{p.Device},
			Sighting{Device: p.Device, Place: from, Door: "https", Detail: "used the newer LDevID first at " + store.Time(used).UTC().Format(time.RFC3339)},
			Sighting{Device: p.Device, Place: place(p.From), Door: "https", Key: identity.KeyHash(p.Cert.RawSubjectPublicKeyInfo), Detail: "uses the LDevID that was replaced"})
	}
	if err != nil {
		s.cfg.Log.Error("a replaced certificate was used, but not noted", "device", p.Device, "err", err)
	}
}

// swaps remembers the latest takeovers of each device on this node.
type swaps struct {
	mu  sync.Mutex // guards all
	all map[string][]swap
}

// maxSwapping bounds the devices whose takeovers are remembered.
const maxSwapping = 10_000

// TakenOver hears that a new session of a device ended a live one.
func (s *Service) TakenOver(before, now gateway.Peer) {
	from, to := place(before.From), place(now.From)
	if from == to {
		return
	}
	s.swaps.mu.Lock()
	if s.swaps.all == nil || len(s.swaps.all) >= maxSwapping {
		s.swaps.all = map[string][]swap{}
	}
	mine := append(s.swaps.all[now.Device], swap{s.now(), from, to})
	mine = mine[max(0, len(mine)-keptSwaps):]
	s.swaps.all[now.Device] = mine
	cloned := pingPong(mine)
	if cloned {
		delete(s.swaps.all, now.Device)
	}
	s.swaps.mu.Unlock()
	if !cloned {
		return
	}
	var seen []Sighting
	for _, w := range mine {
		seen = append(seen, Sighting{Device: now.Device, Place: w.to, Door: "mqtt", Detail: "took the session over from " + w.from + " at " + w.at.UTC().Format(time.RFC3339)})
	}
	s.noting.Go(func() { // the session that took over waits for its answer
		if err := s.cloned(context.Background(), now.Tenant, CloneSessions, now.Device, []string{now.Device}, seen...); err != nil {
			s.cfg.Log.Error("two sessions of one device, but not noted", "device", now.Device, "err", err)
		}
	})
}

// Settled waits until what TakenOver heard is noted.
func (s *Service) Settled() { s.noting.Wait() }

// Decide ends a suspicion. genuine is the device that is the real one: it is resumed, the others are barred for ever.
// CloneNone bars all of them, CloneFalse resumes all of them; one that is suspended for another reason, or under
// another suspicion, stays so. Of these devices the LDevIDs are revoked, so that they enrol anew.
func (s *Service) Decide(ctx context.Context, tenant, id, genuine, reason, actor string) (Clone, error) {
	if err := checkReason(reason); err != nil {
		return Clone{}, err
	}
	err := s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error {
		c, err := scanClone(tx.QueryRow(`SELECT `+cloneColumns+` FROM clone WHERE tenant = $1 AND id = $2`, tenant, id))
		if err != nil {
			return err
		}
		if c.State != "open" {
			return problem.Conflict("This was decided already.")
		}
		if genuine != CloneNone && genuine != CloneFalse && !slices.Contains(c.Devices, genuine) {
			return problem.Invalid("Name the genuine device, or %s, or %s.", CloneNone, CloneFalse).At("genuine")
		}
		for _, dev := range c.Devices {
			if err := s.settle(tx, tenant, c.ID, dev, genuine == CloneFalse || genuine == dev, reason, actor); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(`DELETE FROM asked WHERE tenant = $1 AND device IN (SELECT id FROM device WHERE tenant = $1 AND id = $2)`, tenant, c.Mark); err != nil {
			return err
		}
		_, err = tx.Exec(`UPDATE clone SET state = 'decided', verdict = $1, actor = $2, reason = $3, decided = $4 WHERE tenant = $5 AND id = $6`,
			genuine, actor, reason, store.Millis(s.now()), tenant, id)
		if err != nil {
			return err
		}
		return s.tell(tx, "clone.decided", tenant, id, actor, map[string]any{"genuine": genuine, "devices": c.Devices, "reason": reason})
	})
	if err != nil {
		return Clone{}, err
	}
	return s.Clone(ctx, tenant, id)
}

// Verdicts beside the id of the genuine device.
const (
	CloneNone  = "none"
	CloneFalse = "false-alarm"
)

// settle applies the verdict of the suspicion id to one of its devices.
func (s *Service) settle(tx *store.Tx, tenant, id, device string, genuine bool, reason, actor string) error {
	d, err := s.cfg.Identity.GetTx(tx, tenant, device)
	if err != nil {
		return err
	}
	if genuine {
		if d.State != identity.Suspended {
			return nil
		}
		var others int64
		err := tx.QueryRow(`SELECT count(*) FROM clone WHERE tenant = $1 AND state = 'open' AND id <> $2 AND ' ' || devices || ' ' LIKE $3`, tenant, id, "% "+device+" %").Scan(&others)
		if err != nil {
			return err
		}
		if d.Reason == suspendedAsClone && others == 0 { // and not as stolen, or under another suspicion
			if err := s.cfg.Identity.SetState(tx, tenant, device, d.Resume, actor, reason); err != nil {
				return err
			}
		}
		return s.cfg.Identity.Revoke(tx, tenant, device, actor, reason)
	}
	if d.State.May(identity.Decommissioned) {
		if err := s.cfg.Identity.SetState(tx, tenant, device, identity.Decommissioned, actor, reason); err != nil {
			return err
		}
	}
	return s.cfg.Identity.Revoke(tx, tenant, device, actor, reason)
}
