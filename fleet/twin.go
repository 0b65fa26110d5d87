// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// Twin is what a device shall be like, what it says that it is like, and how far the one has become the other.
type Twin struct {
	Device          string          `json:"device"`
	Desired         json.RawMessage `json:"desired" doc:"What the device shall be like"`
	DesiredVersion  int64           `json:"desired_version" doc:"Counts changes of what is desired; 0: nothing was ever desired"`
	DesiredAt       *time.Time      `json:"desired_at,omitempty"`
	DesiredBy       string          `json:"desired_by,omitempty"`
	Reported        json.RawMessage `json:"reported" doc:"What the device says that it is like"`
	ReportedVersion int64           `json:"reported_version" doc:"Counts the device's reports"`
	ReportedAt      *time.Time      `json:"reported_at,omitempty"`
	Applied         int64           `json:"applied_version" doc:"The desired version that the device says it goes by"`
	Behind          *time.Time      `json:"behind_since,omitempty" doc:"Since when the device does not go by what is desired; absent: it does"`
	Failed          int64           `json:"failed_version,omitempty" doc:"The desired version that the device could not apply"`
	Error           string          `json:"error,omitempty" doc:"Why it could not"`

	tag string
}

// twin is a row, opened.
type twin struct {
	device, tenant       string
	rev                  int64
	desired, reported    wire.Doc
	version, told        int64 // of desired, of reports
	desiredAt            int64
	desiredBy            string
	reportedAt           int64
	boot, seq            int64
	applied, behindSince int64
	failed               int64
	error                string
}

func (t twin) out() Twin {
	return Twin{Device: t.device, Desired: t.desired.Bytes(), DesiredVersion: t.version, DesiredAt: instant(t.desiredAt), DesiredBy: t.desiredBy,
		Reported: t.reported.Bytes(), ReportedVersion: t.told, ReportedAt: instant(t.reportedAt), Applied: t.applied, Behind: instant(t.behindSince),
		Failed: t.failed, Error: t.error, tag: strconv.FormatInt(t.version, 10) + "." + strconv.FormatInt(t.rev, 10)}
}

func instant(ms int64) *time.Time {
	if ms == 0 {
		return nil
	}
	t := store.Time(ms)
	return &t
}

// Change is one version of what is desired, against the one before.
type Change struct {
	Version int64           `json:"version"`
	At      time.Time       `json:"at"`
	Actor   string          `json:"actor"`
	Job     string          `json:"job,omitempty" doc:"The job that set it, if one did"`
	Patch   json.RawMessage `json:"patch,omitempty" doc:"What it changed, as a merge patch; absent for the oldest version kept"`
}

// Desired asks for a change of what a device shall be like.
type Desired struct {
	Tenant, Device string
	Patch          wire.Doc // a merge patch, or with Whole the new state
	Whole          bool
	// If is the version that the caller has seen; another one there is a conflict. Any takes whatever there is.
	If    int64
	Actor string
	Job   string // the job it is part of, if any
}

// Any is the version of a caller who does not mind which one it changes.
const Any = -1

// Bounds of what is kept.
const (
	twinVersions  = 50  // of one device
	maxTwinError  = 500 // bytes of a device's words
	maxTwinTopic  = 64
	twinAttempts  = 10 // two writers of one twin at a time make one of them begin again
	topicReported = "state/reported"
	topicDesired  = "state/desired"
)

// change alters t. Nothing changes, not even the version, when what is desired is so already.
func (d Desired) change(t *twin, now int64) (changed bool, err error) {
	if d.If != Any && d.If != t.version {
		return false, problem.Precondition("What is desired of this device has changed since you read it: it is at version %d, you saw %d.", t.version, d.If).
			Hint("Look at it again and repeat the change.")
	}
	next := t.desired.Merge(d.Patch)
	if d.Whole {
		next = d.Patch
	}
	if err := next.Check(); err != nil {
		return false, problem.Invalid("This cannot be desired: %s.", shortly(err)).At("body")
	}
	if len(wire.Diff(t.desired, next)) == 0 {
		return false, nil
	}
	t.desired, t.version, t.desiredAt, t.desiredBy = next, t.version+1, now, d.Actor
	if t.behindSince == 0 {
		t.behindSince = now
	}
	t.failed, t.error = 0, ""
	return true, nil
}

// shortly is what is wrong with a document, without its general beginning.
func shortly(err error) string {
	_, why, _ := strings.Cut(err.Error(), ": ")
	return why
}

// report takes what the device says. It says whether anything is new, and whether the device lacks the whole desired
// state: it asked for it, or it goes by a version that this database does not know, as after the restore of a backup.
func (t *twin) report(r wire.TwinReport, now int64) (changed, lost bool, err error) {
	boot, seq := int64(min(r.Boot, math.MaxInt64)), int64(min(r.Seq, math.MaxInt64))
	if seq > 0 {
		if boot < t.boot || boot == t.boot && seq <= t.seq {
			return false, false, nil
		}
		t.boot, t.seq = boot, seq
	}
	switch {
	case r.Full != nil && r.Patch != nil:
		return false, false, problem.Invalid("A report holds the whole state or a patch, not both.")
	case r.Full != nil:
		if t.reported, err = wire.ParseDoc(r.Full); err != nil {
			return false, false, problem.Invalid("The reported state is %s.", err)
		}
	case r.Patch != nil:
		patch, err := wire.ParsePatch(r.Patch)
		if err != nil {
			return false, false, problem.Invalid("The patch of the reported state is %s.", err)
		}
		t.reported = t.reported.Merge(patch)
		if err := t.reported.Check(); err != nil {
			return false, false, problem.Invalid("The reported state would be %s.", err)
		}
	}
	t.told, t.reportedAt = t.told+1, now
	switch {
	case r.Applied < 0 || r.Applied > t.version:
		t.applied, lost = 0, true
	default:
		t.applied = r.Applied
	}
	t.failed, t.error = 0, ""
	switch {
	case t.applied == t.version:
		t.behindSince = 0
	case t.behindSince == 0:
		t.behindSince = now
	}
	if r.Failed == t.version && t.applied != t.version {
		t.failed, t.error = r.Failed, readable(r.Error)
	}
	return true, lost || r.Resync, nil
}

// readable keeps a device's words within bounds.
func readable(s string) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "�")
	if len(s) > maxTwinError {
		s = strings.ToValidUTF8(s[:maxTwinError], "") + "…"
	}
	return s
}

// delta is what the device has to hear to go by the newest version: a patch from the version base with the document of
// that version, or the whole if there is no base or the whole is hardly longer.
func (t twin) delta(base int64, doc wire.Doc) wire.TwinDelta {
	whole := t.desired.Bytes()
	if base > 0 && base < t.version && doc != nil {
		if patch := wire.Diff(doc, t.desired).Bytes(); len(patch)+64 < len(whole) {
			return wire.TwinDelta{Version: t.version, Base: base, Patch: patch}
		}
	}
	return wire.TwinDelta{Version: t.version, Full: whole}
}

// Twin returns the device's twin; a device of which nothing was ever said or desired has an empty one.
func (s *Service) Twin(ctx context.Context, tenant, device string) (Twin, error) {
	t, err := s.openTwin(ctx, tenant, device)
	return t.out(), err
}

// SetDesired changes what a device shall be like and lets it know. Asking for what is desired already changes nothing.
func (s *Service) SetDesired(ctx context.Context, d Desired) (Twin, error) {
	dev, err := s.cfg.Identity.Get(ctx, d.Tenant, d.Device)
	if err != nil {
		return Twin{}, err
	}
	if dev.State.Barred() || dev.State == identity.Decommissioning {
		return Twin{}, problem.Conflict("The device is %s: nothing more is desired of it.", dev.State)
	}
	var changed bool
	t, err := s.alterTwin(ctx, d.Tenant, d.Device, func(t *twin) (_ bool, err error) {
		changed, err = d.change(t, store.Millis(s.cfg.Clock.Now()))
		return changed, err
	}, func(tx *store.Tx, t twin, doc []byte) error {
		return putVersion(tx, t, doc, d.Actor, d.Job)
	})
	if err == nil && changed {
		s.turns.Add(d.Device)
	}
	return t.out(), err
}

// AppliedHook hears, in the transaction, which desired version a device goes by, and which one it could not apply.
type AppliedHook func(tx *store.Tx, tenant, device string, applied, failed int64, why string) error

// OnApplied lets a later stage follow what devices apply. Call it before the doors open.
func (s *Service) OnApplied(h AppliedHook) { s.applied = append(s.applied, h) }

// Reported takes what a device says of itself: register it with telemetry.Route("state/", …). What can never be accepted
// is a problem of kind invalid.
func (s *Service) Reported(ctx context.Context, r gateway.Record) error {
	if r.Topic != topicReported {
		return problem.Invalid("%q is no report of a state.", r.Topic[:min(len(r.Topic), maxTwinTopic)])
	}
	var said wire.TwinReport
	if err := json.Unmarshal(r.Body, &said); err != nil {
		return problem.Invalid("The report is not valid JSON.").Because(err)
	}
	var lost bool
	t, err := s.alterTwin(ctx, r.Tenant, r.Device, func(t *twin) (changed bool, err error) {
		changed, lost, err = t.report(said, store.Millis(s.cfg.Clock.Now()))
		return changed, err
	}, func(tx *store.Tx, t twin, _ []byte) error {
		for _, h := range s.applied {
			if err := h(tx, t.tenant, t.device, t.applied, t.failed, t.error); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, errNoTwin) {
		return problem.NotFound("The data of this device was erased.")
	}
	if err == nil && (lost || t.behindSince == 0) {
		s.told.lost(r.Device)
	}
	if err == nil && lost {
		s.turns.Add(r.Device)
	}
	return err
}

// TwinChanges returns a page of what was desired of a device, the newest first, before the version given (0: from the newest).
func (s *Service) TwinChanges(ctx context.Context, tenant, device string, before int64, limit int) ([]Change, error) {
	versions, err := s.openVersions(ctx, tenant, device, before, limit+1)
	if err != nil {
		return nil, err
	}
	var out []Change
	for i, v := range versions[:min(limit, len(versions))] {
		c := Change{Version: v.version, At: store.Time(v.at), Actor: v.actor, Job: v.job}
		if i+1 < len(versions) {
			c.Patch = wire.Diff(versions[i+1].doc, v.doc).Bytes()
		} else if v.version == 1 {
			c.Patch = v.doc.Bytes()
		}
		out = append(out, c)
	}
	return out, nil
}

// EraseTwin removes all that is kept of a device's state. Its key is destroyed by whoever erases the device.
func (s *Service) EraseTwin(ctx context.Context, tenant, device string) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return deleteTwin(tx, tenant, device) })
}

// Difference is one value of a twin, by its path.
type Difference struct {
	Path, Pointer     string // light.level and /light/level (RFC 6901)
	Desired, Reported string // as JSON; empty: there is none
	Differs           bool   // desired and not so
}

// differences lists every value of both documents in the order of their paths.
func differences(desired, reported wire.Doc) []Difference {
	by := map[string]*Difference{}
	at := func(l leaf) *Difference {
		if by[l.pointer] == nil {
			by[l.pointer] = &Difference{Path: strings.Join(l.parts, "."), Pointer: l.pointer}
		}
		return by[l.pointer]
	}
	for _, l := range flatten(desired) {
		at(l).Desired = l.json
	}
	for _, l := range flatten(reported) {
		at(l).Reported = l.json
	}
	out := make([]Difference, 0, len(by))
	for _, d := range by {
		d.Differs = d.Desired != "" && !sameValue(d.Desired, d.Reported)
		out = append(out, *d)
	}
	slices.SortFunc(out, func(a, b Difference) int { return strings.Compare(a.Pointer, b.Pointer) })
	return out
}

// sameValue compares two values as JSON; 1.0 is 1.
func sameValue(a, b string) bool {
	if a == b {
		return true
	}
	x, err := strconv.ParseFloat(a, 64)
	y, yerr := strconv.ParseFloat(b, 64)
	return err == nil && yerr == nil && x == y
}

// leaf is a value that is no object, or an empty one.
type leaf struct {
	parts         []string
	pointer, json string
}

var pointerEscape = strings.NewReplacer("~", "~0", "/", "~1")

// flatten lists the values of a document.
func flatten(d wire.Doc) (out []leaf) {
	var walk func(parts []string, pointer string, v any)
	walk = func(parts []string, pointer string, v any) {
		object, ok := v.(map[string]any)
		if !ok || len(object) == 0 {
			b := wire.Doc{"": v}.Bytes()
			out = append(out, leaf{parts, pointer, string(b[len(`{"":`) : len(b)-1])})
			return
		}
		for k, m := range object {
			walk(append(slices.Clone(parts), k), pointer+"/"+pointerEscape.Replace(k), m)
		}
	}
	for k, v := range d {
		walk([]string{k}, "/"+pointerEscape.Replace(k), v)
	}
	return out
}
