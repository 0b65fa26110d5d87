// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// Targets are the house's own limits. They only ever tighten the law's; 0 is the default.
type Targets struct {
	AssessmentHours   int `json:"assessment_hours" minimum:"0" doc:"After a signal came in: a person has decided"`
	EarlyWarningHours int `json:"early_warning_hours" minimum:"0" doc:"After T0"`
	NotificationHours int `json:"notification_hours" minimum:"0" doc:"After T0"`
	FinalDays         int `json:"final_days" minimum:"0" doc:"After the anchor of the final report"`
	UsersHours        int `json:"users_hours" minimum:"0" doc:"After T0: impacted users are informed"`
}

// DefaultTargets leave half a day for what goes wrong at the end.
var DefaultTargets = Targets{AssessmentHours: 8, EarlyWarningHours: 12, NotificationHours: 60, FinalDays: 10, UsersHours: 24}

// limit is how loose one target may be.
type limit struct {
	Name, Label, Unit, Rule string
	Most                    int
	of                      func(*Targets) *int
}

// Ref is where the limit comes from, in words.
func (l limit) Ref() string {
	r, _ := law.Get(l.Rule)
	return r.Ref
}

// limits are the loosest targets. For the assessment and for users the law names no hours: "immediate" and "in a timely
// manner" are read as a day at most.
var limits = []limit{
	{"assessment_hours", "Decide about a signal", "hours after it came in", "guidance.213", 24, func(t *Targets) *int { return &t.AssessmentHours }},
	{"early_warning_hours", "Early warning", "hours after T0", "cra.14.2.a", 24, func(t *Targets) *int { return &t.EarlyWarningHours }},
	{"notification_hours", "72-hour notification", "hours after T0", "cra.14.2.b", 72, func(t *Targets) *int { return &t.NotificationHours }},
	{"final_days", "Final report", "days after its anchor", "cra.14.2.c", 14, func(t *Targets) *int { return &t.FinalDays }},
	{"users_hours", "Inform impacted users", "hours after T0", "cra.14.8", 24, func(t *Targets) *int { return &t.UsersHours }},
}

// Check refuses a target that is looser than its rule allows, by the rule's name. Nothing is ever loosened silently.
func (t Targets) Check() error {
	for _, l := range limits {
		switch v := *l.of(&t); {
		case v < 0:
			return problem.Invalid("%s: a target cannot be negative.", l.Label).At(l.Name)
		case v > l.Most:
			return problem.Forbidden(l.Rule, "%s: at most %d %s (%s). A target may only be tighter.", l.Label, l.Most, l.Unit, l.Ref()).At(l.Name)
		}
	}
	return nil
}

// filled puts the defaults in place of what is not set.
func (t Targets) filled() Targets {
	d := DefaultTargets
	for _, l := range limits {
		if *l.of(&t) == 0 {
			*l.of(&t) = *l.of(&d)
		}
	}
	return t
}

func hoursOf(n int) time.Duration { return time.Duration(n) * time.Hour }

// targets reads the limits of a tenant, with the defaults filled in.
func targets(tx *store.Tx, tenant string) (t Targets, err error) {
	var data string
	err = tx.QueryRow(`SELECT data FROM respond_targets WHERE tenant = $1`, tenant).Scan(&data)
	switch {
	case errors.Is(err, store.ErrNoRows):
		return t.filled(), nil
	case err != nil:
		return t, err
	}
	if err := json.Unmarshal([]byte(data), &t); err != nil {
		return t, fmt.Errorf("targets: %w", err)
	}
	return t.filled(), nil
}

// Targets reads the limits of the caller's tenant, with the defaults filled in.
func (s *Service) Targets(ctx context.Context) (t Targets, err error) {
	a, err := who(ctx, tenant.CaseRead, "")
	if err != nil {
		return t, err
	}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error { t, err = targets(tx, a.Tenant); return err })
	return t, err
}

// SetTargets stores the limits of the caller's tenant and sets the alarms anew of whatever runs. A value that is looser than
// the law's is refused.
func (s *Service) SetTargets(ctx context.Context, t Targets) error {
	a, err := person(ctx, tenant.CaseDeclare, "")
	if err != nil {
		return err
	}
	if err := t.Check(); err != nil {
		return err
	}
	data, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("targets: %w", err)
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO respond_targets(tenant, data, updated, actor) VALUES ($1, $2, $3, $4)
			ON CONFLICT (tenant) DO UPDATE SET data = excluded.data, updated = excluded.updated, actor = excluded.actor`,
			a.Tenant, string(data), store.Millis(s.now()), a.ID)
		if err != nil {
			return err
		}
		if err := audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "targets.set", Subject: a.Tenant, Data: t}); err != nil {
			return err
		}
		return s.armAll(tx, a.Tenant)
	})
}
