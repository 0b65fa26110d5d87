// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/openthings-platform/openthings/agent/keys"
	"github.com/openthings-platform/openthings/wire"
)

// chore is what a connected device does once after each start and then once a day.
const chore = 24 * time.Hour

// chores looks at the time, at the trust bundle, at the end of support and at the device itself, as cred, while the session lasts.
func (a *agent) chores(ctx context.Context, cred *credential) {
	for n := 0; ; {
		wait := chore
		if since := a.Clock.Now().Sub(a.chored); a.chored.IsZero() || since < 0 || since >= chore {
			if err := a.choresOnce(ctx, cred); err != nil {
				if ctx.Err() != nil {
					return
				}
				wait = a.pause(min(n+busy, quiet), err)
				a.Log.Info("the daily look at the platform", "error", err, "again_in", wait)
				n++
			} else {
				a.chored, n = a.Clock.Now(), 0
			}
		} else {
			wait -= since
		}
		if a.sleep(ctx, wait) != nil {
			return
		}
	}
}

func (a *agent) choresOnce(ctx context.Context, cred *credential) error {
	if a.record().Wiping != "" {
		return nil
	}
	if err := optional(a.askTime(ctx, a.client(cred))); err != nil {
		return err
	}
	nudge(a.timely)
	steps, err := a.follow(ctx, a.client(cred))
	if err != nil {
		return err
	}
	if steps > 0 { // the platform counts who has it
		if err := a.publish(ctx, wire.TopicInv, a.inventory()); err != nil {
			return err
		}
	}
	return errors.Join(a.askSupport(ctx, cred), a.reportBaseline(ctx, cred))
}

// optional forgives a platform that has no such route.
func optional(err error) error {
	var status *statusError
	if errors.As(err, &status) && status.status == http.StatusNotFound {
		return nil
	}
	return err
}

// reportBaseline tells the platform how the device is set up.
func (a *agent) reportBaseline(ctx context.Context, cred *credential) error {
	r := a.Probe.Report(ctx, rootOf(a.keys))
	a.baselineChecked(r)
	r.At, r.Boot = a.stamp(), a.record().Boot
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	b, err := a.do(ctx, cred, "POST", "/d/1/baseline", "application/json", body, 64<<10)
	if err != nil {
		return optional(err)
	}
	var answer wire.BaselineAnswer
	if err := json.Unmarshal(b, &answer); err != nil {
		return fmt.Errorf("the platform's answer to the baseline report: %w", err)
	}
	if !answer.OK {
		a.Log.Warn("this device is not as its product's baseline wants it", "baseline", answer.Version, "failed", answer.Failed)
	}
	return nil
}

// rootOf is what the report calls the device's key store.
func rootOf(s keys.Store) string {
	switch s.Kind() {
	case keys.KindTPM:
		return wire.RootTPM
	case keys.KindToken:
		return wire.RootElement
	}
	return wire.RootNone
}

// introduction is how often a device that waits to be let in tells how it is set up.
const introduction = time.Hour

// beforeEnrolment tells what the platform may want to know before it lets the device in.
func (a *agent) beforeEnrolment(ctx context.Context) error {
	since := a.Clock.Now().Sub(a.introduced)
	if !a.introduced.IsZero() && since >= 0 && since < introduction {
		return nil
	}
	if err := a.reportBaseline(ctx, a.idevid); err != nil {
		return err
	}
	a.introduced = a.Clock.Now()
	return nil
}

// Rules of the platform that a device can answer by telling once more how it is set up.
const (
	ruleBaseline = "enroll.baseline"
	ruleGrade    = "enroll.grade"
)

// afterEnrolment draws the conclusion from a refusal: what stood against the device may have been mended since it told.
func (a *agent) afterEnrolment(err error) {
	var status *statusError
	if errors.As(err, &status) && (status.rule == ruleBaseline || status.rule == ruleGrade) {
		a.introduced, a.proven = time.Time{}, nil
	}
}
