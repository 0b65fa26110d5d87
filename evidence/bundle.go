// SPDX-License-Identifier: AGPL-3.0-only

package evidence

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/evidence/verify"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Section is what one stage adds to every bundle.
type Section struct {
	Name string // unique; those that the verifier reads are named in evidence/verify
	// Collect returns JSON; nil says that there is nothing.
	Collect func(ctx context.Context, tenant, device string) (json.RawMessage, error)
}

// JSON makes a section of anything that has a JSON form. What a stage does not know yet (problem.NotFound: a unit that has
// left the line and never spoken has no firmware report) stands in the bundle as null.
func JSON[T any](name string, collect func(ctx context.Context, tenant, device string) (T, error)) Section {
	return Section{Name: name, Collect: func(ctx context.Context, tenant, device string) (json.RawMessage, error) {
		v, err := collect(ctx, tenant, device)
		if problem.Is(err, problem.KindNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return json.Marshal(v)
	}}
}

// Config is what the stage needs from the house.
type Config struct {
	DB       *store.DB
	Audit    *audit.Log
	Identity *identity.Service
	Clock    clock.Clock  // default clock.System
	Log      *slog.Logger // default discards
	Sections []Section    // beside "device" and "certificates", which the stage adds itself
	// Related names what else the log knows that belongs into a device's bundle: ids of releases, products. Optional.
	Related func(ctx context.Context, tenant, device string) ([]string, error)
	Rooms
	// ProductsOf says of ids which product each belongs to, by the prefix of the id ("dev"); what it does not name belongs to none.
	ProductsOf map[string]func(ctx context.Context, tenant string, ids []string) (map[string]string, error)
	// Unit finds a device by the code of its label; no such one is a problem of kind not-found. Without it there is no public page.
	Unit func(ctx context.Context, code string) (Unit, error)
	// Runs says what a device runs; it is asked for claimants only.
	Runs func(ctx context.Context, u Unit) (Running, error)
}

// Service is the stage.
type Service struct {
	cfg Config

	mu      sync.Mutex // guards the fields below
	checked *Checked   // the last whole verification of the log by this process
}

// New makes the stage.
func New(cfg Config) *Service {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	own := []Section{
		JSON("device", cfg.Identity.Get),
		JSON(verify.SectionCertificates, cfg.Identity.Certificates),
	}
	cfg.Sections = append(own, cfg.Sections...)
	return &Service{cfg: cfg}
}

// Export makes the sealed bundle of a device and records in the log that actor did. The caller has checked access.
func (s *Service) Export(ctx context.Context, tenant, device, actor string) ([]byte, error) {
	sections, err := collect(ctx, s.cfg.Sections, tenant, device)
	if err != nil {
		return nil, err
	}
	var related []string
	if s.cfg.Related != nil {
		if related, err = s.cfg.Related(ctx, tenant, device); err != nil {
			return nil, fmt.Errorf("evidence: %w", err)
		}
	}
	return s.bundle(ctx, verify.Document{Device: device, Tenant: tenant, Sections: sections}, related, actor)
}

// collect asks each section about an id.
func collect(ctx context.Context, sections []Section, tenant, id string) ([]verify.Section, error) {
	out := []verify.Section{}
	for _, section := range sections {
		data, err := section.Collect(ctx, tenant, id)
		if err != nil {
			return nil, fmt.Errorf("evidence: section %s: %w", section.Name, err)
		}
		if data == nil {
			data = json.RawMessage("null")
		}
		out = append(out, verify.Section{Name: section.Name, Data: data})
	}
	return out, nil
}

// bundle adds to a document with its sections what the log holds about its subject and about what is related to it, records
// the export, and seals it.
func (s *Service) bundle(ctx context.Context, d verify.Document, related []string, actor string) ([]byte, error) {
	id := d.Device + d.Subject // one of them is empty
	d.LogKey = s.cfg.Audit.VerifierKey()
	record := verify.Exported{Sections: []verify.SectionDigest{}}
	for _, part := range d.Sections {
		digest, err := part.Digest()
		if err != nil {
			return nil, fmt.Errorf("evidence: %w", err)
		}
		record.Sections = append(record.Sections, verify.SectionDigest{Name: part.Name, Digest: digest})
	}
	slices.Sort(related)
	subjects := append([]string{id}, slices.DeleteFunc(slices.Compact(related), func(other string) bool { return other == id || other == "" })...)

	if len(subjects) > maxRelated {
		return nil, problem.TooLarge("Entries about %d ids would belong into the bundle, more than %d.", len(subjects), maxRelated).Hint("Export less at once: one case, or the answer to one question.")
	}
	// What the log holds now is counted, and the counts become an entry: nothing can be left out afterwards.
	if err := s.cfg.Audit.Wait(ctx); err != nil {
		return nil, err
	}
	size, counts, err := s.cfg.Audit.Count(ctx, d.Tenant, subjects...)
	if err != nil {
		return nil, err
	}
	record.Size, record.Entries = size, counts[0]
	for i, subject := range subjects[1:] {
		record.Related = append(record.Related, verify.Count{Subject: subject, Entries: counts[i+1]})
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		return audit.Append(tx, audit.Entry{Tenant: d.Tenant, Actor: actor, Kind: verify.KindExported, Subject: id, Data: record})
	})
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Audit.Wait(ctx); err != nil {
		return nil, err
	}
	set, err := s.cfg.Audit.Prove(ctx, d.Tenant, subjects...)
	if err != nil {
		return nil, err
	}
	if d.Entries, err = upTo(set, record, id); err != nil {
		return nil, err
	}
	d.Checkpoint = set.Checkpoint.Note
	return s.seal(d)
}

// upTo is the proven entries up to the one that records this export; another export may have run at the same time.
func upTo(set audit.ProofSet, record verify.Exported, id string) ([]verify.Entry, error) {
	want, err := json.Marshal(record)
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	var out []verify.Entry
	for _, e := range set.Entries {
		out = append(out, verify.Entry{Index: e.Pos, Leaf: e.Leaf, Data: e.Data, Proof: e.Proof})
		if e.Leaf.Kind == verify.KindExported && e.Leaf.Subject == id && e.Data != nil && bytes.Equal(e.Data.Data, want) {
			return out, nil
		}
	}
	return nil, errors.New("evidence: the log does not show the export that was just recorded")
}

// seal signs the document and checks the result as its receiver will.
func (s *Service) seal(d verify.Document) ([]byte, error) {
	text, err := d.Text()
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	b, err := s.cfg.Audit.Sign(text)
	if err != nil {
		return nil, err
	}
	if len(b) > verify.MaxBundle {
		return nil, problem.TooLarge("The bundle would have %d MiB, more than the %d that are read.", len(b)>>20, verify.MaxBundle>>20).Hint("Export less at once: one case, or the answer to one question.")
	}
	if _, err := verify.Bundle(bytes.NewReader(b), d.LogKey, s.cfg.Clock.Now()); err != nil {
		return nil, fmt.Errorf("evidence: the bundle of %s does not verify and is not handed out: %w", d.Device+d.Subject, err)
	}
	return b, nil
}

// Checked is what the last whole verification of the log found.
type Checked struct {
	audit.Report
	At time.Time
}

// Check verifies the whole log and keeps the result for the page.
func (s *Service) Check(ctx context.Context) (Checked, error) {
	r, err := audit.VerifyDB(ctx, s.cfg.DB, s.cfg.Audit.VerifierKey(), nil)
	if err != nil {
		return Checked{}, err
	}
	c := Checked{Report: r, At: s.cfg.Clock.Now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checked = &c
	return c, nil
}

// LastCheck is the result of the last Check by this process; nil before the first.
func (s *Service) LastCheck() *Checked {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checked
}
