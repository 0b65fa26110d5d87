// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// RuleInformation names the refusal to publish user information that is incomplete.
const RuleInformation = "product.user-information"

// Languages are the languages of the public page; the first is the one that everything falls back to.
var Languages = []string{"en", "de"}

// The items of the user information (CRA Annex II) are rows of law.Annex(annexII): 1 to 7, 8(a) to 8(f) and 9. Two of
// them are data: what the product is called, and until when it is supported.
const (
	annexII     = "cra.ii"
	itemMaker   = annexII + ".1"
	itemContact = annexII + ".2"
	itemName    = annexII + ".3"
	itemSupport = annexII + ".7"
)

// mayBeAbsent are the items that the law demands only where they apply.
var mayBeAbsent = []string{annexII + ".6", annexII + ".12", annexII + ".13", annexII + ".14"}

// Item is one item of the user information in one language.
type Item struct {
	ID      string    `json:"id" doc:"Row of Annex II, such as cra.ii.10"`
	Ref     string    `json:"ref" doc:"Where it stands, such as CRA Annex II(8)(c)"`
	Asks    string    `json:"asks" doc:"What the item is about"`
	Text    string    `json:"text"`
	Absent  bool      `json:"not_applicable,omitempty" doc:"It does not apply; text says why"`
	Data    bool      `json:"data,omitempty" doc:"It is filled by the records of the platform; text may add to it"`
	Given   bool      `json:"given" doc:"Filled by data, by a person or as not applicable"`
	May     bool      `json:"-"` // it may be declared not applicable
	Actor   string    `json:"actor,omitempty"`
	Changed time.Time `json:"changed,omitzero"`
}

// Number is the item as the law counts it: 8(c).
func (i Item) Number() string {
	_, n, _ := strings.Cut(i.Ref, "(")
	n = strings.TrimSuffix(n, ")")
	return strings.Replace(n, ")(", "(", 1) + map[bool]string{true: ")"}[strings.Contains(n, "(")]
}

func checkLanguage(lang string) error {
	if !slices.Contains(Languages, lang) {
		return problem.NotFound("%.20q is none of the languages %s.", lang, strings.Join(Languages, ", ")).At("lang")
	}
	return nil
}

// Information returns the items of a product in a language as they are being prepared.
func (s *Service) Information(ctx context.Context, tenant, product, lang string) ([]Item, error) {
	if err := checkLanguage(lang); err != nil {
		return nil, err
	}
	rows, err := s.cfg.DB.Query(ctx, `SELECT item, body, absent, actor, changed FROM product_information WHERE tenant = $1 AND product = $2 AND lang = $3`, tenant, product, lang)
	kept, err := store.Collect(rows, err, func(r *sql.Rows) (i Item, err error) {
		var absent, changed int64
		err = r.Scan(&i.ID, &i.Text, &absent, &i.Actor, &changed)
		i.Absent, i.Changed = absent != 0, store.Time(changed)
		return i, err
	})
	if err != nil {
		return nil, err
	}
	cs, err := s.Cohorts(ctx, tenant, product)
	if err != nil {
		return nil, err
	}
	supported := slices.ContainsFunc(cs, func(c Cohort) bool { return c.Public != nil })
	var out []Item
	for _, row := range law.Annex(annexII) {
		i := Item{ID: row.ID}
		if at := slices.IndexFunc(kept, func(k Item) bool { return k.ID == row.ID }); at >= 0 {
			i = kept[at]
		}
		i.Ref, i.Asks, i.May = row.Ref, row.Wording, slices.Contains(mayBeAbsent, row.ID)
		i.Data = row.ID == itemName || row.ID == itemSupport && supported
		i.Given = i.Data || i.Text != ""
		out = append(out, i)
	}
	return out, nil
}

// SetItem fills an item of the user information, or empties it.
func (s *Service) SetItem(ctx context.Context, tenant, product, lang string, i Item, actor string) error {
	if err := checkLanguage(lang); err != nil {
		return err
	}
	i.Text = strings.TrimSpace(i.Text)
	if err := law.CheckClaim("text", i.Text); err != nil {
		return err
	}
	switch {
	case !slices.ContainsFunc(law.Annex(annexII), func(r law.Row) bool { return r.ID == i.ID }):
		return problem.NotFound("The user information has no item %.40q.", i.ID)
	case len(i.Text) > 16000 || !utf8.ValidString(i.Text):
		return problem.Invalid("An item has at most 16000 bytes of text.").At("text")
	case i.Absent && !slices.Contains(mayBeAbsent, i.ID):
		return problem.Invalid("This item always applies.").At("not_applicable")
	case i.Absent && i.Text == "":
		return problem.Invalid("Say why the item does not apply.").At("text")
	}
	if _, err := s.Get(ctx, tenant, product); err != nil {
		return err
	}
	absent := int64(0)
	if i.Absent {
		absent = 1
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec(`INSERT INTO product_information(tenant, product, lang, item, body, absent, actor, changed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (tenant, product, lang, item) DO UPDATE SET body = excluded.body, absent = excluded.absent, actor = excluded.actor, changed = excluded.changed`,
			tenant, product, lang, i.ID, i.Text, absent, actor, store.Millis(s.now())); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "product.information", Subject: product, Data: map[string]any{"lang": lang, "item": i.ID, "text": i.Text, "not_applicable": i.Absent}})
	})
}

// Page is the user information of a product as it was published. No version is ever changed or removed.
type Page struct {
	Version   int64             `json:"version"`
	Texts     map[string][]Item `json:"texts" doc:"By language"`
	Actor     string            `json:"actor"`
	Published time.Time         `json:"published_at"`
}

// PublishPage publishes the user information of a product as its next version: every item of the first language is given,
// further languages as far as they go.
func (s *Service) PublishPage(ctx context.Context, tenant, product, actor string) (Page, error) {
	was, err := s.page(ctx, product)
	if err != nil {
		return Page{}, err
	}
	p := Page{Version: was.Version + 1, Texts: map[string][]Item{}, Actor: actor, Published: s.now()}
	for n, lang := range Languages {
		items, err := s.Information(ctx, tenant, product, lang)
		if err != nil {
			return Page{}, err
		}
		given := slices.DeleteFunc(slices.Clone(items), func(i Item) bool { return i.Text == "" })
		if n == 0 {
			for _, i := range items {
				if !i.Given {
					return Page{}, problem.Forbidden(RuleInformation, "Item %s is missing: %s", i.Number(), i.Asks).At(i.ID).
						Hint("Users get all %d items of CRA Annex II with the product.", len(items))
				}
			}
		}
		if len(given) > 0 {
			p.Texts[lang] = given
		}
	}
	text, err := json.Marshal(p.Texts)
	if err != nil {
		return Page{}, err
	}
	return p, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO product_page(product, version, tenant, texts, actor, published) VALUES ($1, $2, $3, $4, $5, $6)`, product, p.Version, tenant, string(text), actor, store.Millis(p.Published))
		if store.IsUnique(err) {
			return problem.Conflict("The user information has just been published by somebody else.")
		}
		if err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "product.page-published", Subject: product, Data: p})
	})
}

// page is what is published of a product; version 0 while nothing is.
func (s *Service) page(ctx context.Context, product string) (p Page, err error) {
	var text string
	var at int64
	err = s.cfg.DB.QueryRow(ctx, `SELECT version, texts, actor, published FROM product_page WHERE product = $1 ORDER BY version DESC LIMIT 1`, product).Scan(&p.Version, &text, &p.Actor, &at)
	if errors.Is(err, store.ErrNoRows) {
		return Page{}, nil
	}
	if err != nil {
		return p, err
	}
	p.Published = store.Time(at)
	if err := json.Unmarshal([]byte(text), &p.Texts); err != nil {
		return p, fmt.Errorf("product: page of %s: %w", product, err)
	}
	return p, nil
}

// Check is one thing that a product needs before it is sold, and whether it is there.
type Check struct {
	Text string `json:"text"`
	Done bool   `json:"done"`
	Href string `json:"-"`
}

// Readiness is what a product needs before it is sold, as far as this room and Config.Checks know it.
type Readiness struct {
	Done   int     `json:"done"`
	Of     int     `json:"of"`
	Checks []Check `json:"checks"`
}

// Readiness counts what is there of a product of the tenant.
func (s *Service) Readiness(ctx context.Context, tenant, product string) (r Readiness, err error) {
	items, err := s.Information(ctx, tenant, product, Languages[0])
	if err != nil {
		return r, err
	}
	cs, err := s.Cohorts(ctx, tenant, product)
	if err != nil {
		return r, err
	}
	states, err := s.Availability(ctx, tenant, product)
	if err != nil {
		return r, err
	}
	page, err := s.page(ctx, product)
	if err != nil {
		return r, err
	}
	at := "/products/" + product
	add := func(done bool, href, format string, args ...any) {
		r.Checks = append(r.Checks, Check{fmt.Sprintf(format, args...), done, at + href})
		r.Of++
		if done {
			r.Done++
		}
	}
	add(len(states) > 0, "", "Member States are declared")
	add(len(cs) > 0, "", "A hardware revision is described")
	for _, c := range cs {
		add(c.Public != nil, "/support", "Support of the placement cohort %s is published", c.Name)
	}
	for _, i := range items {
		add(i.Given, "/information", "User information %s: %s", i.Number(), i.Asks)
	}
	add(page.Version > 0, "/information", "The user information is published")
	if s.cfg.Checks == nil {
		return r, nil
	}
	more, err := s.cfg.Checks(ctx, tenant, product)
	for _, c := range more {
		r.Checks = append(r.Checks, c)
		r.Of++
		if c.Done {
			r.Done++
		}
	}
	return r, err
}
