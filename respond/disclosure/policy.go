// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"cmp"
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// Policy is what a manufacturer promises to those who report vulnerabilities (CRA Annex I Part II (5)). Its elements and
// their words are in policy.json; a manufacturer changes the numbers and adds sentences of its own.
type Policy struct {
	Version int64     `json:"version" readOnly:"true" doc:"0: the defaults"`
	Since   time.Time `json:"since,omitzero" readOnly:"true"`
	Promise
	Languages []string          `json:"languages" minItems:"1" maxItems:"16" doc:"In which reports may be written, such as en"`
	Bounty    map[string]string `json:"bounty,omitempty" doc:"By language: what is paid; absent: nothing"`
	Scope     map[string]string `json:"scope,omitempty" doc:"By language: a sentence of your own about the scope"`
	LawNote   map[string]string `json:"law_note,omitempty" doc:"By language: a sentence about national law"`
	CVE       map[string]string `json:"cve,omitempty" doc:"By language: who assigns CVE numbers"`
}

// DefaultPolicy holds for a manufacturer that set none.
func DefaultPolicy() Policy { return Policy{Promise: DefaultPromise, Languages: []string{"en"}} }

// maxSentence bounds what a manufacturer adds to an element, in characters.
const maxSentence = 1000

func (p Policy) check() error {
	if err := p.Promise.check(); err != nil {
		return err
	}
	if len(p.Languages) == 0 {
		return problem.Invalid("Name the languages in which reports may be written.").At("languages")
	}
	for i, l := range p.Languages {
		if len(l) > 35 || !languageTag.MatchString(l) || slices.Contains(p.Languages[:i], l) {
			return problem.Invalid("%q is not a language tag, or stands twice.", l).At("languages")
		}
	}
	for at, own := range map[string]map[string]string{"bounty": p.Bounty, "scope": p.Scope, "law_note": p.LawNote, "cve": p.CVE} {
		for lang, sentence := range own {
			if !slices.Contains(PolicyLanguages, lang) || !text(sentence, 1, maxSentence) {
				return problem.Invalid("A sentence has a language of the policy (%s) and at most %d characters.", strings.Join(PolicyLanguages, ", "), maxSentence).At(at)
			}
			if err := law.CheckClaim(at, sentence); err != nil {
				return err
			}
		}
	}
	return nil
}

// PolicyLanguages are those in which the policy's own words exist.
var PolicyLanguages = []string{"en", "de"}

// Section is one element of a policy, ready to be read.
type Section struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Text  string `json:"text"`
}

//go:embed policy.json
var policyJSON []byte

type element struct {
	id    string
	words map[string]inLanguage
}

type inLanguage struct {
	title string
	text  *template.Template
}

// elements are those of policy.json. A file that does not parse, or lacks a language, does not start.
var elements = func() (out []element) {
	var doc struct {
		Elements []map[string]json.RawMessage `json:"elements"`
	}
	if err := json.Unmarshal(policyJSON, &doc); err != nil {
		panic(fmt.Sprintf("disclosure: policy.json: %v", err))
	}
	for _, raw := range doc.Elements {
		e := element{words: map[string]inLanguage{}}
		if err := json.Unmarshal(raw["id"], &e.id); err != nil {
			panic(fmt.Sprintf("disclosure: policy.json: %v", err))
		}
		for _, lang := range PolicyLanguages {
			var w [2]string
			if err := json.Unmarshal(raw[lang], &w); err != nil {
				panic(fmt.Sprintf("disclosure: policy.json: %s in %s: %v", e.id, lang, err))
			}
			e.words[lang] = inLanguage{w[0], template.Must(template.New(e.id).Parse(w[1]))}
		}
		out = append(out, e)
	}
	return out
}()

// Sections are the policy in the language, in the maker's name; English for a language that the words do not exist in.
func (p Policy) Sections(lang, maker string) ([]Section, error) {
	if !slices.Contains(PolicyLanguages, lang) {
		lang = PolicyLanguages[0]
	}
	own := func(m map[string]string) string { return cmp.Or(m[lang], m[PolicyLanguages[0]]) }
	data := struct {
		Promise
		Maker, Languages, Bounty, Scope, LawNote, CVE string
	}{p.Promise, maker, strings.Join(p.Languages, ", "), own(p.Bounty), own(p.Scope), own(p.LawNote), own(p.CVE)}
	out := make([]Section, len(elements))
	for i, e := range elements {
		var b strings.Builder
		if err := e.words[lang].text.Execute(&b, data); err != nil {
			return nil, fmt.Errorf("policy: %s: %w", e.id, err)
		}
		out[i] = Section{ID: e.id, Title: e.words[lang].title, Text: b.String()}
	}
	return out, nil
}

// policy is the newest of the tenant.
func (s *Service) policy(ctx context.Context, t string) (p Policy, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error { p, err = policyOf(tx, t); return err })
	return p, err
}

func policyOf(tx *store.Tx, t string) (Policy, error) {
	p := DefaultPolicy()
	var data string
	var since int64
	err := tx.QueryRow(`SELECT version, data, since FROM disclosure_policy WHERE tenant = $1 ORDER BY version DESC LIMIT 1`, t).Scan(&p.Version, &data, &since)
	if errors.Is(err, sql.ErrNoRows) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	version := p.Version
	err = json.Unmarshal([]byte(data), &p)
	p.Version, p.Since = version, store.Time(since)
	return p, err
}

// Policy is the one in force for the caller's tenant.
func (s *Service) Policy(ctx context.Context) (Policy, error) {
	a, err := who(ctx, tenant.CaseRead, "")
	if err != nil {
		return Policy{}, err
	}
	return s.policy(ctx, a.Tenant)
}

// SetPolicy makes the next version of the tenant's policy. Reports keep the version that they came under.
func (s *Service) SetPolicy(ctx context.Context, p Policy) (Policy, error) {
	a, err := who(ctx, tenant.CaseDeclare, "")
	if err != nil {
		return Policy{}, err
	}
	if err := p.check(); err != nil {
		return Policy{}, err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		was, err := policyOf(tx, a.Tenant)
		if err != nil {
			return err
		}
		p.Version, p.Since = was.Version+1, s.now()
		b, err := json.Marshal(p)
		if err != nil {
			return fmt.Errorf("policy: %w", err)
		}
		if _, err := tx.Exec(`INSERT INTO disclosure_policy(tenant, version, data, since, actor) VALUES ($1, $2, $3, $4, $5)`, a.Tenant, p.Version, string(b), store.Millis(p.Since), a.ID); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "policy.set", Subject: a.Tenant, Data: p})
	})
	return p, err
}
