// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/vuln"
)

// Pack is a draft of one report in the field vocabulary of the Single Reporting Platform, in its order, to be copied
// there by a person. The platform has no programming interface (ENISA FAQ), so nothing is ever sent from here.
type Pack struct {
	Case     string      `json:"case"`
	Stage    Stage       `json:"stage"`
	Glossary string      `json:"glossary" doc:"Version of the field set"`
	Made     time.Time   `json:"made"`
	Fields   []PackField `json:"fields"`
	Missing  []string    `json:"missing" doc:"Required fields that are empty"`
}

// PackField is one field with its draft.
type PackField struct {
	ID    string   `json:"id"`
	Label string   `json:"label"`
	Need  law.Need `json:"need"`
	Value string   `json:"value"`
	Used  int      `json:"used" doc:"Characters in the draft"`
	Limit int      `json:"limit,omitempty" doc:"Characters at most; 0: no limit known"`
	Over  bool     `json:"over,omitempty" doc:"The draft is longer than the field takes"`
}

// need is what the glossary asks of a field at a stage.
func need(f law.Field, st Stage) law.Need {
	switch st {
	case EarlyWarning:
		return f.EarlyWarning
	case Notification:
		return f.Notification
	default:
		return f.Final
	}
}

// draft fills the fields of the glossary that concern the kind of case from what is known.
func draft(c Case, manufacturer string, r reach, st Stage, now time.Time) Pack {
	g := law.NewestSRP()
	p := Pack{Case: c.ID, Stage: st, Glossary: g.Version, Made: now, Missing: []string{}}
	known := map[string]string{
		"type":          pick(c.Kind, "Actively exploited vulnerability", "Severe incident"),
		"title":         c.Title,
		"summary":       c.Summary,
		"manufacturer":  manufacturer,
		"member_states": strings.Join(c.MemberStates, ", "),
		"product":       c.ProductName,
		"versions":      compress(r.versions, 255),
		"aware":         instant(c.T0),
		"aware_si":      instant(c.T0),
		"cve":           c.Ref,
		"measure":       instant(c.state.Measure),
		"update":        c.state.MeasureNote,
	}
	if len(r.versions) > 0 {
		known["impact"] = fmt.Sprintf("%d devices run an affected version as of %s.", r.devices, instant(now))
	}
	for _, f := range g.Fields {
		if f.Kind != "" && f.Kind != string(c.Kind) {
			continue
		}
		v := known[f.ID]
		n := utf8.RuneCountInString(v)
		p.Fields = append(p.Fields, PackField{ID: f.ID, Label: f.Label, Need: need(f, st), Value: v, Used: n, Limit: f.Limit, Over: f.Limit > 0 && n > f.Limit})
		if v == "" && need(f, st) == law.Required {
			p.Missing = append(p.Missing, f.ID)
		}
	}
	return p
}

// reach is what a vulnerability touches in one product.
type reach struct {
	versions []string // exposed, in the order that vuln lists them
	devices  int64    // that run one of them now
}

// reachOf counts each release once, however many of its components are concerned.
func reachOf(e vuln.Exposure, product string) (r reach) {
	counted := map[string]bool{}
	for _, x := range e.Releases {
		if x.Product == product && x.Exposed && !counted[x.Release] {
			counted[x.Release] = true
			r.versions = append(r.versions, x.Version)
			r.devices += x.Devices
		}
	}
	return r
}

// reach asks vuln about the case's vulnerability; one that no record was imported of reaches nothing that is known.
func (s *Service) reach(ctx context.Context, t string, c Case) (reach, error) {
	if s.cfg.Vuln == nil || c.Ref == "" {
		return reach{}, nil
	}
	e, err := s.cfg.Vuln.Affected(ctx, t, c.Ref, time.Time{})
	if err != nil && !problem.Is(err, problem.KindNotFound) {
		return reach{}, err
	}
	return reachOf(e, c.Product), nil
}

func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// compress writes versions in at most limit characters; when they do not fit, the first and last stand for all.
func compress(versions []string, limit int) string {
	all := strings.Join(versions, ", ")
	if len(versions) < 3 || utf8.RuneCountInString(all) <= limit {
		return all
	}
	return fmt.Sprintf("%s to %s (%d versions)", versions[0], versions[len(versions)-1], len(versions))
}

// stageNow is the report that comes next.
func stageNow(s State) Stage {
	switch {
	case s.has(Notification):
		return Final
	case s.has(EarlyWarning):
		return Notification
	default:
		return EarlyWarning
	}
}

// Pack drafts a report of the case; an empty stage is the next one.
func (s *Service) Pack(ctx context.Context, id string, st Stage) (Pack, error) {
	c, err := s.Case(ctx, id)
	if err != nil {
		return Pack{}, err
	}
	if st == "" {
		st = stageNow(c.state)
	}
	t := tenant.MustTenant(ctx)
	r, err := s.reach(ctx, t, c)
	if err != nil {
		return Pack{}, err
	}
	name := ""
	if s.cfg.Manufacturer != nil {
		if name, err = s.cfg.Manufacturer(ctx, t); err != nil {
			return Pack{}, err
		}
	}
	return draft(c, name, r, st, s.now()), nil
}

// Stages are the reports that a pack can be drafted for.
func (Pack) Stages() []Stage { return []Stage{EarlyWarning, Notification, Final} }
