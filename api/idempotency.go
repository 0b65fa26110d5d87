// SPDX-License-Identifier: AGPL-3.0-only

package api

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"net/http"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema is the kit's own table, of the platform handle.
var Schema = store.Migrations{Stage: "api", FS: migrationsFS}

const (
	keepKeys   = 24 * time.Hour
	keptAnswer = 1 << 20 // bytes; a longer answer is not kept
)

// keptHeaders are repeated with a kept answer.
var keptHeaders = []string{"Content-Type", "Location", "ETag"}

// slot is the row of one caller's key. The key itself is not kept, and what is kept can only be read with it: an answer
// may say what must be unreadable once its subject is erased, in backups too.
type slot struct {
	caller, name string
	aead         cipher.AEAD
}

func slotOf(caller, key string) (slot, error) {
	secret, err := hkdf.Extract(sha256.New, []byte(key), []byte("openthings/idempotency "+caller))
	if err != nil {
		return slot{}, err
	}
	name, err := hkdf.Expand(sha256.New, secret, "name", 16)
	if err != nil {
		return slot{}, err
	}
	k, err := hkdf.Expand(sha256.New, secret, "answer", 32)
	if err != nil {
		return slot{}, err
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return slot{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return slot{caller, hex.EncodeToString(name), aead}, err
}

// repeat is one row of api_idempotency.
type repeat struct {
	operation string
	status    int
	sealed    []byte // a kept
}

// kept is what a repeat is compared with and answered by.
type kept struct {
	Request []byte            `json:"request"` // SHA-256 of its body
	Head    map[string]string `json:"head"`    // nil: the answer is not kept
	Body    []byte            `json:"body"`
}

// once carries out a POST that has an Idempotency-Key, unless it was carried out before: then it repeats the answer.
// Only success is kept; what was refused had no effect and may be tried again under the same key.
func (a *API) once(op Op, caller string, w http.ResponseWriter, r *http.Request, next http.Handler) error {
	key := r.Header.Get("Idempotency-Key")
	if len(key) > 255 {
		return problem.Invalid("The Idempotency-Key is longer than 255 bytes.").At("header.Idempotency-Key")
	}
	operation := r.Method + " " + r.URL.EscapedPath() + "?" + r.URL.RawQuery
	at, err := slotOf(caller, key)
	if err != nil {
		return err
	}
	before, err := a.claimKey(r.Context(), at, operation)
	if err != nil {
		return err
	}
	sum := &summed{ReadCloser: r.Body, h: sha256.New()}
	if before != nil {
		return before.answer(w, at, operation, sum)
	}

	// What follows must be recorded even when the caller hangs up.
	ctx := context.WithoutCancel(r.Context())
	rec := &recorder{ResponseWriter: w}
	done := false
	defer func() {
		if !done {
			if err := a.dropKey(ctx, at); err != nil {
				a.cfg.Log.ErrorContext(ctx, "idempotency key stays taken", "request_id", RequestID(ctx), "err", err)
			}
		}
	}()
	r.Body = sum
	next.ServeHTTP(rec, r)
	if rec.status < 200 || rec.status > 299 {
		return nil
	}
	done = true
	if err := a.keepAnswer(ctx, at, op, sum, rec); err != nil {
		// The answer is out and the effect real: a repeat must not take effect again, so the key stays taken.
		a.cfg.Log.ErrorContext(ctx, "answer not kept for its idempotency key", "request_id", RequestID(ctx), "err", err)
	}
	return nil
}

func (a *API) claimKey(ctx context.Context, at slot, operation string) (before *repeat, err error) {
	err = a.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		before = nil
		now := a.cfg.Clock.Now()
		if _, err := tx.Exec(`DELETE FROM api_idempotency WHERE at < $1`, store.Millis(now.Add(-keepKeys))); err != nil {
			return err
		}
		n, err := tx.Exec(`INSERT INTO api_idempotency (caller, key, operation, status, body, at)
			VALUES ($1, $2, $3, 0, $4, $5) ON CONFLICT (caller, key) DO NOTHING`, at.caller, at.name, operation, []byte{}, store.Millis(now))
		if err != nil || n == 1 {
			return err
		}
		before = &repeat{}
		return tx.QueryRow(`SELECT operation, status, body FROM api_idempotency WHERE caller = $1 AND key = $2`, at.caller, at.name).
			Scan(&before.operation, &before.status, &before.sealed)
	})
	return before, err
}

func (a *API) dropKey(ctx context.Context, at slot) error {
	return a.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`DELETE FROM api_idempotency WHERE caller = $1 AND key = $2 AND status = 0`, at.caller, at.name)
		return err
	})
}

func (a *API) keepAnswer(ctx context.Context, at slot, op Op, sum *summed, rec *recorder) (err error) {
	var k kept
	if k.Request, err = sum.rest(); err != nil {
		return err
	}
	if !op.Secret && !rec.tooLong {
		k.Head, k.Body = map[string]string{}, rec.body.Bytes()
		for _, name := range keptHeaders {
			if v := rec.Header().Get(name); v != "" {
				k.Head[name] = v
			}
		}
	}
	plain, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return a.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE api_idempotency SET status = $1, body = $2 WHERE caller = $3 AND key = $4`,
			rec.status, at.aead.Seal(nil, nil, plain, nil), at.caller, at.name)
		return err
	})
}

// answer repeats what was answered before, if this is the same request.
func (p *repeat) answer(w http.ResponseWriter, at slot, operation string, sum *summed) error {
	if p.status == 0 {
		return problem.Conflict("A request with this Idempotency-Key is being carried out, or was when the platform stopped.").
			Hint("Read whether it took effect before you try again with a new key.")
	}
	plain, err := at.aead.Open(nil, nil, p.sealed, nil)
	if err != nil {
		return err
	}
	var k kept
	if err := json.Unmarshal(plain, &k); err != nil {
		return err
	}
	hash, err := sum.rest()
	if err != nil {
		return err
	}
	if p.operation != operation || !bytes.Equal(k.Request, hash) {
		return problem.Unprocessable("This Idempotency-Key was used for another request.").At("header.Idempotency-Key").Hint("Use a new key for a new request.")
	}
	if k.Head == nil {
		return problem.Conflict("This request was carried out before, and its answer is not kept.").
			Hint("An answer with a secret is shown only once; make a new one if it was lost.")
	}
	for name, v := range k.Head {
		w.Header().Set(name, v)
	}
	w.Header().Set("Idempotency-Replayed", "true")
	w.WriteHeader(p.status)
	_, err = w.Write(k.Body)
	if errors.Is(err, http.ErrBodyNotAllowed) {
		err = nil
	}
	return err
}

// summed hashes a body while it is read.
type summed struct {
	io.ReadCloser
	h hash.Hash
}

func (s *summed) Read(b []byte) (int, error) {
	n, err := s.ReadCloser.Read(b)
	s.h.Write(b[:n])
	return n, err
}

// rest reads what is left and returns the hash of the whole.
func (s *summed) rest() ([]byte, error) {
	if _, err := io.Copy(io.Discard, s); err != nil {
		return nil, err
	}
	return s.h.Sum(nil), nil
}

// recorder keeps a copy of the answer that passes through.
type recorder struct {
	http.ResponseWriter
	status  int
	body    bytes.Buffer
	tooLong bool
}

func (c *recorder) WriteHeader(status int) {
	if c.status == 0 {
		c.status = status
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *recorder) Write(b []byte) (int, error) {
	if c.status == 0 {
		c.status = http.StatusOK
	}
	if c.body.Len()+len(b) > keptAnswer {
		c.tooLong = true
	} else if !c.tooLong {
		c.body.Write(b)
	}
	return c.ResponseWriter.Write(b)
}

func (c *recorder) Unwrap() http.ResponseWriter { return c.ResponseWriter }
