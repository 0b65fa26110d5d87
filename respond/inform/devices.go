// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/openthings-platform/openthings/command"
	"github.com/openthings-platform/openthings/wire"
)

// deviceLife is how long a device has to come for its notice.
const deviceLife = 30 * 24 * time.Hour

// Reach is how far a campaign has come on devices.
type Reach struct {
	Jobs []string `json:"jobs" doc:"That take it to devices"`
	command.NoticeReach
}

// deviceJobs are the jobs that take a campaign to the devices of its audience, ready to be added. The right to send the
// campaign is the right to tell its devices, so they are the platform's.
func (s *Service) deviceJobs(ctx context.Context, c Campaign, q Query) (jobs []command.Job, err error) {
	n := c.notice(c.ID)
	n.Replaces = c.Replaces
	args, err := json.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("notice: %w", err)
	}
	for _, filter := range q.filters() {
		j, err := s.cfg.Command.ReadyJob(ctx, command.Job{Tenant: c.tenant, Kind: command.KindCommand, Title: plain("Notice: "+c.Subject, 100), Filter: filter, Product: c.Product, Follow: true,
			Name: wire.CommandNotice, Args: args, Retries: command.NoticePolicy.Retries, NotAfter: s.now().Add(deviceLife), Actor: "system"})
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, j)
	}
	return jobs, nil
}

// reach counts what devices said of the notice.
func (s *Service) reach(ctx context.Context, c Campaign, jobs []string) (r Reach, err error) {
	r.Jobs = jobs
	if s.cfg.Command == nil || len(jobs) == 0 {
		return r, nil
	}
	r.NoticeReach, err = s.cfg.Command.NoticeReach(ctx, c.tenant, c.ID)
	return r, err
}
