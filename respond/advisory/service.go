// SPDX-License-Identifier: AGPL-3.0-only

package advisory

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/respond/pgp"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/vuln/csaf"
)

// RuleHold names the refusal to publish what is held back.
const RuleHold = "advisory.hold"

// instant is now to the second, which is what documents carry.
func (s *Service) instant() time.Time { return s.now().Truncate(time.Second) }

// publisher is in whose name the tenant publishes, with its defaults.
func (s *Service) publisher(ctx context.Context, t string) (p Publisher, updated time.Time, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error { p, updated, err = publisherOf(tx, t); return err })
	if err != nil {
		return p, updated, err
	}
	name := ""
	if s.cfg.Manufacturer != nil {
		if name, err = s.cfg.Manufacturer(ctx, t); err != nil {
			return p, updated, err
		}
	}
	p = p.filled(name, s.cfg.URL)
	p.tenant = t
	return p, updated, nil
}

// Publisher reads in whose name the caller's tenant publishes.
func (s *Service) Publisher(ctx context.Context) (Publisher, error) {
	a, err := who(ctx, tenant.AdvisoryRead, "")
	if err != nil {
		return Publisher{}, err
	}
	p, _, err := s.publisher(ctx, a.Tenant)
	return p, err
}

// SetPublisher says in whose name the tenant publishes from now on. What was published stays as it was.
func (s *Service) SetPublisher(ctx context.Context, p Publisher) (Publisher, error) {
	a, err := who(ctx, tenant.AdvisoryPublish, "")
	if err != nil {
		return Publisher{}, err
	}
	if err := p.check(); err != nil {
		return Publisher{}, err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := putPublisher(tx, a.Tenant, p, s.now()); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "advisory.publisher_set", Subject: a.Tenant, Data: p})
	})
	if err != nil {
		return Publisher{}, err
	}
	p, _, err = s.publisher(ctx, a.Tenant)
	return p, err
}

// learn collects what is known of the vulnerability in the published releases of the product.
func (s *Service) learn(ctx context.Context, t, productID, ident string) (f facts, err error) {
	if f.product, err = s.cfg.Products.Get(ctx, t, productID); err != nil {
		return f, err
	}
	if f.vuln, err = s.cfg.Vuln.Get(ctx, t, ident); err != nil {
		return f, err
	}
	exposed, err := s.cfg.Vuln.Affected(ctx, t, ident, time.Time{})
	if err != nil {
		return f, err
	}
	exposed.Only(func(p string) bool { return p == productID })
	if f.released, err = s.cfg.Releases(ctx, t, productID); err != nil {
		return f, err
	}
	f.released = slices.DeleteFunc(f.released, func(r Release) bool { return r.Published.IsZero() }) // nobody outside knows it
	slices.SortStableFunc(f.released, func(a, b Release) int { return a.Published.Compare(b.Published) })
	f.statuses = statuses(f.released, exposed.Releases)
	return f, nil
}

// Draft begins an advisory about a vulnerability of a product. Words that are absent are proposed.
func (s *Service) Draft(ctx context.Context, productID, ident string, words Text) (Advisory, error) {
	a, err := who(ctx, tenant.AdvisoryWrite, productID)
	if err != nil {
		return Advisory{}, err
	}
	f, err := s.learn(ctx, a.Tenant, productID, ident)
	if err != nil {
		return Advisory{}, err
	}
	if words.Title == "" {
		words.Title = f.vuln.Name + " in " + f.product.Name
	}
	if words.CVSS == "" && f.vuln.Score != nil {
		if c, err := csaf.Score3(f.vuln.Score.Vector); err == nil { // CSAF 2.0 has no place for one of another version
			words.CVSS = c.VectorString
		}
	}
	if err := words.check(); err != nil {
		return Advisory{}, err
	}
	p, _, err := s.publisher(ctx, a.Tenant)
	if err != nil {
		return Advisory{}, err
	}
	adv := Advisory{ID: store.NewID("adv"), Product: productID, Vulnerability: f.vuln.Name, Text: words, Created: s.now(), By: a.ID}
	adv.Changed = adv.Created
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := insert(tx, a.Tenant, p.Prefix, &adv); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "advisory.drafted", Subject: adv.ID, Data: map[string]any{
			"product": productID, "vulnerability": adv.Vulnerability, "tracking": adv.Tracking}})
	})
	if err != nil {
		return Advisory{}, err
	}
	return s.show1(adv, f, p), nil
}

// Title is what an advisory of the tenant is called.
func (s *Service) Title(ctx context.Context, tenant, id string) (string, error) {
	var tracking string
	err := s.cfg.DB.QueryRow(ctx, `SELECT tracking FROM respond_advisory WHERE tenant = $1 AND id = $2`, tenant, id).Scan(&tracking)
	return tracking, missing(err)
}

// advisory reads one that the caller may do v to.
func (s *Service) advisory(ctx context.Context, v tenant.Verb, id string) (adv Advisory, a tenant.Actor, err error) {
	t := tenant.MustTenant(ctx)
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error { adv, err = advisoryByID(tx, t, id); return err })
	if err == nil {
		a, err = who(ctx, v, adv.Product)
	}
	return adv, a, err
}

// Advisory reads one with its revisions and with what the next revision would say.
func (s *Service) Get(ctx context.Context, id string) (Advisory, error) {
	adv, a, err := s.advisory(ctx, tenant.AdvisoryRead, id)
	if err != nil {
		return Advisory{}, err
	}
	f, err := s.learn(ctx, a.Tenant, adv.Product, adv.Vulnerability)
	if err != nil {
		return Advisory{}, err
	}
	p, _, err := s.publisher(ctx, a.Tenant)
	if err != nil {
		return Advisory{}, err
	}
	return s.show1(adv, f, p), nil
}

// show1 completes an advisory for its readers.
func (s *Service) show1(a Advisory, f facts, p Publisher) Advisory {
	a.ProductName, a.State, a.Releases = f.product.Name, a.state(s.now()), f.statuses
	if a.Revision > 0 {
		a.URL = p.at(a.tlp, a.Initial, a.Tracking, "")
		a.Outdated = s.outdated(a, f, p)
	}
	return a
}

// outdated reports whether the next revision would say something else than the published one, its history aside.
func (s *Service) outdated(a Advisory, f facts, p Publisher) bool {
	last := a.Revisions[len(a.Revisions)-1]
	was, err := csaf.Parse(last.document)
	if err != nil {
		return true
	}
	is, err := f.document(a, p, s.instant(), "")
	if err != nil {
		return true
	}
	is.Document.Tracking = was.Document.Tracking
	now, err := csaf.Encode(is)
	before, err2 := csaf.Encode(was)
	return err != nil || err2 != nil || !bytes.Equal(now, before)
}

// List lists those of the products that the caller may see, newest first, without their releases.
func (s *Service) List(ctx context.Context, after string, n int) ([]Advisory, error) {
	a, _ := tenant.ActorFrom(ctx)
	whole, products, _ := tenant.Scope(a, tenant.AdvisoryRead)
	if !whole && len(products) == 0 {
		return nil, nil
	}
	p, _, err := s.publisher(ctx, a.Tenant)
	if err != nil {
		return nil, err
	}
	var out []Advisory
	if err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		out, err = advisories(tx, a.Tenant, after, n, whole, products)
		return err
	}); err != nil {
		return nil, err
	}
	for i := range out {
		if of, err := s.cfg.Products.Get(ctx, a.Tenant, out[i].Product); err == nil {
			out[i].ProductName = of.Name
		}
		out[i].State = out[i].state(s.now())
		if out[i].Revision > 0 {
			out[i].URL = p.at(out[i].tlp, out[i].Initial, out[i].Tracking, "")
		}
	}
	return out, nil
}

// Change replaces the words of the next revision. Published ones stay as they are.
func (s *Service) Change(ctx context.Context, id string, words Text) (Advisory, error) {
	adv, a, err := s.advisory(ctx, tenant.AdvisoryWrite, id)
	if err != nil {
		return Advisory{}, err
	}
	if err := words.check(); err != nil {
		return Advisory{}, err
	}
	if err := adv.widens(words.TLP); err != nil {
		return Advisory{}, err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := change(tx, a.Tenant, id, words, s.now()); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "advisory.changed", Subject: id, Data: words})
	})
	if err != nil {
		return Advisory{}, err
	}
	return s.Get(ctx, id)
}

// widens refuses a label that would call back what was published.
func (a *Advisory) widens(label csaf.TLPLabel) error {
	if a.Revision > 0 && narrower(label, a.tlp) {
		return problem.Conflict("It was published as TLP:%s; who has read it cannot be made to forget.", a.tlp).At("tlp")
	}
	return nil
}

// Hold keeps an advisory from being published until an end, for a reason.
func (s *Service) Hold(ctx context.Context, id string, h Hold) (Advisory, error) {
	_, a, err := s.advisory(ctx, tenant.AdvisoryPublish, id)
	if err != nil {
		return Advisory{}, err
	}
	h.Until, h.By = h.Until.UTC().Truncate(time.Second), a.ID
	if err := h.check(s.now()); err != nil {
		return Advisory{}, err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := hold(tx, a.Tenant, id, h); err != nil {
			return err
		}
		if err := s.cfg.DB.Enqueue(tx, jobHold, id+" "+h.Until.Format(time.RFC3339), h.Until, holdEnd{a.Tenant, id, store.Millis(h.Until)}); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "advisory.held", Subject: id, Data: h})
	})
	if err != nil {
		return Advisory{}, err
	}
	return s.Get(ctx, id)
}

// LiftHold ends a hold before its end.
func (s *Service) LiftHold(ctx context.Context, id string) (Advisory, error) {
	adv, a, err := s.advisory(ctx, tenant.AdvisoryPublish, id)
	switch {
	case err != nil:
		return Advisory{}, err
	case adv.Hold == nil:
		return Advisory{}, problem.Conflict("The advisory is not held back.")
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := hold(tx, a.Tenant, id, Hold{}); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "advisory.hold_lifted", Subject: id, Data: adv.Hold})
	})
	if err != nil {
		return Advisory{}, err
	}
	return s.Get(ctx, id)
}

// Publish signs the next revision and publishes it. Change says what is new in it.
func (s *Service) Publish(ctx context.Context, id, change string) (Advisory, error) {
	adv, a, err := s.advisory(ctx, tenant.AdvisoryPublish, id)
	if err != nil {
		return Advisory{}, err
	}
	if change = strings.TrimSpace(change); change == "" && adv.Revision == 0 {
		change = "First publication"
	}
	now := s.instant()
	switch {
	case !text(change, 1, 1000):
		return Advisory{}, problem.Invalid("Say what is new in this revision.").At("change")
	case adv.Hold != nil && adv.Hold.Until.After(now):
		return Advisory{}, problem.Forbidden(RuleHold, "The advisory is held back until %s: %s", adv.Hold.Until.Format(time.RFC3339), adv.Hold.Reason).
			Hint("Lift the hold first if the reason no longer stands.")
	case adv.Revision > 0 && !now.After(adv.Current):
		return Advisory{}, problem.Conflict("A revision was published this very second.").Hint("Repeat it in a moment.")
	}
	if err := adv.widens(adv.TLP); err != nil {
		return Advisory{}, err
	}
	rev, f, p, err := s.next(ctx, adv, a, now, change)
	if err != nil {
		return Advisory{}, err
	}
	key, err := s.cfg.Keys.Signer(ctx, a.Tenant, a.ID, p.Name)
	if err != nil {
		return Advisory{}, err
	}
	if err := s.prove(key, &rev); err != nil {
		return Advisory{}, err
	}
	if err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.publish(tx, a, adv, rev, f) }); err != nil {
		return Advisory{}, err
	}
	return s.Get(ctx, id)
}

// next makes the next revision, without its proofs.
func (s *Service) next(ctx context.Context, adv Advisory, a tenant.Actor, now time.Time, change string) (rev Revision, f facts, p Publisher, err error) {
	if f, err = s.learn(ctx, a.Tenant, adv.Product, adv.Vulnerability); err != nil {
		return rev, f, p, err
	}
	if p, _, err = s.publisher(ctx, a.Tenant); err != nil {
		return rev, f, p, err
	}
	doc, err := f.document(adv, p, now, change)
	if err != nil {
		return rev, f, p, err
	}
	rev = Revision{Number: adv.Revision + 1, At: now, By: a.ID, Summary: change, TLP: adv.TLP, title: adv.Title, note: adv.Text.Summary, productName: f.product.Name}
	rev.document, err = csaf.Write(doc)
	return rev, f, p, err
}

// publish writes a proven revision down, with its leaf in the log and its event.
func (s *Service) publish(tx *store.Tx, a tenant.Actor, adv Advisory, rev Revision, f facts) error {
	if err := insertRevision(tx, a.Tenant, adv, rev); err != nil {
		return err
	}
	said := Published{Advisory: adv.ID, Tracking: adv.Tracking, Product: adv.Product, Vulnerability: adv.Vulnerability, Revision: rev.Number,
		TLP: rev.TLP, SHA256: rev.SHA256, Fingerprint: rev.Fingerprint, Releases: f.statuses}
	if err := audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "advisory.published", Subject: adv.ID, Data: said}); err != nil {
		return err
	}
	return s.cfg.DB.Emit(tx, "advisory.published", a.Tenant, adv.ID, said)
}

// Published is the event advisory.published and its leaf in the log.
type Published struct {
	Advisory      string          `json:"advisory"`
	Tracking      string          `json:"tracking"`
	Product       string          `json:"product"`
	Vulnerability string          `json:"vulnerability"`
	Revision      int64           `json:"revision"`
	TLP           csaf.TLPLabel   `json:"tlp"`
	SHA256        string          `json:"sha256"`
	Fingerprint   string          `json:"fingerprint"`
	Releases      []ReleaseStatus `json:"releases"`
}

// Preview is the document of the next revision as it would be published now, unsigned.
func (s *Service) Preview(ctx context.Context, id string) ([]byte, error) {
	adv, a, err := s.advisory(ctx, tenant.AdvisoryRead, id)
	if err != nil {
		return nil, err
	}
	change := "Draft"
	rev, _, _, err := s.next(ctx, adv, a, s.instant(), change)
	return rev.document, err
}

// Document is a published revision: the newest one, or the one with the number.
func (s *Service) Document(ctx context.Context, id string, number int64) (Revision, error) {
	adv, _, err := s.advisory(ctx, tenant.AdvisoryRead, id)
	if err != nil {
		return Revision{}, err
	}
	for _, r := range slices.Backward(adv.Revisions) {
		if number == 0 || r.Number == number {
			return r, nil
		}
	}
	return Revision{}, problem.NotFound("No such revision was published.")
}

const jobHold = "respond.hold"

// holdEnd is a job: at the end of a hold it reminds people to publish.
type holdEnd struct {
	Tenant, Advisory string
	Until            int64
}

// holdEnds writes that a hold has ended and tells it, once. One that was lifted, replaced or published says nothing.
func (s *Service) holdEnds(ctx context.Context, j store.Job) error {
	var h holdEnd
	if err := j.Decode(&h); err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		adv, err := advisoryByID(tx, h.Tenant, h.Advisory)
		if err != nil || adv.Hold == nil || store.Millis(adv.Hold.Until) != h.Until {
			return err
		}
		if err := audit.Append(tx, audit.Entry{Tenant: h.Tenant, Actor: tenant.System(h.Tenant).ID, Kind: "advisory.hold_ended", Subject: adv.ID, Data: adv.Hold}); err != nil {
			return err
		}
		return s.cfg.DB.Emit(tx, "advisory.hold_ended", h.Tenant, adv.ID, HoldEnded{Tracking: adv.Tracking, Product: adv.Product, Title: adv.Title, Reason: adv.Hold.Reason})
	})
}

// HoldEnded is the event advisory.hold_ended.
type HoldEnded struct {
	Tracking string `json:"tracking"`
	Product  string `json:"product"`
	Title    string `json:"title"`
	Reason   string `json:"reason"`
}

// Notice is a published advisory as it is mentioned elsewhere.
type Notice struct {
	Title string
	Page  string // address of its page
	At    time.Time
}

// Told lists what was published about a product for everybody, the newest change first.
func (s *Service) Told(ctx context.Context, t, product string) (out []Notice, err error) {
	p, _, err := s.publisher(ctx, t)
	if err != nil {
		return nil, err
	}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		es, err := published(tx, t, csaf.TLPWhite, "")
		out = nil
		for _, e := range es {
			if e.product == product {
				out = append(out, Notice{e.title, p.at(csaf.TLPWhite, e.initial, e.tracking, ".html"), e.At})
			}
		}
		return err
	})
	return out, err
}

// prove adds digests and signature to the bytes of a document.
func (s *Service) prove(k pgp.Key, r *Revision) (err error) {
	r.SHA256, r.SHA512 = digests(r.document)
	r.Fingerprint = k.Fingerprint
	if r.signature, err = s.cfg.Keys.Sign(k, r.document); err != nil {
		return err
	}
	return s.proven(k, r)
}

// proven reports why a reader of the revision would not believe it: nothing is published without it being nil.
func (s *Service) proven(k pgp.Key, r *Revision) error {
	if short, long := digests(r.document); r.SHA256 != short || r.SHA512 != long {
		return errors.New("advisory: the digests are not those of the document")
	}
	return s.cfg.Keys.Believes(k, r.document, r.signature)
}

func digests(b []byte) (short, long string) {
	a, c := sha256.Sum256(b), sha512.Sum512(b)
	return hex.EncodeToString(a[:]), hex.EncodeToString(c[:])
}
