// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"fmt"
	"time"

	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// Ready is one thing that must be there before the first 24 hours begin, and whether it is.
type Ready struct {
	Text string `json:"text"`
	Done bool   `json:"done"`
	Note string `json:"note,omitempty" doc:"What is there, or what is missing"`
	Href string `json:"-"`
}

// Readiness says whether a tenant could file today. It asks for nothing that needs a connected device.
type Readiness struct {
	Done  int     `json:"done"`
	Of    int     `json:"of"`
	Items []Ready `json:"items"`
}

// fewestFilers is how many people must be able to file: one may be on a mountain.
const fewestFilers = 2

// fileNote says who files next and who is the deputy, and who cannot.
func (s *Service) fileNote(ctx context.Context, filers []Filer, turn []string) string {
	note := fmt.Sprintf("%d said so.", len(filers))
	switch line := Line(filers, turn, nil); len(line) {
	case 0:
	case 1:
		note += " " + s.called(ctx, line[0].Person) + " files; there is no deputy."
	default:
		note += " " + s.called(ctx, line[0].Person) + " files next, " + s.called(ctx, line[1].Person) + " is the deputy."
	}
	for _, f := range filers {
		if why := f.Barred(nil); why != "" {
			note += " " + s.called(ctx, f.Person) + " " + why + "."
		}
	}
	return note + " ENISA advises to make the logins in advance, and to register the manufacturer only with the first report."
}

// Readiness lists what must be there, of this room and of those that Config.Ready asks.
func (s *Service) Readiness(ctx context.Context) (Readiness, error) {
	a, err := who(ctx, tenant.CaseRead, "")
	if err != nil {
		return Readiness{}, err
	}
	filers, err := s.filers(ctx, a.Tenant)
	if err != nil {
		return Readiness{}, err
	}
	c, confirmed, err := s.coordinator(ctx, a.Tenant)
	if err != nil {
		return Readiness{}, err
	}
	var drilled time.Time
	if err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) { drilled, err = lastDrill(tx, a.Tenant); return err }); err != nil {
		return Readiness{}, err
	}
	turn, err := s.turn(ctx)
	if err != nil {
		return Readiness{}, err
	}
	items := []Ready{
		{fmt.Sprintf("%d people have an EU Login with a second factor and can file", fewestFilers), len(Line(filers, turn, nil)) >= fewestFilers, s.fileNote(ctx, filers, turn), "/readiness#filers"},
		{"The coordinator CSIRT is confirmed", confirmed, c.CSIRT.Name, "/coordinator"},
	}
	drill := Ready{"A drill came to a confirmed early warning within the last 90 days", !drilled.IsZero() && s.now().Sub(drilled) <= DrillEvery, "", "/drills"}
	if !drilled.IsZero() {
		drill.Note = "The last one ended on " + drilled.UTC().Format("2006-01-02") + "."
	}
	items = append(items, drill)
	for _, ask := range s.cfg.Ready {
		more, err := ask(ctx, a.Tenant)
		if err != nil {
			return Readiness{}, err
		}
		items = append(items, more...)
	}
	r := Readiness{Of: len(items), Items: items}
	for _, i := range items {
		if i.Done {
			r.Done++
		}
	}
	return r, nil
}
