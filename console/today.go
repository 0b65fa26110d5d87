// SPDX-License-Identifier: AGPL-3.0-only

package console

import (
	"html/template"
	"net/http"
)

type todayData struct {
	Slot  template.HTML
	Steps []stepState
	Open  int
}

type stepState struct {
	Step
	Finished bool
	Next     bool // the first that is not done
}

// today registers the first page: what needs the visitor, and until the circle has turned once the way round it.
func (c *Console) today() {
	c.Page(Page{Path: "/", Title: "Today", Menu: "Today", Verb: "device.read", FS: kitFS, Template: "kit/today.html", Load: func(r *http.Request) (any, error) {
		d := todayData{Slot: c.Slot("today").Render(r, "")}
		for _, s := range c.steps {
			done, err := s.Done(r.Context())
			if err != nil { // the rest of the day still shows
				c.logProblem(r, err)
			}
			d.Steps = append(d.Steps, stepState{Step: s, Finished: done, Next: !done && d.Open == 0})
			if !done {
				d.Open++
			}
		}
		return d, nil
	}})
}
