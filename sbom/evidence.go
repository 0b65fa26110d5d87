// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"database/sql"
	"encoding/hex"
	"io"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Evidence is a document that shows how a release was really built.
type Evidence struct {
	ID       string       `json:"id"`
	Release  string       `json:"release"`
	Kind     EvidenceKind `json:"kind" enum:"compiled-files,kernel-config"`
	Document Document     `json:"document"`
	Content  string       `json:"content" doc:"Digest of what was read from it; the order of lines does not matter"`
	Entries  int64        `json:"entries" doc:"Files, or options"`
	Actor    string       `json:"actor"`
	At       time.Time    `json:"at"`
}

// readEvidence returns the sorted entries of a document.
func readEvidence(kind EvidenceKind, r io.Reader) ([]string, error) {
	switch kind {
	case CompiledFiles:
		return ParseCompiled(r)
	case KernelConfig:
		return ParseKernelConfig(r)
	}
	return nil, problem.Invalid("there is no evidence of the kind %q", kind).Hint("send %s or %s", CompiledFiles, KernelConfig)
}

// AddEvidence keeps the original bytes and reads them. The newest document of a kind counts, none is deleted; one that
// says the same as the last changes nothing. Emits sbom.evidence when what is known of the build has changed.
func (s *Service) AddEvidence(ctx context.Context, tenant, release string, kind EvidenceKind, doc io.Reader, actor string) (Evidence, error) {
	if kind != CompiledFiles && kind != KernelConfig {
		_, err := readEvidence(kind, nil)
		return Evidence{}, err
	}
	sum := sha512.New()
	digest, size, err := s.cfg.Blobs.Put(ctx, io.TeeReader(doc, sum), MaxEvidence)
	if err != nil {
		return Evidence{}, err
	}
	entries, err := s.entries(ctx, kind, digest)
	if err != nil {
		return Evidence{}, err
	}
	content := sha256.Sum256([]byte(strings.Join(entries, "\n")))
	e := Evidence{ID: store.NewID("evd"), Release: release, Kind: kind, Document: Document{Blob: digest, SHA512: hex.EncodeToString(sum.Sum(nil)), Size: size},
		Content: "sha256:" + hex.EncodeToString(content[:]), Entries: int64(len(entries)), Actor: actor}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		newest, err := s.evidence(tx, tenant, release)
		if err != nil {
			return err
		}
		at := store.Millis(s.cfg.Clock.Now())
		for _, old := range newest {
			if old.Kind == kind {
				if old.Content == e.Content {
					e = old
					return nil
				}
				at = max(at, store.Millis(old.At)+1)
			}
		}
		e.At = store.Time(at)
		if _, err := tx.Exec(`INSERT INTO release_evidence (id, tenant, release_id, kind, digest, sha512, size, content_hash, entries, actor, at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`, e.ID, tenant, release, string(kind), digest, e.Document.SHA512, size,
			e.Content, e.Entries, actor, at); err != nil {
			return err
		}
		data := map[string]any{"kind": kind, "sha512": e.Document.SHA512, "content": e.Content, "entries": e.Entries}
		if err := audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "sbom.evidence", Subject: release, Data: data}); err != nil {
			return err
		}
		return s.cfg.DB.Emit(tx, "sbom.evidence", tenant, release, data)
	})
	return e, err
}

func (s *Service) entries(ctx context.Context, kind EvidenceKind, digest string) ([]string, error) {
	f, err := s.cfg.Blobs.Open(ctx, digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readEvidence(kind, f)
}

// evidence returns the newest document of each kind, by kind.
func (s *Service) evidence(tx *store.Tx, tenant, release string) ([]Evidence, error) {
	rows, err := tx.Query(`SELECT id, kind, digest, sha512, size, content_hash, entries, actor, at FROM release_evidence e
		WHERE tenant = $1 AND release_id = $2 AND at = (SELECT max(n.at) FROM release_evidence n
			WHERE n.tenant = e.tenant AND n.release_id = e.release_id AND n.kind = e.kind) ORDER BY kind`, tenant, release)
	return store.Collect(rows, err, func(r *sql.Rows) (e Evidence, err error) {
		var at int64
		err = r.Scan(&e.ID, &e.Kind, &e.Document.Blob, &e.Document.SHA512, &e.Document.Size, &e.Content, &e.Entries, &e.Actor, &at)
		e.Release, e.At = release, store.Time(at)
		return e, err
	})
}

// Evidence lists the newest evidence of each kind.
func (s *Service) Evidence(ctx context.Context, tenant, release string) (list []Evidence, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		list, err = s.evidence(tx, tenant, release)
		return err
	})
	return list, err
}

// EvidenceHash is one value over what the newest evidence says, or "" when there is none: a decision that rests on
// evidence holds as long as it is the same.
func (s *Service) EvidenceHash(tx *store.Tx, tenant, release string) (string, error) {
	list, err := s.evidence(tx, tenant, release)
	if err != nil || len(list) == 0 {
		return "", err
	}
	return evidenceHash(list), nil
}

// evidenceHash is one value over the newest evidence of each kind, in the order of the kinds.
func evidenceHash(newest []Evidence) string {
	h := sha256.New()
	for _, e := range newest {
		io.WriteString(h, string(e.Kind)+" "+e.Content+"\n") //nolint:errcheck // a hash takes everything
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// CompiledFiles returns the source files that were compiled into the release's kernel, relative to its tree; nil where
// nobody has shown them.
func (s *Service) CompiledFiles(ctx context.Context, tenant, release string) (map[string]bool, error) {
	e, err := s.evidenceOf(ctx, tenant, release, CompiledFiles)
	if problem.Is(err, problem.KindNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	files, err := s.entries(ctx, CompiledFiles, e.Document.Blob)
	if err != nil {
		return nil, err
	}
	set := make(map[string]bool, len(files))
	for _, f := range files {
		set[f] = true
	}
	return set, nil
}

func (s *Service) evidenceOf(ctx context.Context, tenant, release string, kind EvidenceKind) (Evidence, error) {
	list, err := s.Evidence(ctx, tenant, release)
	if err != nil {
		return Evidence{}, err
	}
	for _, e := range list {
		if e.Kind == kind {
			return e, nil
		}
	}
	return Evidence{}, problem.NotFound("The release has no evidence of the kind %s.", kind)
}

// OriginalEvidence opens the bytes as they were uploaded.
func (s *Service) OriginalEvidence(ctx context.Context, tenant, release string, kind EvidenceKind) (Evidence, io.ReadSeekCloser, error) {
	e, err := s.evidenceOf(ctx, tenant, release, kind)
	if err != nil {
		return Evidence{}, nil, err
	}
	f, err := s.cfg.Blobs.Open(ctx, e.Document.Blob)
	return e, f, err
}
