// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// Proof is how and when users were told: the campaign as it was sent, who was meant, and every delivery. It names nobody.
type Proof struct {
	Campaign   Campaign         `json:"campaign"`
	At         time.Time        `json:"at" doc:"When this was put together; deliveries go on until the campaign is finished"`
	Texts      []TextProof      `json:"texts"`
	Recipients int64            `json:"recipients"`
	States     map[string]int64 `json:"states" doc:"Deliveries by state"`
	Roles      map[string]int64 `json:"roles"`
	Channels   map[string]int64 `json:"channels"`
	Languages  map[string]int64 `json:"languages"`
	Devices    Reach            `json:"devices"`
	Deliveries []Delivery       `json:"deliveries"`
}

// TextProof is a text with its digest.
type TextProof struct {
	Language string `json:"language"`
	SHA256   string `json:"sha256" doc:"Of title, line feed, text"`
	Text
}

// Proof puts together what proves that users were told.
func (s *Service) Proof(ctx context.Context, id string) (Proof, error) {
	p, err := s.figures(ctx, id)
	if err != nil {
		return p, err
	}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		p.Deliveries, err = deliveries(tx, p.Campaign.tenant, id, "", "", maxContacts+1)
		return err
	})
	return p, err
}

// figures are a proof without its deliveries.
func (s *Service) figures(ctx context.Context, id string) (p Proof, err error) {
	c, _, err := s.campaign(ctx, tenant.CaseRead, id)
	if err != nil {
		return p, err
	}
	if c.State != Sent {
		return p, problem.Conflict("The campaign was not sent: there is nothing to prove.")
	}
	p = Proof{Campaign: c, At: s.now(), Deliveries: []Delivery{}}
	for _, lang := range c.Languages() {
		p.Texts = append(p.Texts, TextProof{lang, c.Texts[lang].digest(), c.Texts[lang]})
	}
	var jobs []string
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		for _, x := range []struct {
			column string
			to     *map[string]int64
		}{{"state", &p.States}, {"role", &p.Roles}, {"channel", &p.Channels}, {"lang", &p.Languages}} {
			if *x.to, err = tally(tx, c.tenant, id, x.column); err != nil {
				return err
			}
		}
		p.Recipients = sum(p.States)
		jobs, err = jobsOf(tx, c.tenant, id)
		return err
	})
	if err != nil {
		return p, err
	}
	p.Devices, err = s.reach(ctx, c, jobs)
	return p, err
}

// WriteCSV writes the deliveries as a table.
func (p Proof) WriteCSV(to io.Writer) error {
	w := csv.NewWriter(to)
	_ = w.Write([]string{"delivery", "address_hash", "role", "channel", "language", "state", "attempts", "ended", "answer", "read", "bounced", "reason"}) // Error says what failed
	for _, d := range p.Deliveries {
		_ = w.Write([]string{d.ID, d.Address, d.Role, d.Channel, d.Language, string(d.State), fmt.Sprint(d.Attempts), instant(d.Ended), inert(d.Answer), instant(d.Read), instant(d.Bounced), inert(d.Reason)})
	}
	w.Flush()
	return w.Error()
}

func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// inert keeps a spreadsheet from taking what a stranger's server said for a formula.
func inert(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}
