// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// Report is a report as it is shown: its state and its timers, computed now. What the finder wrote is not in it.
type Report struct {
	ID            string       `json:"id"`
	Status        Status       `json:"status"`
	Sides         []Side       `json:"sides,omitempty"`
	Withheld      bool         `json:"withheld,omitempty" doc:"An embargo keeps what it says from you; only its existence and its timers are shown"`
	Subject       string       `json:"subject,omitempty"`
	Channel       string       `json:"channel,omitempty"`
	Cipher        string       `json:"cipher,omitempty"`
	Anonymous     bool         `json:"anonymous,omitempty"`
	Language      string       `json:"language,omitempty"`
	Product       string       `json:"product,omitempty"`
	ProductName   string       `json:"product_name,omitempty"`
	Exploited     string       `json:"exploited,omitempty"`
	Signal        string       `json:"signal,omitempty"`
	Verdict       Verdict      `json:"verdict,omitempty"`
	Of            string       `json:"of,omitempty"`
	Vulnerability string       `json:"vulnerability,omitempty"`
	Advisory      string       `json:"advisory,omitempty"`
	URL           string       `json:"url,omitempty"`
	Received      time.Time    `json:"received"`
	Policy        int64        `json:"policy"`
	Promise       Promise      `json:"promise"`
	Timers        []Timer      `json:"timers"`
	Next          *Timer       `json:"next,omitempty" doc:"The running timer that ends first"`
	Embargo       *Embargo     `json:"embargo,omitempty"`
	Tasks         []Task       `json:"tasks,omitempty"`
	Erased        time.Time    `json:"finder_erased,omitzero"`
	Attachments   []Attachment `json:"attachments,omitempty"`
	Events        []Event      `json:"events,omitempty"`
}

// show makes of a stored report what the person may see of it now.
func (s *Service) show(ctx context.Context, f file, person string) (Report, error) {
	st, now := f.state(), s.now()
	out := Report{ID: f.ID, Status: st.Status, Sides: st.Sides(now), Received: st.Received, Promise: st.Promise, Timers: Timers(st), Embargo: st.Embargo, Erased: st.Erased}
	if t, ok := Next(out.Timers); ok {
		out.Next = &t
	}
	if !st.May(person, now) {
		e := *st.Embargo
		e.People = nil
		out.Withheld, out.Embargo = true, &e
		return out, nil
	}
	p, err := s.cfg.Products.Get(ctx, f.Tenant, f.Product)
	if err != nil && !problem.Is(err, problem.KindNotFound) {
		return Report{}, err
	}
	a, err := s.cfg.Keys.Subject(ctx, s.cfg.DB, f.Tenant, f.ID)
	if err != nil {
		return Report{}, err
	}
	first := f.Rows[0].Data
	out.Channel, out.Cipher, out.Anonymous, out.Language, out.Policy = first.Channel, first.Cipher, first.Anonymous, first.Language, first.Policy
	out.Product, out.ProductName, out.Exploited, out.Signal = st.Product, p.Name, st.Exploited, st.Signal
	out.Verdict, out.Of, out.Vulnerability, out.Advisory, out.URL, out.Tasks = st.Verdict, st.Of, st.Vulnerability, st.Advisory, st.URL, st.Tasks
	for _, r := range f.Rows {
		r.Event.Note = note(a, f.ID, r)
		out.Events = append(out.Events, r.Event)
	}
	out.Subject = out.Events[0].Note
	return out, nil
}

// report reads one that the caller may do v to, embargo aside.
func (s *Service) report(ctx context.Context, v tenant.Verb, id string) (f file, a tenant.Actor, err error) {
	t := tenant.MustTenant(ctx)
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error { f, err = fileBy(tx, t, "id", id); return err })
	if err == nil {
		a, err = who(ctx, v, f.Product)
	}
	return f, a, err
}

// Report reads one report with its events. What the finder wrote is read with Open.
func (s *Service) Report(ctx context.Context, id string) (Report, error) {
	f, a, err := s.report(ctx, tenant.CaseRead, id)
	if err != nil {
		return Report{}, err
	}
	out, err := s.show(ctx, f, a.ID)
	if err != nil || out.Withheld {
		return out, err
	}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error { out.Attachments, err = attachmentsOf(tx, a.Tenant, id); return err })
	return out, err
}

// Reports lists reports without their events: the newest first, or the open ones by their next timer.
func (s *Service) Reports(ctx context.Context, open bool, after string, n int) ([]Report, error) {
	a, _ := tenant.ActorFrom(ctx)
	whole, products, _ := tenant.Scope(a, tenant.CaseRead)
	if !whole && len(products) == 0 {
		return nil, nil
	}
	where, args := list{After: after, Limit: n, Open: open, Whole: whole, Products: products}.where()
	var fs []file
	if err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) { fs, err = files(tx, a.Tenant, where, args...); return err }); err != nil {
		return nil, err
	}
	out := make([]Report, len(fs))
	for i, f := range fs {
		var err error
		if out[i], err = s.show(ctx, f, a.ID); err != nil {
			return nil, err
		}
		out[i].Events = nil
	}
	return out, nil
}

// Opened is what a finder sent at one time.
type Opened struct {
	Seq       int64     `json:"seq"`
	At        time.Time `json:"at"`
	Words     Words     `json:"words"`
	Cipher    string    `json:"cipher,omitempty"`
	Decrypted string    `json:"decrypted,omitempty" doc:"The text inside an encrypted message"`
	Problem   string    `json:"problem,omitempty" doc:"Why it could not be decrypted"`
}

// Reading is all that a finder wrote, and who they are, as far as it is known and not erased.
type Reading struct {
	Report string   `json:"report"`
	Finder *Finder  `json:"finder,omitempty" doc:"Absent once erased"`
	Sent   []Opened `json:"sent"`
}

// reader is who may read what a finder wrote: a person with the right to work on cases who is on the list of an embargo.
// That it happens is on record before anything is shown.
func (s *Service) reader(ctx context.Context, id, what string) (f file, a tenant.Actor, err error) {
	f, a, err = s.report(ctx, tenant.CaseWrite, id)
	switch st := f.state(); {
	case err != nil:
		return f, a, err
	case a.Kind != tenant.KindPerson:
		return f, a, problem.Forbidden("disclosure.person-only", "Only a person who signed in reads what a finder wrote.")
	case !st.May(a.ID, s.now()):
		return f, a, errEmbargo(st)
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		return audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "report.read", Subject: id, Data: map[string]any{"what": what}})
	})
	return f, a, err
}

// Open shows a person what the finder wrote; that it was read is on record.
func (s *Service) Open(ctx context.Context, id string) (Reading, error) {
	f, a, err := s.reader(ctx, id, "words")
	if err != nil {
		return Reading{}, err
	}
	key, err := s.cfg.Keys.Subject(ctx, s.cfg.DB, a.Tenant, id)
	if err != nil {
		return Reading{}, err
	}
	out := Reading{Report: id}
	for _, r := range f.Rows {
		if len(r.words) == 0 {
			continue
		}
		o := Opened{Seq: r.Seq, At: r.Recorded}
		if err := unlock(key, id, place(r.Seq, "words"), r.words, &o.Words); err != nil {
			return Reading{}, err
		}
		if o.Cipher = sniff([]byte(o.Words.Text)); o.Cipher != "" {
			plain, err := s.decrypt(ctx, a.Tenant, []byte(o.Words.Text), decryptedText)
			if o.Decrypted = string(plain); err != nil {
				o.Problem = problem.Of(err).Text
			}
		}
		out.Sent = append(out.Sent, o)
	}
	out.Finder, err = s.finder(ctx, a.Tenant, id)
	return out, err
}

// finder opens the envelope with the finder's identity; nil once it is erased.
func (s *Service) finder(ctx context.Context, t, id string) (*Finder, error) {
	var sealed []byte
	if err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) { sealed, err = finderOf(tx, t, id); return err }); err != nil {
		return nil, err
	}
	key, err := s.cfg.Keys.Subject(ctx, s.cfg.DB, t, finderKey(id))
	if errors.Is(err, seal.ErrDestroyed) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var f Finder
	return &f, unlock(key, id, "finder", sealed, &f)
}

// Attachment returns the bytes of an attachment; that it was read is on record. With plain, one that is encrypted to the
// tenant is decrypted.
func (s *Service) Attachment(ctx context.Context, id, attachment string, plain bool) ([]byte, error) {
	_, a, err := s.reader(ctx, id, attachment)
	if err != nil {
		return nil, err
	}
	var as []Attachment
	if err := s.cfg.DB.View(ctx, func(tx *store.Tx) error { as, err = attachmentsOf(tx, a.Tenant, id); return err }); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(as, func(x Attachment) bool { return x.ID == attachment })
	if i < 0 {
		return nil, problem.NotFound("There is no such attachment.")
	}
	in, err := s.cfg.Blobs.Open(ctx, as[i].digest)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	sealed, err := io.ReadAll(in)
	if err != nil {
		return nil, fmt.Errorf("attachment: %w", err)
	}
	key, err := s.cfg.Keys.Subject(ctx, s.cfg.DB, a.Tenant, id)
	if err != nil {
		return nil, err
	}
	b, err := key.Open(nil, nil, sealed, []byte(id+" "+attachment))
	if err != nil {
		return nil, fmt.Errorf("%w: %s", seal.ErrSealed, attachment)
	}
	if plain && sniff(b) != "" {
		return s.decrypt(ctx, a.Tenant, b, decryptedFile)
	}
	return b, nil
}

// declares are the events that need the right to declare; all others need the right to work on cases.
var declares = []EventKind{ReportPublished, ReportClosed, EmbargoSet, EmbargoEnded, DateMoved, FinderErased}

// Append adds what a person did to a report.
func (s *Service) Append(ctx context.Context, id string, k EventKind, note string, d Data) (Event, error) {
	verb := tenant.CaseWrite
	if slices.Contains(declares, k) {
		verb = tenant.CaseDeclare
	}
	f, a, err := s.report(ctx, verb, id)
	switch {
	case err != nil:
		return Event{}, err
	case a.Kind != tenant.KindPerson:
		return Event{}, problem.Forbidden("disclosure.person-only", "Only a person who signed in can do this.")
	}
	if st := f.state(); !st.May(a.ID, s.now()) {
		return Event{}, errEmbargo(st)
	}
	if d.Product != "" {
		if _, err := s.cfg.Products.Get(ctx, a.Tenant, d.Product); err != nil {
			return Event{}, err
		}
	}
	switch k {
	case EmbargoSet:
		if !slices.Contains(d.People, a.ID) {
			d.People = append(slices.Clone(d.People), a.ID)
		}
	case ReportTriaged:
		if d.Of != "" {
			if _, _, err := s.report(ctx, tenant.CaseRead, d.Of); err != nil {
				return Event{}, err
			}
			if d.Of == id {
				return Event{}, problem.Invalid("A report cannot repeat itself.").At("of")
			}
		}
	case ReportPublished:
		if d.Advisory != "" {
			if d.URL, d.At, err = s.cfg.Advisory(ctx, a.Tenant, d.Advisory); err != nil {
				return Event{}, err
			}
		}
	}
	return s.append(ctx, a.Tenant, id, ByPerson, a, k, note, d, Sending{})
}

// Enter takes in a report that reached a person by mail, by phone or through a CSIRT.
func (s *Service) Enter(ctx context.Context, in Intake) (Receipt, error) {
	a, err := who(ctx, tenant.CaseWrite, in.Product)
	switch {
	case err != nil:
		return Receipt{}, err
	case a.Kind != tenant.KindPerson:
		return Receipt{}, problem.Forbidden("disclosure.person-only", "Only a person who signed in can do this.")
	case in.Channel == "form":
		return Receipt{}, problem.Invalid("What comes by form enters itself.").At("channel")
	}
	return s.receive(ctx, a.Tenant, a, ByPerson, in)
}
