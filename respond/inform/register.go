// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/webhook"
)

// The register holds people's names and addresses: it is for those who work on cases, for the tenant as a whole.

// AddContact adds somebody who is to be told. The secret of a webhook is in the answer and never again.
func (s *Service) AddContact(ctx context.Context, c Contact) (Contact, error) {
	a, err := who(ctx, tenant.CaseWrite, "")
	if err != nil {
		return Contact{}, err
	}
	if err := s.ready(ctx, a.Tenant, &c); err != nil {
		return Contact{}, err
	}
	c.ID, c.Created = store.NewID("con"), s.now()
	c.Changed = c.Created
	if c.Channel == Webhook {
		c.secret = webhook.NewSecret()
		c.Secret = webhook.Secret(c.secret).Text()
	}
	return c, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := s.room(tx, a.Tenant, 1); err != nil {
			return err
		}
		return s.add(tx, a.ID, c)
	})
}

// ready checks a contact, puts ids in the place of the names of what it has, and finds out its pseudonym.
func (s *Service) ready(ctx context.Context, t string, c *Contact) (err error) {
	if err := c.check(s.cfg.PrivateHooks); err != nil {
		return err
	}
	has := make([]Holding, 0, len(c.Products))
	for _, h := range c.Products {
		if h, err = s.holding(ctx, t, h.Product, h.Revision); err != nil {
			return err
		}
		if !slices.Contains(has, h) {
			has = append(has, h)
		}
	}
	c.Products, c.tenant = has, t
	c.hash, err = s.pseudonym(t, c.Channel, c.Address)
	return err
}

// holding finds a product by id, model or name, and a revision of it by id or name.
func (s *Service) holding(ctx context.Context, t, name, revision string) (Holding, error) {
	ps, err := s.cfg.Products.List(ctx, t)
	if err != nil {
		return Holding{}, err
	}
	i := slices.IndexFunc(ps, func(p product.Product) bool { return name == p.ID || name == p.Model || name == p.Name })
	if i < 0 {
		return Holding{}, problem.Invalid("There is no product %.60q.", name).At("products")
	}
	h := Holding{Product: ps[i].ID}
	if revision == "" {
		return h, nil
	}
	vs, err := s.cfg.Products.Revisions(ctx, t, h.Product)
	if err != nil {
		return h, err
	}
	j := slices.IndexFunc(vs, func(v product.Revision) bool { return revision == v.ID || revision == v.Name })
	if j < 0 {
		return h, problem.Invalid("%s has no hardware revision %.60q.", ps[i].Name, revision).At("products")
	}
	h.Revision = vs[j].ID
	return h, nil
}

// room refuses what the register has no room for.
func (s *Service) room(tx *store.Tx, t string, more int64) error {
	n, err := countContacts(tx, t)
	if err == nil && n+more > maxContacts {
		err = problem.Limited("The register has room for %d contacts, and %d are in it.", maxContacts, n)
	}
	return err
}

// add writes a contact that is ready, sealed under a key of its own.
func (s *Service) add(tx *store.Tx, actor string, c Contact) error {
	if err := s.cfg.Keys.NewSubject(tx, c.tenant, c.ID); err != nil {
		return err
	}
	if err := s.close(tx, &c); err != nil {
		return err
	}
	if err := insertContact(tx, c); store.IsUnique(err) {
		return problem.Conflict("A contact with this address is in the register.").At("address")
	} else if err != nil {
		return err
	}
	return audit.Append(tx, audit.Entry{Tenant: c.tenant, Actor: actor, Kind: "contact.added", Subject: c.ID, Data: c.outline()})
}

// outline is what the log says of a contact: nothing that names it.
func (c Contact) outline() map[string]any {
	return map[string]any{"role": c.Role, "channel": c.Channel, "language": c.Language, "products": c.Products, "address": c.hash}
}

// sealedPerson is what is kept sealed.
type sealedPerson struct {
	Person
	Secret []byte `json:"secret,omitempty"`
}

// close seals who the contact is.
func (s *Service) close(tx *store.Tx, c *Contact) error {
	aead, err := s.cfg.Keys.SubjectTx(tx, c.tenant, c.ID)
	if err != nil {
		return err
	}
	b, err := json.Marshal(sealedPerson{c.Person, c.secret})
	if err != nil {
		return fmt.Errorf("contact: %w", err)
	}
	c.sealed = aead.Seal(nil, nil, b, []byte("inform.contact/"+c.ID))
	return nil
}

// open reads who the contact is; one that was erased stays without name.
func (s *Service) open(ctx context.Context, c *Contact) error {
	if !c.Erased.IsZero() {
		return nil
	}
	aead, err := s.cfg.Keys.Subject(ctx, s.cfg.DB, c.tenant, c.ID)
	if errors.Is(err, seal.ErrDestroyed) { // since the row was read
		return nil
	}
	if err != nil {
		return err
	}
	b, err := aead.Open(nil, nil, c.sealed, []byte("inform.contact/"+c.ID))
	if err != nil {
		return seal.ErrSealed
	}
	var p sealedPerson
	if err := json.Unmarshal(b, &p); err != nil {
		return fmt.Errorf("contact: %w", err)
	}
	c.Person, c.secret = p.Person, p.Secret
	return nil
}

// Contacts lists those of a product (all if empty), the newest first.
func (s *Service) Contacts(ctx context.Context, product, before string, limit int) ([]Contact, error) {
	a, err := who(ctx, tenant.CaseWrite, "")
	if err != nil {
		return nil, err
	}
	var cs []Contact
	if err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) { cs, err = contacts(tx, a.Tenant, product, before, limit); return err }); err != nil {
		return nil, err
	}
	for i := range cs {
		if err := s.open(ctx, &cs[i]); err != nil {
			return nil, err
		}
	}
	return cs, nil
}

// Contact reads one.
func (s *Service) Contact(ctx context.Context, id string) (c Contact, err error) {
	a, err := who(ctx, tenant.CaseWrite, "")
	if err != nil {
		return c, err
	}
	return s.contact(ctx, a.Tenant, id)
}

func (s *Service) contact(ctx context.Context, t, id string) (c Contact, err error) {
	if err = s.cfg.DB.View(ctx, func(tx *store.Tx) error { c, err = contactByID(tx, t, id); return err }); err != nil {
		return c, err
	}
	return c, s.open(ctx, &c)
}

// ChangeContact replaces what is known of a contact. The channel stays: a webhook has a secret, a mail address none.
func (s *Service) ChangeContact(ctx context.Context, id string, c Contact) (Contact, error) {
	a, err := who(ctx, tenant.CaseWrite, "")
	if err != nil {
		return Contact{}, err
	}
	was, err := s.contact(ctx, a.Tenant, id)
	switch {
	case err != nil:
		return Contact{}, err
	case !was.Erased.IsZero():
		return Contact{}, problem.Conflict("The contact was erased.")
	case c.Channel != was.Channel:
		return Contact{}, problem.Invalid("The channel of a contact does not change.").At("channel").Hint("Erase it and add another.")
	}
	if err := s.ready(ctx, a.Tenant, &c); err != nil {
		return Contact{}, err
	}
	c.ID, c.Created, c.Changed, c.secret = id, was.Created, s.now(), was.secret
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.change(tx, a.ID, c) })
	return c, err
}

func (s *Service) change(tx *store.Tx, actor string, c Contact) error {
	if err := s.close(tx, &c); errors.Is(err, seal.ErrDestroyed) {
		return problem.Conflict("The contact was erased.")
	} else if err != nil {
		return err
	}
	if err := updateContact(tx, c); store.IsUnique(err) {
		return problem.Conflict("Another contact has this address.").At("address")
	} else if err != nil {
		return err
	}
	return audit.Append(tx, audit.Entry{Tenant: c.tenant, Actor: actor, Kind: "contact.changed", Subject: c.ID, Data: c.outline()})
}

// EraseContact destroys the key of a contact: its name and address are gone, and it is told nothing more. What it was told
// stays on record under the keyed hash of its address.
func (s *Service) EraseContact(ctx context.Context, id string) error {
	a, err := who(ctx, tenant.CaseWrite, "")
	if err != nil {
		return err
	}
	return s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error {
		c, err := contactByID(tx, a.Tenant, id)
		if err != nil {
			return err
		}
		if !c.Erased.IsZero() {
			return problem.Conflict("The contact was erased already.")
		}
		if err := s.cfg.Keys.DestroySubject(tx, a.Tenant, id); err != nil {
			return err
		}
		told, err := eraseContact(tx, a.Tenant, id, s.now())
		if err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "contact.erased", Subject: id, Data: map[string]any{"deliveries_kept": told}})
	})
}

// Imported is what a file of contacts brought.
type Imported struct {
	Added   int `json:"added"`
	Changed int `json:"changed" doc:"Addresses that the register had: they have these products too now"`
}

// ImportContacts adds the contacts of a CSV file, all of them or none.
func (s *Service) ImportContacts(ctx context.Context, file []byte) (Imported, error) {
	a, err := who(ctx, tenant.CaseWrite, "")
	if err != nil {
		return Imported{}, err
	}
	found := map[[2]string]Holding{}
	cs, err := readContacts(file, func(p, revision string) (h Holding, err error) {
		h, ok := found[[2]string{p, revision}]
		if !ok {
			if h, err = s.holding(ctx, a.Tenant, p, revision); err == nil {
				found[[2]string{p, revision}] = h
			}
		}
		return h, err
	})
	if err != nil {
		return Imported{}, err
	}
	var n Imported
	for i := range cs {
		cs[i].tenant = a.Tenant
		if cs[i].hash, err = s.pseudonym(a.Tenant, cs[i].Channel, cs[i].Address); err != nil {
			return n, err
		}
	}
	// Addresses that differ in case only are one, which the reader of the file does not know.
	slices.SortStableFunc(cs, func(a, b Contact) int { return strings.Compare(a.hash, b.hash) })
	for i := 1; i < len(cs); i++ {
		if cs[i].hash == cs[i-1].hash {
			return n, problem.Invalid("%.60q stands there in two spellings.", cs[i].Address).At("file").Hint("Nothing was imported.")
		}
	}
	return n, s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
		n = Imported{} // the transaction may run twice
		for _, c := range cs {
			if err := s.bring(tx, a, c, &n); err != nil {
				return err
			}
		}
		return s.room(tx, a.Tenant, 0)
	})
}

// bring adds an imported contact, or its products to the one with the same address.
func (s *Service) bring(tx *store.Tx, a tenant.Actor, c Contact, n *Imported) error {
	was, err := contactByHash(tx, a.Tenant, c.hash)
	switch {
	case problem.Is(err, problem.KindNotFound):
		c.ID, c.Created, c.Changed = store.NewID("con"), s.now(), s.now()
		n.Added++
		return s.add(tx, a.ID, c)
	case err != nil:
		return err
	}
	c.ID, c.Created, c.Changed = was.ID, was.Created, s.now()
	c.Products = append(c.Products, was.Products...)
	if err := c.check(false); err != nil {
		return err
	}
	n.Changed++
	return s.change(tx, a.ID, c)
}
