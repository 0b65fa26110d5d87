// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"bytes"
	"context"
	"crypto/sha512"
	"embed"
	"encoding/hex"
	"io"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/blob"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema holds bills of materials and components.
var Schema = store.Migrations{Stage: "sbom", FS: migrationsFS}

// Config is what the service works with.
type Config struct {
	DB    *store.DB
	Blobs blob.Store
	Clock clock.Clock
	// ProductOf tells the product of a release, or problem.NotFound: rights are held on products, and releases belong
	// to a later stage.
	ProductOf func(ctx context.Context, tenant, release string) (product string, err error)
}

// Service keeps bills of materials.
type Service struct{ cfg Config }

// New makes the service.
func New(cfg Config) *Service {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	s := &Service{cfg}
	cfg.DB.Handle(jobRead, s.readAgain)
	return s
}

// Document is where the original bytes of a bill are kept.
type Document struct {
	Blob   string `json:"blob"`   // "sha256:<hex>" in the blob store
	SHA512 string `json:"sha512"` // hex, as BSI TR-03183-2 asks
	Size   int64  `json:"size"`   // bytes
}

// Keep puts the uploaded bytes into the blob store, before the transaction that attaches them.
func (s *Service) Keep(ctx context.Context, doc []byte) (Document, error) {
	digest, size, err := s.cfg.Blobs.Put(ctx, bytes.NewReader(doc), MaxBytes)
	if err != nil {
		return Document{}, err
	}
	sum := sha512.Sum512(doc)
	return Document{Blob: digest, SHA512: hex.EncodeToString(sum[:]), Size: size}, nil
}

// Attach makes b the bill of a release and emits sbom.attached; doc comes from Keep. Attaching the same document again
// changes nothing.
func (s *Service) Attach(tx *store.Tx, tenant, release string, b Bill, doc Document, actor string) error {
	if release == "" || doc.Blob == "" {
		return problem.Invalid("a bill of materials needs a release and its original document")
	}
	attached, err := s.insert(tx, tenant, release, b, doc)
	if err != nil || !attached {
		return err
	}
	data := map[string]any{"sha512": doc.SHA512, "format": b.Format, "spec_version": b.SpecVersion, "components": len(b.Components)}
	if err := audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "sbom.attached", Subject: release, Data: data}); err != nil {
		return err
	}
	return s.cfg.DB.Emit(tx, "sbom.attached", tenant, release, data)
}

// Original opens the bytes as they were uploaded.
func (s *Service) Original(ctx context.Context, tenant, release string) (Record, io.ReadSeekCloser, error) {
	r, err := s.Current(ctx, tenant, release)
	if err != nil {
		return Record{}, nil, err
	}
	f, err := s.cfg.Blobs.Open(ctx, r.Document.Blob)
	return r, f, err
}
