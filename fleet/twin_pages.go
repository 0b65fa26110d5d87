// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

const pageChanges = 10

// twinPart is the device's state on its page.
type twinPart struct {
	Twin
	Rows     []twinRow
	Changes  []Change
	MayWrite bool
	Document string // all that is desired, for those who write JSON
	Added    url.Values
	Opened   bool // a form was refused: it stays open
	Names    *console.Names
}

// twinRow is one value with its field.
type twinRow struct {
	Difference
	State string // in a word
	Field string // name of the form's field
	Value string // what the field holds: what was typed, if that was refused
	Typed bool
}

const (
	asDesired = "as desired"
	notYet    = "not yet"
	cannot    = "refused"
)

// field names: a value's own, that of a new one, and the version that the visitor saw.
const fieldPrefix = "v:"

func (s *Service) loadTwin(r *http.Request, names *console.Names, device string) (any, error) {
	ctx := r.Context()
	d, err := s.cfg.Identity.Visible(ctx, tenant.DeviceRead, device)
	if err != nil {
		return nil, err
	}
	t, err := s.openTwin(ctx, d.Tenant, d.ID)
	if err != nil {
		return nil, err
	}
	who, _ := tenant.ActorFrom(ctx)
	p := twinPart{Twin: t.out(), Names: names, Added: url.Values{}}
	p.MayWrite = tenant.Can(who, tenant.TwinWrite, tenant.Thing{Tenant: d.Tenant, Product: d.Product, Solution: d.Solution}) && !d.State.Barred() && d.State != identity.Decommissioning
	if t.version == 0 && t.told == 0 && !p.MayWrite {
		return nil, nil
	}
	typed := console.Typed(r)
	ours := typed.Has("seen") // another form of the page may have been refused
	p.Opened = ours
	for _, x := range differences(t.desired, t.reported) {
		row := twinRow{Difference: x, Field: fieldPrefix + x.Pointer, Value: words(x.Desired)}
		switch {
		case x.Desired == "":
		case !x.Differs:
			row.State = asDesired
		case t.failed == t.version:
			row.State = cannot
		default:
			row.State = notYet
		}
		if ours && typed.Has(row.Field) && typed.Get(row.Field) != row.Value {
			row.Value, row.Typed = typed.Get(row.Field), true
		}
		p.Rows = append(p.Rows, row)
	}
	if p.Document = indented(t.desired.Bytes()); ours {
		p.Added = typed
		if typed.Has("document") {
			p.Document = typed.Get("document")
		}
	}
	p.Changes, err = s.TwinChanges(ctx, d.Tenant, d.ID, 0, pageChanges)
	return p, err
}

func indented(doc []byte) string {
	var b bytes.Buffer
	if json.Indent(&b, doc, "", "  ") != nil {
		return string(doc)
	}
	return b.String()
}

// words is a JSON value as people write it: a text without its quotation marks.
func words(literal string) string {
	var text string
	if json.Unmarshal([]byte(literal), &text) == nil {
		return text
	}
	return literal
}

// literal is what people wrote as a JSON value: a text where a text was, otherwise whatever it can be read as.
func literal(written, was string) any {
	if strings.HasPrefix(was, `"`) {
		return written
	}
	d := json.NewDecoder(strings.NewReader(written))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil || d.More() || v == nil {
		return written
	}
	return v
}

// twinPages mounts the device's state and the two forms that change it.
func (s *Service) twinPages(c *console.Console) {
	c.Fragment("device", console.Fragment{Order: 58, Title: "State: desired and reported", Verb: string(tenant.DeviceRead), FS: pagesFS, Template: "pages/twin.html",
		Load: func(r *http.Request, device string) (any, error) {
			return s.loadTwin(r, c.Names(r.Context()), device)
		}})
	form := func(path string, change func(r *http.Request, t Twin) (doc wire.Doc, whole bool, err error)) {
		// After a refusal the page stands under the form's own address: whoever loads that anew gets the device.
		c.Handle("GET /devices/{id}/"+path, string(tenant.DeviceRead), func(w http.ResponseWriter, r *http.Request) error {
			http.Redirect(w, r, "/devices/"+url.PathEscape(r.PathValue("id")), http.StatusSeeOther)
			return nil
		})
		c.Form("/devices/{id}/"+path, string(tenant.TwinWrite), func(r *http.Request) (string, error) {
			ctx, id := r.Context(), r.PathValue("id")
			d, err := s.cfg.Identity.Visible(ctx, tenant.TwinWrite, id)
			if err != nil {
				return "", err
			}
			t, err := s.Twin(ctx, d.Tenant, d.ID)
			if err != nil {
				return "", err
			}
			if r.FormValue("seen") != strconv.FormatInt(t.DesiredVersion, 10) {
				return "", problem.Precondition("Somebody else has changed what is desired of this device while you were writing.").
					Hint("Below, what is desired now stands beside what you wrote. Save again to have yours.")
			}
			doc, whole, err := change(r, t)
			if err != nil {
				return "", err
			}
			next, err := s.desire(ctx, id, api.IfMatch{IfMatch: t.etag()}, doc, whole)
			switch {
			case err != nil:
				return "", err
			case next.DesiredVersion == t.DesiredVersion:
				console.Say(r, "Nothing was changed.")
			default:
				console.Say(r, "The device is told.")
			}
			return "/devices/" + id, nil
		})
	}
	form("twin", func(r *http.Request, t Twin) (wire.Doc, bool, error) {
		patch, err := patchOf(r.PostForm, t)
		return patch, false, err
	})
	form("twin/document", func(r *http.Request, _ Twin) (wire.Doc, bool, error) {
		doc, err := wire.ParseDoc([]byte(r.FormValue("document")))
		if err != nil {
			return nil, false, problem.Invalid("What you wrote is %s.", err).At("document")
		}
		return doc, true, nil
	})
}

// patchOf reads the fields of the form: those that changed, and the new value if there is one. An empty field removes its
// value.
func patchOf(form url.Values, t Twin) (wire.Doc, error) {
	desired, err := wire.ParseDoc(t.Desired)
	if err != nil {
		return nil, err
	}
	patch := wire.Doc{}
	for _, x := range flatten(desired) {
		written, ok := form[fieldPrefix+x.pointer]
		switch {
		case !ok || written[0] == words(x.json):
		case strings.TrimSpace(written[0]) == "":
			put(patch, x.parts, nil)
		default:
			put(patch, x.parts, literal(written[0], x.json))
		}
	}
	name := strings.TrimSpace(form.Get("name"))
	if name == "" {
		return patch, nil
	}
	parts := strings.Split(name, ".")
	for _, p := range parts {
		if p == "" {
			return nil, problem.Invalid("A setting is named like light.level.").At("name")
		}
	}
	if strings.TrimSpace(form.Get("value")) == "" {
		return nil, problem.Invalid("%s needs a value.", name).At("value")
	}
	put(patch, parts, literal(form.Get("value"), ""))
	return patch, nil
}

// put sets the value at a path.
func put(doc wire.Doc, path []string, v any) {
	at := map[string]any(doc)
	for _, k := range path[:len(path)-1] {
		next, ok := at[k].(map[string]any)
		if !ok {
			next = map[string]any{}
			at[k] = next
		}
		at = next
	}
	at[path[len(path)-1]] = v
}
