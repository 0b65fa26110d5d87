// SPDX-License-Identifier: AGPL-3.0-only

package station

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/openthings-platform/openthings/problem"
)

// Files of a station's folder.
const (
	keyFile       = "station.key"
	certFile      = "station.pem"
	rootsFile     = "roots.pem"
	authorityKey  = "authority.key"
	authorityFile = "authority.pem"
	permitFile    = "permit.txt"
	configFile    = "station.json"
	journalFile   = "journal.log"
	nextKeyFile   = "station.key.next" // of a renewal whose answer has not come yet
	lockFile      = "lock"
)

// disk is the station's folder.
type disk struct {
	dir string
	// cut is asked before each effect that outlives a power cut; an error means that the power is gone. Tests let it
	// fail at every effect in turn. nil: the power stays.
	cut func(effect string) error
}

func (d disk) path(name string) string { return filepath.Join(d.dir, name) }

func (d disk) powered(effect string) error {
	if d.cut == nil {
		return nil
	}
	return d.cut(effect)
}

func (d disk) read(name string) ([]byte, error) { return os.ReadFile(d.path(name)) }

func (d disk) has(name string) bool {
	_, err := os.Stat(d.path(name))
	return err == nil
}

// write replaces a file so that a power cut leaves the old or the new content, never a mixture.
func (d disk) write(name string, b []byte) error {
	if err := d.powered("write " + name); err != nil {
		return err
	}
	tmp := d.path(name) + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return d.rename(name+".tmp", name)
}

func (d disk) rename(from, to string) error {
	if err := d.powered("rename " + from); err != nil {
		return err
	}
	if err := os.Rename(d.path(from), d.path(to)); err != nil {
		return err
	}
	return d.sync()
}

func (d disk) remove(name string) error {
	if err := d.powered("remove " + name); err != nil {
		return err
	}
	if err := os.Remove(d.path(name)); err != nil {
		return err
	}
	return d.sync()
}

// sync flushes the folder: new names are on disk.
func (d disk) sync() error {
	f, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// lock keeps other processes out of the folder until release.
func (d disk) lock() (release func(), err error) {
	f, err := os.OpenFile(d.path(lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { f.Close() }, nil //nolint:errcheck // closing ends the lock
}

// folder makes the station's folder, or refuses one that others can read.
func folder(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return err
	}
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 {
		return problem.Invalid("%s is not a folder that its owner alone can read.", dir).Hint("chmod 700 %s", dir)
	}
	return nil
}
