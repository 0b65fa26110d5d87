// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// AuthorityOut is an authority as people and programs see it.
type AuthorityOut struct {
	Authority
	Protection string `json:"protection" enum:"sealed,pkcs11,tpm,backend,away" doc:"Where its key is; away: not on this machine"`
	Alarm      string `json:"alarm,omitempty" enum:"soon,leaf,over" doc:"How near its end it is: a successor is due; what it signs would outlive it; it has ended"`
}

// Overview is the state of the platform's certificate authorities and of the trust in them.
type Overview struct {
	Authorities []AuthorityOut `json:"authorities"`
	Bundle      *BundleOut     `json:"bundle,omitempty" doc:"The newest trust bundle"`
	Progress    Progress       `json:"progress" doc:"Of the newest trust bundle"`
	Warnings    []string       `json:"warnings"`
}

// AuthoritiesOut lists the authorities with where their keys are.
func (s *Service) AuthoritiesOut(ctx context.Context) ([]AuthorityOut, error) {
	all, err := s.Authorities(ctx)
	if err != nil {
		return nil, err
	}
	held, err := s.cfg.Issuer.Authorities(ctx)
	if err != nil && !problem.Is(err, problem.KindUnavailable) { // one that is away holds what it held
		return nil, err
	}
	now := s.cfg.Clock.Now()
	out := make([]AuthorityOut, len(all))
	for i, a := range all {
		out[i] = AuthorityOut{Authority: a, Protection: "away", Alarm: a.alarm(now)}
		if a.Backend == "openbao" {
			out[i].Protection = "backend"
		}
		if j := slices.IndexFunc(held, func(h Held) bool { return h.ID == a.ID }); j >= 0 {
			out[i].Protection = held[j].Protection
		}
	}
	return out, nil
}

// Overview is for the tenant's devices; tenant "" is the whole platform.
func (s *Service) Overview(ctx context.Context, tenant string) (Overview, error) {
	o := Overview{Warnings: []string{}}
	var err error
	if o.Authorities, err = s.AuthoritiesOut(ctx); err != nil {
		return o, err
	}
	newest, err := s.Bundles(ctx, 0, 1)
	if err != nil {
		return o, err
	}
	if len(newest) > 0 {
		o.Bundle = &newest[0]
		if o.Progress, err = s.Progress(ctx, tenant, o.Bundle.Version); err != nil {
			return o, err
		}
	} else {
		o.Warnings = append(o.Warnings, "There is no trust bundle: devices cannot follow a change of the root.")
	}
	if st := s.IssuerState(); !st.OK {
		o.Warnings = append(o.Warnings, fmt.Sprintf("Since %s nothing can be signed: %s Certificates go on until their end; devices that ask are told to come again.", st.Since.UTC().Format(time.RFC3339), st.Problem))
	}
	o.Warnings = append(append(o.Warnings, Stopped(o.Authorities)...), warnings(o.Authorities)...)
	return o, nil
}

// stops says what does not happen while nothing signs for a role.
var stops = map[Role]string{
	Factory:     "no unit gets its certificate of birth, and no line station is opened or renewed",
	Operational: "no device enrols or renews",
	Server:      "the doors get no new certificate when theirs end, and a node without one does not open",
	Bootstrap:   "the bootstrap door gets no new certificate when its own ends",
}

// Stopped says in words what has stopped since an authority was compromised that has no successor yet, and what to do.
func Stopped(all []AuthorityOut) (out []string) {
	for _, r := range Roles {
		of := func(st Status) bool {
			return slices.ContainsFunc(all, func(a AuthorityOut) bool { return a.Role == r && a.Status == st })
		}
		if of(Compromised) && !of(Active) {
			out = append(out, fmt.Sprintf("No %s authority signs: %s. Make one with openthings ca rotate --role %s, or openthings ca request --role %s if the key above it is not on this machine, then openthings ca promote.", r, stops[r], r, r))
		}
	}
	return out
}

// warnings says in words what an administrator should see to.
func warnings(all []AuthorityOut) (out []string) {
	var files []string
	for _, a := range all {
		if a.Protection == "sealed" && a.Role.Above() != a.Role && a.Status != Retired && a.Status != Compromised {
			files = append(files, a.ID)
		}
	}
	if len(files) > 0 { // said for as long as it is so, since nothing else shows it
		out = append(out, fmt.Sprintf("The keys of %s lie in sealed files and not in hardware: whoever copies the whole data folder has them. A TPM or a token keeps them: openthings up --ca-keys.", strings.Join(files, ", ")))
	}
	for _, a := range all {
		if a.Role.Above() == a.Role && a.Protection != "away" && a.Status != Retired && a.Status != Compromised {
			out = append(out, fmt.Sprintf("The key of %s lies on this machine. Take it off: openthings ca root export.", a.ID))
		}
		successor := slices.ContainsFunc(all, func(b AuthorityOut) bool {
			return b.Role == a.Role && b.Status == Standby && b.NotAfter.After(a.NotAfter)
		})
		end := a.NotAfter.Format(time.DateOnly)
		switch {
		case a.Status == Retiring: // its successor signs already
		case a.Alarm == alarmOver:
			out = append(out, fmt.Sprintf("%s has ended on %s: nothing can be signed by it.", a.ID, end))
		case a.Alarm == alarmLeaf:
			out = append(out, fmt.Sprintf("%s ends on %s: what it would sign now would outlive it.", a.ID, end))
		case a.Alarm == alarmSoon && !successor:
			out = append(out, fmt.Sprintf("%s ends on %s and has no successor. Make one: openthings ca request.", a.ID, end))
		case a.Alarm == alarmSoon:
			out = append(out, fmt.Sprintf("%s ends on %s; its successor stands by.", a.ID, end))
		}
	}
	return out
}
