// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// MaxReceipt is the largest receipt that is kept, in bytes.
const MaxReceipt = 8 << 20

// StoreReceipt keeps a receipt of the reporting platform as it came, sealed, and records it in the case. Nobody here reads
// it: a second person compares it with the reporting platform and confirms.
func (s *Service) StoreReceipt(ctx context.Context, id string, attempt int64, name string, b []byte) (Event, error) {
	t := tenant.MustTenant(ctx)
	f, err := s.file(ctx, t, id)
	if err != nil {
		return Event{}, err
	}
	a, err := person(ctx, tenant.CaseDeclare, f.Product)
	if err != nil {
		return Event{}, err
	}
	name = strings.TrimSpace(filepath.Base(strings.ReplaceAll(name, `\`, "/")))
	switch {
	case s.cfg.Keys == nil:
		return Event{}, problem.Unavailable("Files cannot be sealed here.")
	case len(b) == 0:
		return Event{}, problem.Invalid("The file is empty.").At("file")
	case len(b) > MaxReceipt:
		return Event{}, problem.TooLarge("A receipt has at most %d bytes.", MaxReceipt)
	case !text(name, 1, 255):
		return Event{}, problem.Invalid("The file needs a name of at most 255 characters.").At("name")
	}
	file := store.NewID("rct")
	sealed, err := s.cfg.Keys.Wrap(sealedFor(t, file), b)
	if err != nil {
		return Event{}, err
	}
	sum := sha256.Sum256(b)
	d := Data{Attempt: attempt, File: file, Name: name, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(b))}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if f, err = fileByID(tx, t, id); err != nil {
			return err
		}
		if _, err := tx.Exec(`INSERT INTO respond_file(id, tenant, case_id, name, size, sha256, sealed, stored) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			file, t, id, name, d.Size, d.SHA256, sealed, store.Millis(s.now())); err != nil {
			return err
		}
		return s.append(tx, &f, a, ReceiptStored, d)
	})
	if err != nil {
		return Event{}, err
	}
	return f.Events[len(f.Events)-1], nil
}

func sealedFor(tenant, file string) string { return "respond.receipt/" + tenant + "/" + file }

// Receipt opens a stored receipt of a case.
func (s *Service) Receipt(ctx context.Context, id, file string) (name string, b []byte, err error) {
	t := tenant.MustTenant(ctx)
	f, err := s.file(ctx, t, id)
	if err != nil {
		return "", nil, err
	}
	if _, err := who(ctx, tenant.CaseRead, f.Product); err != nil {
		return "", nil, err
	}
	var sealed []byte
	err = s.cfg.DB.QueryRow(ctx, `SELECT name, sealed FROM respond_file WHERE tenant = $1 AND case_id = $2 AND id = $3`, t, id, file).Scan(&name, &sealed)
	if errors.Is(err, store.ErrNoRows) {
		return "", nil, problem.NotFound("The case has no such file.")
	}
	if err != nil {
		return "", nil, err
	}
	if s.cfg.Keys == nil {
		return "", nil, problem.Unavailable("Files cannot be opened here.")
	}
	b, err = s.cfg.Keys.Unwrap(sealedFor(t, file), sealed)
	return name, b, err
}

// serveReceipt hands a receipt out as a download and nothing else: what is in it was written by others, so no browser may
// show it as a page of ours.
func (s *Service) serveReceipt(w http.ResponseWriter, r *http.Request) error {
	name, b, err := s.Receipt(r.Context(), r.PathValue("id"), r.PathValue("file"))
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("Cache-Control", "no-store")
	_, err = w.Write(b)
	return err
}

// readReceipt reads at most one byte more than a receipt may have, so that StoreReceipt can tell.
func readReceipt(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxReceipt+1))
	if err != nil {
		return nil, problem.Invalid("The upload broke off.").Because(err)
	}
	return b, nil
}

// putPack keeps what a report said when it was submitted.
func putPack(tx *store.Tx, tenant, id string, seq int64, p frozen) error {
	_, err := tx.Exec(`INSERT INTO respond_pack(case_id, seq, tenant, sha256, body) VALUES ($1, $2, $3, $4, $5)`, id, seq, tenant, p.digest, string(p.body))
	return err
}

// Submitted is what the report said that an event says was submitted: the bytes whose digest stands in the event.
func (s *Service) Submitted(ctx context.Context, id string, attempt int64) ([]byte, error) {
	t := tenant.MustTenant(ctx)
	f, err := s.file(ctx, t, id)
	if err != nil {
		return nil, err
	}
	if _, err := who(ctx, tenant.CaseRead, f.Product); err != nil {
		return nil, err
	}
	var body, want string
	err = s.cfg.DB.QueryRow(ctx, `SELECT body, sha256 FROM respond_pack WHERE tenant = $1 AND case_id = $2 AND seq = $3`, t, id, attempt).Scan(&body, &want)
	if errors.Is(err, store.ErrNoRows) {
		return nil, problem.NotFound("Event %d is not a submission whose report is kept.", attempt)
	}
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256([]byte(body)); hex.EncodeToString(sum[:]) != want {
		return nil, fmt.Errorf("respond: the report of %s, event %d, is not what was stored", id, attempt)
	}
	return []byte(body), nil
}
