// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/tenant"
)

// packView is a pack on its page.
type packView struct {
	Pack
	Title       string
	Status      string
	Events      int64 // seen by the reader
	Open        bool  // it can still be changed and submitted
	Sent        []sentView
	Coordinator law.Coordinator
	AsOf        law.Date
	Confirmed   bool
	Now         string
	Names       *console.Names
	Typed       url.Values
}

// Heading is the page's title.
func (v packView) Heading() string {
	if v.Drill {
		return "DRILL: " + v.Stage.Name() + ", " + v.Title
	}
	return v.Stage.Name() + ", " + v.Title
}

// sentView is a submission that a person says was made.
type sentView struct {
	Seq      int64
	Stage    Stage
	At       time.Time
	Actor    string
	Pack     string
	State    string // waits for its receipt, accepted, failed
	Waits    bool
	Files    []Event
	Receipt  string
	Confirms string // who confirmed it
}

// Href is where the file of an event is downloaded.
func (v packView) Href(file string) string { return receiptPath(v.Case, file) }

// Was is what the form remembers of the value that it showed, to tell what the reader changed.
func (f PackField) Was() string {
	sum := sha256.Sum256([]byte(f.Value))
	return hex.EncodeToString(sum[:6])
}

// Rows is how high a text of several lines is shown.
func (f PackField) Rows() int {
	return min(14, max(2, strings.Count(f.Value, "\n")+1+f.Used/90))
}

// NeedName is the need in words.
func (a Ask) NeedName() string { return needName(a.Need) }

func needName(n law.Need) string {
	return map[law.Need]string{law.Required: "required", law.IfKnown: "required if known", law.AsAvailable: "as available", law.Carried: "carried over", law.Optional: "optional",
		law.Absent: "not asked at this stage"}[n]
}

// Who is the profile in words.
func (a Ask) Who() string {
	if a.Ref != "" {
		return a.Ref
	}
	return "Reporting platform " + strings.TrimPrefix(a.Profile, law.ProfileSRP+"@")
}

func (s *Service) packPages(c *console.Console) {
	read, write, declare := string(tenant.CaseRead), string(tenant.CaseWrite), string(tenant.CaseDeclare)
	c.Page(console.Page{Path: "/cases/{id}/pack", Title: "Submission pack", Menu: "Cases", Verb: read, FS: pagesFS, Template: "pages/pack.html",
		Load: func(r *http.Request) (any, error) {
			v, err := s.packView(r)
			v.Names = c.Names(r.Context())
			return v, err
		}})
	c.Form("/cases/{id}/fields", write, s.fieldsForm)
	c.Form("/cases/{id}/submissions", declare, s.submissionForm)
	c.Upload("/cases/{id}/receipts", declare, MaxReceipt, func(r *http.Request, file io.ReaderAt, size int64) (string, error) {
		b, err := readReceipt(io.NewSectionReader(file, 0, size))
		if err != nil {
			return "", err
		}
		attempt, _ := strconv.ParseInt(r.PostFormValue("attempt"), 10, 64) // 0 names no attempt and is refused
		name := "receipt"
		if hs := r.MultipartForm.File["file"]; len(hs) > 0 {
			name = hs[0].Filename
		}
		if _, err = s.StoreReceipt(r.Context(), r.PathValue("id"), attempt, name, b); err == nil {
			console.Say(r, "The receipt is kept, sealed. A second person compares and confirms it.")
		}
		return packPath(r), err
	})
	c.Page(console.Page{Path: "/coordinator", Title: "Coordinator CSIRT", Menu: "Cases", Verb: read, FS: pagesFS, Template: "pages/coordinator.html", Load: s.coordinatorPage})
	c.Form("/coordinator", declare, func(r *http.Request) (string, error) {
		got, err := s.ConfirmCoordinator(r.Context(), seatOf(r.PostForm), r.PostFormValue("state"), r.PostFormValue("reason"))
		if err == nil {
			console.Say(r, "New cases name "+got.CSIRT.Name+" as their coordinator from now on.")
		}
		return "/coordinator", err
	})
	c.Step(console.Step{Order: 72, Title: "Find your coordinator", Text: "CRA Art. 14(7) says whose CSIRT your reports go to; a report to the wrong one may not count.", Href: "/coordinator", Button: "Answer the questions",
		Done: func(ctx context.Context) (bool, error) {
			_, ok, err := s.Coordinator(ctx)
			return ok, err
		}})
}

func packPath(r *http.Request) string {
	p := "/cases/" + r.PathValue("id") + "/pack"
	if st := r.PostFormValue("stage"); st != "" {
		p += "?stage=" + url.QueryEscape(st)
	}
	return p
}

func (s *Service) packView(r *http.Request) (packView, error) {
	ctx := r.Context()
	c, err := s.Case(ctx, r.PathValue("id"))
	if err != nil {
		return packView{}, err
	}
	t := tenant.MustTenant(ctx)
	p, err := s.pack(ctx, t, c, Stage(r.URL.Query().Get("stage")))
	if err != nil {
		return packView{}, err
	}
	confirmed, ok, err := s.coordinator(ctx, t)
	if err != nil {
		return packView{}, err
	}
	v := packView{Pack: p, Title: c.Title, Status: c.Status, Events: c.state.Events, Open: !c.state.Closed && !c.state.has(Final), Sent: sent(c), AsOf: law.AllCoordinators().AsOf,
		Confirmed: ok && confirmed.State == c.Coordinator, Now: s.now().Format(time.RFC3339), Typed: console.Typed(r)}
	v.Coordinator, _ = law.CoordinatorOf(c.Coordinator)
	return v, nil
}

// sent lists the submissions of a case, the newest first.
func sent(c Case) []sentView {
	files := map[int64][]Event{}
	ended := map[int64]Event{}
	for _, e := range c.Events {
		switch e.Kind {
		case ReceiptStored:
			files[e.Data.Attempt] = append(files[e.Data.Attempt], e)
		case SubmissionAccepted, SubmissionFailed:
			ended[e.Data.Attempt] = e
		}
	}
	var out []sentView
	for _, e := range slices.Backward(c.Events) {
		if e.Kind != SubmissionAttempted {
			continue
		}
		v := sentView{Seq: e.Seq, Stage: e.Data.Stage, At: e.Data.At, Actor: e.Actor, Pack: e.Data.Pack, Files: files[e.Seq], State: "waits for a second person", Waits: true}
		if end, ok := ended[e.Seq]; ok {
			v.State, v.Waits, v.Receipt, v.Confirms = "accepted", false, end.Data.Receipt, end.Actor
			if end.Kind == SubmissionFailed {
				v.State = "failed"
			}
		}
		out = append(out, v)
	}
	return out
}

// fieldsForm saves what the reader changed: a value that is still the one that the form showed is left alone.
func (s *Service) fieldsForm(r *http.Request) (string, error) {
	ctx, id := r.Context(), r.PathValue("id")
	if reset := r.PostFormValue("reset"); reset != "" {
		_, err := s.Append(ctx, id, FieldsFilled, Data{Reset: []string{reset}})
		return packPath(r), err
	}
	p, err := s.Pack(ctx, id, Stage(r.PostFormValue("stage")))
	if err != nil {
		return "", err
	}
	d := Data{Fields: map[string]string{}}
	d.Seen, _ = strconv.ParseInt(r.PostFormValue("seen"), 10, 64) // without it, what others wrote is overwritten
	for _, f := range p.Fields {
		posted, ok := r.PostForm["field."+f.ID]
		if !ok || f.Form == law.Fact {
			continue
		}
		value := clean(posted[0])
		if (PackField{Value: value}).Was() == r.PostFormValue("was."+f.ID) {
			continue
		}
		if f.Edited && value == cmp.Or(f.Draft, f.Value) {
			d.Reset = append(d.Reset, f.ID)
		} else {
			d.Fields[f.ID] = value
		}
	}
	if len(d.Fields)+len(d.Reset) == 0 {
		console.Say(r, "Nothing was changed.")
		return packPath(r), nil
	}
	if _, err := s.Append(ctx, id, FieldsFilled, d); err != nil {
		return "", err
	}
	console.Say(r, "Saved.")
	return packPath(r), nil
}

// submissionForm records that a report was submitted, that its receipt is right, or that it failed.
func (s *Service) submissionForm(r *http.Request) (string, error) {
	at, err := console.Instant(r, "at")
	if err != nil {
		return "", err
	}
	attempt, _ := strconv.ParseInt(r.PostFormValue("attempt"), 10, 64)
	kind := EventKind(r.PostFormValue("kind"))
	d := Data{Note: r.PostFormValue("note")}
	switch kind {
	case SubmissionAttempted:
		d.At, d.Stage, d.Deviation = at, Stage(r.PostFormValue("stage")), strings.TrimSpace(r.PostFormValue("deviation"))
	case SubmissionAccepted:
		d.Attempt, d.Receipt = attempt, strings.TrimSpace(r.PostFormValue("receipt"))
	default:
		kind, d.Attempt = SubmissionFailed, attempt
	}
	_, err = s.Append(r.Context(), r.PathValue("id"), kind, d)
	return packPath(r), err
}

// coordinatorView is the finder: questions, the path that the answers take, and what is confirmed.
type coordinatorView struct {
	Seat
	Asked     bool // the questions were answered in this request
	Steps     []Step
	Found     string
	CSIRT     law.Coordinator
	Confirmed *Confirmed
	States    []console.Option
	List      law.Coordinators
	Typed     url.Values
}

// StateName is a Member State in words.
func (coordinatorView) StateName(code string) string {
	m, _ := law.State(code)
	return m.Name
}

func (s *Service) coordinatorPage(r *http.Request) (any, error) {
	q := r.URL.Query()
	v := coordinatorView{Seat: seatOf(q), Asked: q.Has("in_union"), States: stateOptions("Cannot be determined"), List: law.AllCoordinators(), Typed: console.Typed(r)}
	got, ok, err := s.Coordinator(r.Context())
	if err != nil {
		return nil, err
	}
	if ok {
		v.Confirmed = &got
		if !v.Asked {
			v.Seat = got.Seat
		}
	}
	if err := v.Seat.check(); err != nil {
		return nil, err
	}
	v.Steps, v.Found = v.Path()
	v.CSIRT, _ = law.CoordinatorOf(v.Found)
	return v, nil
}

func seatOf(v url.Values) Seat {
	return Seat{InUnion: v.Get("in_union") == "yes", Decisions: v.Get("decisions"), Employees: v.Get("employees"), Representative: v.Get("representative"), Importer: v.Get("importer"),
		Distributor: v.Get("distributor"), Users: v.Get("users")}
}

// stateOptions are the Member States to choose from, with none as the first word.
func stateOptions(none string) []console.Option {
	out := []console.Option{{Word: none}}
	for _, m := range law.MemberStates() {
		out = append(out, console.Option{Value: m.Code, Word: m.Name})
	}
	return out
}

// awareDraft is what the form that declares awareness knows already, so that a person adds title and summary.
type awareDraft struct {
	Coordinator  string
	Confirmed    bool // a person confirmed it before
	MemberStates string
	Versions     string // from findings; empty: a person names them
	Countries    Countries
}

func (s *Service) awareDraft(ctx context.Context, sig Signal) (awareDraft, error) {
	t := tenant.MustTenant(ctx)
	c, ok, err := s.coordinator(ctx, t)
	if err != nil {
		return awareDraft{}, err
	}
	if sig.Product == "" {
		return awareDraft{Coordinator: c.State, Confirmed: ok}, nil
	}
	k, err := s.known(ctx, t, Case{Product: sig.Product, Ref: sig.Ref})
	if err != nil {
		return awareDraft{}, err
	}
	return awareDraft{Coordinator: c.State, Confirmed: ok, MemberStates: strings.Join(k.declared, ", "), Versions: compress(k.versions, k.all, versionRoom),
		Countries: compare(k.declared, k.declared, k.seen)}, nil
}

// fieldsOf reads the fields of a report that a form carries.
func fieldsOf(r *http.Request) map[string]string {
	out := map[string]string{}
	for name, values := range r.PostForm {
		if id, ok := strings.CutPrefix(name, "field."); ok && clean(values[0]) != "" {
			out[id] = values[0]
		}
	}
	return out
}
