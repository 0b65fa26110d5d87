// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"html/template"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

const (
	panelRows = 10
	panelLook = time.Second // between two looks of a page that stays open
)

// panel renders the newest commands of a device, whole for a page and by parts for one that stays open.
type panel struct {
	blocks func(block string, data any) template.HTML
	names  func(context.Context) *console.Names
}

func newPanel(c *console.Console) panel {
	return panel{c.Blocks(pagesFS, "pages/commands.html"), c.Names}
}

// row is a command with its way so far.
type row struct {
	Command
	Title string // as declared, or its name
	By    template.HTML
	Way   []stop
	May   bool // be taken back
}

// stop is one state on the way of a command.
type stop struct {
	State State
	Tone  string    // done, current, bad for an end that was not meant, or empty: not reached
	At    time.Time // zero: not reached, or nobody knows when
	Clock string    // the time of day, to the second
}

// way lists the states on the way of a command: those that it has reached, and what is to come unless it has ended.
func way(c Command) (out []stop) {
	reached := 0
	for i, at := range []*time.Time{&c.Created, c.Sent, c.Received, c.Accepted} {
		st := stop{State: []State{Queued, Sent, Received, Accepted}[i]}
		if at != nil {
			st.At, st.Clock, reached = *at, at.UTC().Format(time.TimeOnly), i
		}
		out = append(out, st)
	}
	if c.State == Queued { // it may have been sent in vain
		reached = 0
	}
	if !c.State.Ended() {
		for i := range out {
			if i > reached {
				out[i].At, out[i].Clock = time.Time{}, ""
			}
		}
		out = append(out, stop{State: Done})
		for i := range reached {
			out[i].Tone = "done"
		}
		out[reached].Tone = "current"
		return out
	}
	end := stop{State: c.State, Tone: "bad"}
	if c.Ended != nil {
		end.At, end.Clock = *c.Ended, c.Ended.UTC().Format(time.TimeOnly)
	}
	if c.State == Done {
		end.Tone, reached = "done", len(out)-1 // what nobody told of was passed all the same
	}
	for i := range reached + 1 {
		out[i].Tone = "done"
	}
	return append(out[:reached+1], end)
}

// rows returns the newest commands of a device as whoever asks sees them.
func (s *Service) rows(ctx context.Context, p panel, d identity.Device, limit int) ([]row, error) {
	cs, err := s.List(ctx, d.Tenant, d.ID, "", limit)
	if err != nil {
		return nil, err
	}
	all, err := s.Catalogue(ctx, d.Tenant, d.Product)
	if err != nil {
		return nil, err
	}
	titles := map[string]string{wire.CommandNotice: noticeKind.Title}
	for _, k := range all {
		titles[k.Name] = k.Title
	}
	who, _ := tenant.ActorFrom(ctx)
	may, names := tenant.Can(who, tenant.CommandSend, thingOf(d)), p.names(ctx)
	rows := make([]row, 0, len(cs))
	for _, c := range cs {
		title := titles[c.Name]
		if title == "" {
			title = c.Name
		}
		rows = append(rows, row{Command: c, Title: title, By: names.Of(c.Actor), Way: way(c), May: may && c.State == Queued && reserved[c.Name] == ""})
	}
	return rows, nil
}

// follow sends what changes among the newest commands of a device after the one that the page knows as the newest: a
// command's parts when it moves on, so that what a person has opened stays open, and the whole list when there is another
// command.
func (s *Service) follow(ctx context.Context, p panel, device, newest string, send func(event, html string)) {
	shown, states := map[string]template.HTML{}, map[string]State{}
	for {
		d, err := s.cfg.Identity.Visible(ctx, tenant.DeviceRead, device)
		if err != nil {
			return // the page says so when it is loaded anew
		}
		rows, err := s.rows(ctx, p, d, panelRows)
		if err != nil {
			return
		}
		whole := len(rows) > 0 && rows[0].ID != newest
		if whole {
			newest = rows[0].ID
			send("commands", string(p.blocks("list", map[string]any{"Commands": rows})))
		}
		for _, r := range rows {
			// What a row holds comes before its badge: who sees the new state sees all of it.
			for _, part := range [...]struct{ id, block string }{{r.ID + "-act", "act"}, {r.ID + "-more", "more"}, {r.ID, "head"}} {
				html := p.blocks(part.block, r)
				if !whole && html != shown[part.id] {
					send(part.id, string(html))
				}
				shown[part.id] = html
			}
			if before, known := states[r.ID]; known && before != r.State {
				send("commands-said", htmlEscape(r.Title+" is "+string(r.State)))
			}
			states[r.ID] = r.State
		}
		t := s.cfg.Clock.NewTimer(panelLook)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}
