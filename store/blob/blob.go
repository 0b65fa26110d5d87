// SPDX-License-Identifier: AGPL-3.0-only

// Package blob keeps immutable bytes under their SHA-256: firmware images, uploaded bills of materials.
//
// A blob exists whole or not at all (temporary file, fsync, rename, fsync of the folder), and is put before the row
// that names it: a crash leaves an orphan, never a hole.
package blob

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/openthings-platform/openthings/problem"
)

// Store keeps blobs. Dir is one; an S3-compatible one comes with the server engines.
type Store interface {
	// Put stores at most max bytes of r and returns their digest ("sha256:<hex>") and size. Putting the same bytes
	// again is harmless. More than max is problem.TooLarge.
	Put(ctx context.Context, r io.Reader, max int64) (digest string, size int64, err error)
	// Open returns the bytes, or problem.NotFound.
	Open(ctx context.Context, digest string) (io.ReadSeekCloser, error)
}

// Dir keeps blobs as files below a folder.
type Dir struct{ path string }

// NewDir makes the folder if need be.
func NewDir(path string) (*Dir, error) {
	if err := os.MkdirAll(filepath.Join(path, "sha256"), 0o700); err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	return &Dir{path: path}, nil
}

// Put implements Store.
func (d *Dir) Put(ctx context.Context, r io.Reader, max int64) (string, int64, error) {
	tmp := filepath.Join(d.path, "tmp-"+rand.Text())
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", 0, fmt.Errorf("blob: %w", err)
	}
	defer os.Remove(tmp) // after the rename it is gone already
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), &ctxReader{ctx: ctx, r: io.LimitReader(r, max+1)})
	if err == nil && n > max {
		err = problem.TooLarge("the upload is larger than %d bytes", max)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", 0, err
	}
	sum := hex.EncodeToString(h.Sum(nil))
	folder := filepath.Join(d.path, "sha256", sum[:2])
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", 0, fmt.Errorf("blob: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(folder, sum)); err != nil {
		return "", 0, fmt.Errorf("blob: %w", err)
	}
	for _, p := range []string{folder, filepath.Dir(folder)} {
		if err := syncDir(p); err != nil {
			return "", 0, fmt.Errorf("blob: %w", err)
		}
	}
	return "sha256:" + sum, n, nil
}

// Open implements Store.
func (d *Dir) Open(_ context.Context, digest string) (io.ReadSeekCloser, error) {
	sum, ok := strings.CutPrefix(digest, "sha256:")
	if raw, err := hex.DecodeString(sum); !ok || err != nil || len(raw) != sha256.Size || sum != strings.ToLower(sum) {
		return nil, problem.Invalid("%.80q is not a digest", digest).Hint("write sha256: and 64 lower-case hex digits")
	}
	f, err := os.Open(filepath.Join(d.path, "sha256", sum[:2], sum))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, problem.NotFound("there is no blob %s", digest)
	}
	if err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	return f, nil
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// ctxReader ends a copy when its caller has gone.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
