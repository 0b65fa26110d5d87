// SPDX-License-Identifier: AGPL-3.0-only

package seal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// maxSecret bounds what is read of a key file.
const maxSecret = 4096

// makeDir makes a directory for its owner alone, or checks that an existing one is.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("seal: %s is not a directory", dir)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("seal: the key directory %s is open to others (mode %04o); run: chmod 700 %s", dir, info.Mode().Perm(), dir)
	}
	return syncDir(filepath.Dir(dir))
}

// readSecret reads a key file and refuses one that others can read, or that is a link.
func readSecret(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("seal: %s is not a regular file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("seal: the key file %s is open to others (mode %04o); run: chmod 600 %s", path, info.Mode().Perm(), path)
	case info.Size() > maxSecret:
		return nil, fmt.Errorf("seal: %s is not a key file", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return b, nil
}

// writeOnce makes a key file that is either absent or whole, also after a power cut, and fails with os.ErrExist if it
// is there already.
func writeOnce(path string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	if err := os.Link(f.Name(), path); err != nil { // unlike a rename it never replaces
		return fmt.Errorf("seal: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// shred overwrites a key file and removes it. On storage that writes elsewhere (SSD, copy-on-write) the overwriting
// may miss; then the platform key, which wraps every epoch key, and full-disk encryption are what protect it.
func shred(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	info, err := f.Stat()
	if err == nil {
		_, err = f.WriteAt(make([]byte, info.Size()), 0)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	return nil
}
