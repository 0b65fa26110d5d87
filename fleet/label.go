// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// Bounds of labels.
const (
	MaxLabels     = 32 // of one device
	maxLabelValue = 64 // characters
	labelStep     = 250
)

var labelName = regexp.MustCompile(`^[a-z][a-z0-9._-]{0,31}$`)

const labelNameHint = "A name is at most 32 of a-z 0-9 . _ and -, and begins with a letter."

// Labelling is a change of labels: what is set, and what is taken away.
type Labelling struct {
	Set    map[string]string `json:"set,omitempty" doc:"Labels to set, by name"`
	Remove []string          `json:"remove,omitempty" maxItems:"32" doc:"Names of labels to take away"`
}

func (l Labelling) check() error {
	if len(l.Set)+len(l.Remove) == 0 {
		return problem.Invalid("Say which labels to set or to remove.").At("body.set")
	}
	if len(l.Set) > MaxLabels {
		return problem.Invalid("A device has at most %d labels.", MaxLabels).At("body.set")
	}
	for name, value := range l.Set {
		switch {
		case !labelName.MatchString(name):
			return problem.Invalid("%q cannot be the name of a label.", name).Hint(labelNameHint).At("body.set")
		case value == "" || utf8.RuneCountInString(value) > maxLabelValue || strings.TrimSpace(value) != value || strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }):
			return problem.Invalid("%q cannot be the value of %s.", value, name).Hint("A value is 1 to %d printable characters, with none of space around them.", maxLabelValue).At("body.set")
		case slices.Contains(l.Remove, name):
			return problem.Invalid("%s is to be set and to be removed.", name).At("body.remove")
		}
	}
	return nil
}

// apply returns the labels of a device after the change, and whether it is one.
func (l Labelling) apply(before map[string]string) (after map[string]string, changed bool) {
	after = map[string]string{}
	for name, value := range before {
		if slices.Contains(l.Remove, name) {
			changed = true
			continue
		}
		after[name] = value
	}
	for name, value := range l.Set {
		changed = changed || after[name] != value
		after[name] = value
	}
	return after, changed
}

// Label changes the labels of one device that whoever asks may label, and returns them.
func (s *Service) Label(ctx context.Context, device string, l Labelling) (map[string]string, error) {
	d, err := s.cfg.Identity.Visible(ctx, tenant.GroupWrite, device)
	if err != nil {
		return nil, err
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	if _, err := s.relabel(ctx, d.Tenant, []identity.Device{d}, l, ""); err != nil {
		return nil, err
	}
	labels, err := labelsOf(ctx, s.cfg.DB, d.Tenant, []string{d.ID})
	if labels[d.ID] == nil {
		return map[string]string{}, err
	}
	return labels[d.ID], err
}

// Bulk is what a change by filter did.
type Bulk struct {
	Devices int `json:"devices" doc:"How many devices the filter selected"`
	Changed int `json:"changed" doc:"How many of them were not so already"`
}

// LabelAll changes the labels of all devices of a filter that whoever asks may label. It goes in steps, each of which
// is whole: after an error the same again does the rest.
func (s *Service) LabelAll(ctx context.Context, filter string, l Labelling) (out Bulk, err error) {
	f, err := ParseFilter(filter)
	if err != nil {
		return out, err
	}
	if err := l.check(); err != nil {
		return out, err
	}
	t := tenant.MustTenant(ctx)
	err = s.each(ctx, tenant.GroupWrite, t, f, func(ds []identity.Device) error {
		n, err := s.relabel(ctx, t, ds, l, filter)
		out.Devices += len(ds)
		out.Changed += n
		return err
	})
	return out, err
}

// each calls fn with the devices of a filter in steps. The walk goes by ids, so that what fn changes moves nobody out of
// its way.
func (s *Service) each(ctx context.Context, v tenant.Verb, t string, f Filter, fn func([]identity.Device) error) error {
	for after := ""; ; {
		ds, err := s.find(ctx, v, t, f, identity.Filter{After: after, Limit: labelStep})
		if err != nil || len(ds) == 0 {
			return err
		}
		if err := fn(ds); err != nil {
			return err
		}
		if len(ds) < labelStep {
			return nil
		}
		after = ds[len(ds)-1].ID
	}
}

// relabel writes the change and its leaf: about the device itself, or about the tenant when a filter selected many.
func (s *Service) relabel(ctx context.Context, t string, ds []identity.Device, l Labelling, filter string) (changed int, err error) {
	ids := make([]string, len(ds))
	for i, d := range ds {
		ids[i] = d.ID
	}
	who, _ := tenant.ActorFrom(ctx)
	err = s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
		have, err := labelsIn(tx, t, ids)
		if err != nil {
			return err
		}
		var touched []string
		for _, d := range ds {
			after, is := l.apply(have[d.ID])
			if !is {
				continue
			}
			if len(after) > MaxLabels {
				return problem.Invalid("%s would have %d labels; %d is the most.", d.Serial, len(after), MaxLabels).At("body.set")
			}
			if err := putLabels(tx, t, d.ID, l, have[d.ID]); err != nil {
				return err
			}
			touched = append(touched, d.ID)
		}
		if changed = len(touched); changed == 0 {
			return nil
		}
		e := audit.Entry{Tenant: t, Actor: who.ID, Kind: "device.labelled", Subject: touched[0], Data: map[string]any{"set": l.Set, "removed": l.Remove}}
		if filter != "" || len(ds) > 1 {
			e.Subject, e.Data = t, map[string]any{"set": l.Set, "removed": l.Remove, "filter": filter, "devices": touched}
		}
		return audit.Append(tx, e)
	})
	return changed, err
}
