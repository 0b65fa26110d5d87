// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// Intake is a report as it comes in.
type Intake struct {
	Sending
	Finder   Finder
	Channel  string
	Language string
	Product  string    // id, where the finder chose one of the maker's products
	At       time.Time // when it came; zero: now
}

// Receipt is what a finder gets for a report: its id, and the secret half of the link behind which its state can be read.
type Receipt struct {
	ID     string    `json:"id"`
	Status string    `json:"status_url,omitempty" doc:"Keep it: whoever has it sees the state of the report and may add to it. It is shown once."`
	At     time.Time `json:"received"`
}

// linkOf is what is stored of a status link: it leads to the report and back to no link.
func linkOf(secret string) string {
	sum := sha256.Sum256([]byte("disclosure status " + secret))
	return hex.EncodeToString(sum[:])
}

// receive takes a report in. It has an id and is on disk when receive returns without error, and has left nothing but an
// unused key otherwise.
func (s *Service) receive(ctx context.Context, t string, a tenant.Actor, by Author, in Intake) (Receipt, error) {
	if err := in.check(); err != nil {
		return Receipt{}, err
	}
	if err := in.Finder.check(); err != nil {
		return Receipt{}, err
	}
	if err := s.room(ctx, t, by, in.Files); err != nil {
		return Receipt{}, err
	}
	if in.Product != "" {
		if _, err := s.cfg.Products.Get(ctx, t, in.Product); err != nil {
			return Receipt{}, err
		}
	}
	p, err := s.policy(ctx, t)
	if err != nil {
		return Receipt{}, err
	}
	now := s.now()
	if in.At.IsZero() {
		in.At = now
	}
	secret := ""
	f := file{ID: store.NewID("rpt"), Tenant: t, Received: in.At.UTC().Truncate(time.Millisecond)}
	r := row{Event: Event{Seq: 1, Kind: ReportReceived, Recorded: now, By: by, Actor: a.ID, Note: in.Subject, Data: Data{
		At: f.Received, Channel: in.Channel, Language: in.Language, Cipher: in.cipher(), Anonymous: in.Finder == (Finder{}), Exploited: in.Exploited,
		Product: in.Product, Policy: p.Version, Promise: &p.Promise}}}
	if err := Check(State{}, r.Event, now); err != nil {
		return Receipt{}, err
	}
	if err := s.newKeys(ctx, t, f.ID); err != nil {
		return Receipt{}, err
	}
	files, err := s.sealRow(ctx, f, &r, in.Sending)
	if err != nil {
		return Receipt{}, err
	}
	own, err := s.cfg.Keys.Subject(ctx, s.cfg.DB, t, finderKey(f.ID))
	if err != nil {
		return Receipt{}, err
	}
	finder, err := locked(own, f.ID, "finder", in.Finder)
	if err != nil {
		return Receipt{}, err
	}
	data, err := r.stamp(f.ID, append(digests(files), finder)...)
	if err != nil {
		return Receipt{}, err
	}
	link := ""
	if by == ByFinder {
		secret = rand.Text() + rand.Text()
		link = linkOf(secret)
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		f := f // the transaction may run twice
		if err := insertReport(tx, f, link); err != nil {
			return err
		}
		if err := insertFinder(tx, f, finder); err != nil {
			return err
		}
		return s.add(tx, &f, r, data, files)
	})
	if err != nil {
		return Receipt{}, err
	}
	out := Receipt{ID: f.ID, At: f.Received}
	if secret != "" {
		out.Status = s.address(t) + "/status/" + secret
	}
	return out, nil
}

// addition takes what a finder writes behind the status link.
func (s *Service) addition(ctx context.Context, t, secret string, in Sending) (string, error) {
	if err := in.check(); err != nil {
		return "", err
	}
	f, err := s.behind(ctx, t, secret)
	if err != nil {
		return "", err
	}
	if err := s.room(ctx, t, ByFinder, in.Files); err != nil {
		return "", err
	}
	written := 0
	for _, r := range f.Rows {
		if r.Kind == FinderAdded {
			written++
		}
	}
	if written >= maxAdditions {
		return "", problem.Limited("This report has %d additions.", maxAdditions).Hint("Write to one of the contacts in security.txt.")
	}
	_, err = s.append(ctx, t, f.ID, ByFinder, tenant.Actor{ID: "finder"}, FinderAdded, "", Data{Exploited: in.Exploited, Cipher: in.cipher()}, in)
	return f.ID, err
}

// behind finds the report of a status link.
func (s *Service) behind(ctx context.Context, t, secret string) (f file, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error { f, err = fileBy(tx, t, "link", linkOf(secret)); return err })
	return f, err
}

// room refuses what strangers send while all of them together flood the tenant, and files once it was sent its daily measure.
func (s *Service) room(ctx context.Context, t string, by Author, files []Upload) error {
	if by == ByFinder {
		if err := s.flood.Take(t, 1); err != nil {
			return problem.Limited("More reports come in than can be taken.").Hint("Try again in a few minutes, or write to one of the contacts in security.txt.").Because(err)
		}
	}
	if len(files) == 0 {
		return nil
	}
	var today int64
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		today, err = attachedSince(tx, t, s.now().Add(-day))
		return err
	})
	for _, f := range files {
		today += int64(len(f.Body))
	}
	if err == nil && today > maxDaily {
		err = problem.Limited("No more files are taken today.").At("file").Hint("Send the report without them; they can be added later behind the status link.")
	}
	return err
}

// sealRow seals the words of a sending, its files and the note of the event.
func (s *Service) sealRow(ctx context.Context, f file, r *row, in Sending) ([]Attachment, error) {
	a, err := s.cfg.Keys.Subject(ctx, s.cfg.DB, f.Tenant, f.ID)
	if err != nil {
		return nil, err
	}
	files, names, err := s.put(ctx, a, f.ID, r.Seq, in.Files)
	if err != nil {
		return nil, err
	}
	if in.Words.Files = names; in.Words.Text != "" || len(names) > 0 {
		if r.words, err = locked(a, f.ID, place(r.Seq, "words"), in.Words); err != nil {
			return nil, err
		}
	}
	return files, sealNote(a, f, r)
}

func sealNote(a cipher.AEAD, f file, r *row) (err error) {
	r.note, err = locked(a, f.ID, place(r.Seq, "note"), r.Note)
	return err
}

func digests(as []Attachment) (out [][]byte) {
	for _, a := range as {
		out = append(out, []byte(a.digest))
	}
	return out
}

// add writes an event with all that follows from it: its leaf, alarms, the signal of what was seen exploited.
func (s *Service) add(tx *store.Tx, f *file, r row, data []byte, files []Attachment) error {
	if err := insertEvent(tx, f, r, data); err != nil {
		return err
	}
	for _, a := range files {
		if err := insertAttachment(tx, *f, a); err != nil {
			return err
		}
	}
	if err := s.leaf(tx, *f, r); err != nil {
		return err
	}
	switch r.Kind {
	case ReportReceived:
		if err := s.cfg.DB.Emit(tx, TopicReceived, f.Tenant, f.ID, Told{Exploited: r.Data.Exploited}); err != nil {
			return err
		}
	case FinderAdded:
		if err := s.cfg.DB.Emit(tx, TopicAdded, f.Tenant, f.ID, Told{Exploited: r.Data.Exploited}); err != nil {
			return err
		}
	case FinderErased:
		if err := s.cfg.Keys.DestroySubject(tx, f.Tenant, finderKey(f.ID)); err != nil {
			return err
		}
	}
	st := f.state()
	if st.Exploited == "yes" && st.Signal == "" {
		return s.signal(tx, f, st)
	}
	if st.Signal != "" && r.Data.Product != "" {
		if _, err := s.cfg.Respond.Attribute(tx, f.Tenant, st.Signal, r.Data.Product, r.Actor); err != nil {
			return err
		}
	}
	return s.arm(tx, *f)
}

// leaf puts an event into the log of what happened: at once if somebody of the house wrote it; what strangers write is
// gathered into one leaf an hour, so that nobody outside can fill the log.
func (s *Service) leaf(tx *store.Tx, f file, r row) error {
	if r.By == ByFinder {
		return s.cfg.DB.Enqueue(tx, jobLog, f.Tenant, r.Recorded.Truncate(time.Hour).Add(time.Hour), gather{f.Tenant})
	}
	return audit.Append(tx, audit.Entry{Tenant: f.Tenant, Actor: r.Actor, Kind: string(r.Kind), Subject: f.ID, Data: leafOf{Seq: r.Seq, Digest: r.digest}})
}

// leafOf is an event in the log: which one, and the digest of what is stored of it. What it says stands under the embargo
// and the key of the report.
type leafOf struct {
	Report string `json:"report,omitempty"`
	Seq    int64  `json:"seq"`
	Digest string `json:"digest"`
}

// signal asks for the assessment of what a finder saw exploited, also while nobody knows in which product. No embargo holds
// it back, and it starts no clock: that is for a person to declare.
func (s *Service) signal(tx *store.Tx, f *file, st State) error {
	id, err := s.cfg.Respond.Reported(tx, f.Tenant, respond.Signal{Product: st.Product, Ref: f.ID, Exploited: "yes",
		Title: "A finder saw it exploited", Detail: "The report says where, when and what shows it. Assess it at once. An embargo does not bind the CSIRT.",
		KnownSince: st.ExploitedAt, Actor: "system"})
	if err != nil {
		return err
	}
	r := row{Event: Event{Seq: int64(len(f.Rows)) + 1, Kind: SignalOpened, Recorded: s.now(), By: ByPlatform, Actor: "system", Data: Data{Signal: id}}}
	return s.write(tx, f, r)
}

// write seals, checks and adds an event that carries no words.
func (s *Service) write(tx *store.Tx, f *file, r row) error {
	if err := Check(f.state(), r.Event, s.now()); err != nil {
		return err
	}
	a, err := s.cfg.Keys.SubjectTx(tx, f.Tenant, f.ID)
	if err != nil {
		return err
	}
	if err := sealNote(a, *f, &r); err != nil {
		return err
	}
	data, err := r.stamp(f.ID)
	if err != nil {
		return err
	}
	return s.add(tx, f, r, data, nil)
}

// append adds an event to a report, after checking it against the report as it is then.
func (s *Service) append(ctx context.Context, t, id string, by Author, a tenant.Actor, k EventKind, note string, d Data, in Sending) (out Event, err error) {
	var f file
	if err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) { f, err = fileBy(tx, t, "id", id); return err }); err != nil {
		return Event{}, err
	}
	d.At, d.Due = d.At.UTC().Truncate(time.Millisecond), d.Due.UTC().Truncate(time.Millisecond)
	r := row{Event: Event{Seq: int64(len(f.Rows)) + 1, Kind: k, Recorded: s.now(), By: by, Actor: a.ID, Note: note, Data: d}}
	files, err := s.sealRow(ctx, f, &r, in)
	if err != nil {
		return Event{}, err
	}
	data, err := r.stamp(f.ID, digests(files)...)
	if err != nil {
		return Event{}, err
	}
	return r.Event, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		f, err := fileBy(tx, t, "id", id)
		if err != nil {
			return err
		}
		if int64(len(f.Rows))+1 != r.Seq {
			return problem.Conflict("Somebody else changed it at the same moment.").Hint("Look again and repeat.")
		}
		st := f.state()
		if err := Check(st, r.Event, s.now()); err != nil {
			return err
		}
		if by == ByPerson && !st.May(a.ID, s.now()) {
			return errEmbargo(st)
		}
		return s.add(tx, &f, r, data, files)
	})
}

func errEmbargo(st State) error {
	return problem.Forbidden("disclosure.embargo", "The report is under an embargo until %s, and you are not on its list.", st.Embargo.Until.Format(time.RFC3339)).
		Hint("No role opens it. Whoever is on the list can add you.")
}
