// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/openthings-platform/openthings/update/trust"
)

// disk is the state directory.
type disk struct {
	dir string
	// cut is asked before each effect that outlives a power cut, and before each sync that makes effects certain; an
	// error means that the power is gone. Tests let it fail at every one in turn. nil: the power stays.
	cut func(effect string) error
}

func (d disk) path(name string) string { return filepath.Join(d.dir, name) }

func (d disk) powered(effect string) error {
	if d.cut == nil {
		return nil
	}
	return d.cut(effect)
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
		err = d.powered("sync " + name + ".tmp")
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return d.rename(name+".tmp", name)
}

func (d disk) rename(from, to string) error {
	if err := d.powered("rename " + from + " " + to); err != nil {
		return err
	}
	if err := os.Rename(d.path(from), d.path(to)); err != nil {
		return err
	}
	if err := d.powered("syncdir " + filepath.Dir(to) + " " + to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(d.path(to)))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func (d disk) read(name string) ([]byte, error) { return os.ReadFile(d.path(name)) }

func (d disk) writeJSON(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return d.write(name, b)
}

// readJSON leaves v as it is when there is no such file.
func (d disk) readJSON(name string, v any) error {
	b, err := d.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (d disk) exists(name string) bool {
	_, err := os.Stat(d.path(name))
	return err == nil
}

func (d disk) remove(name string) error {
	if err := d.powered("remove " + name); err != nil {
		return err
	}
	if err := os.Remove(d.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// shred overwrites a file with random bytes, then removes it. On flash this is best effort; see the wipe levels of the
// update note: without encryption from the first boot nothing stronger can be promised.
func (d disk) shred(name string) error {
	if err := d.powered("overwrite " + name); err != nil {
		return err
	}
	f, err := os.OpenFile(d.path(name), os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		_, err = io.CopyN(f, rand.Reader, info.Size())
	}
	if err == nil {
		err = d.powered("sync " + name)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return d.remove(name)
}

// record is the boot record: which slot runs, what is being tried, and how far an update has come. It changes as a
// whole, so that a power cut falls between two steps and never inside one.
type record struct {
	Seq    uint64 `json:"seq"`  // of this record; the higher of two valid copies counts
	Boot   uint64 `json:"boot"` // number of this start
	Active string `json:"active"`
	// Trial is the slot armed to be started once; Tried says that it was. A start that finds both falls back to Active.
	Trial string `json:"trial,omitempty"`
	Tried bool   `json:"tried,omitempty"`

	Floor     int64 `json:"floor"`      // lowest security_version accepted
	DataFloor int64 `json:"data_floor"` // data generation of the committed image
	Metadata  int64 `json:"metadata"`   // highest version of signed targets seen

	Update *progress `json:"update,omitempty"`
	Done   []string  `json:"done,omitempty"` // updates that have ended, latest last
	Wiping string    `json:"wiping,omitempty"`

	Server string   `json:"server,omitempty"` // the MQTT door that the platform moved to for good, host:port
	Chain  chainEnd `json:"chain"`            // of security events, as it was at this start
}

// progress is one update from offer to acknowledged report.
type progress struct {
	ID      string        `json:"id"`
	Release string        `json:"release"`
	Path    string        `json:"path"`             // target path inside the signed metadata
	Target  *trust.Target `json:"target,omitempty"` // once decided
	State   string        `json:"state"`            // of wire.Update…, or rollingBack
	Rule    string        `json:"rule,omitempty"`
	Reason  string        `json:"reason,omitempty"`
	Rounds  int           `json:"rounds"` // starts of the machine on this update
}

// slotInfo is what the signed metadata said of the image in a slot.
type slotInfo struct {
	Version         string `json:"version"`
	SecurityVersion int64  `json:"security_version"`
	DataFloor       int64  `json:"data_floor"`
	Image           string `json:"image"`
}

var errNoRecord = errors.New("agent: both copies of the boot record are unreadable")

type checked struct {
	CRC    uint32          `json:"crc"`
	Record json.RawMessage `json:"record"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// load returns the newest boot record whose checksum is right.
func (d disk) load() (record, error) {
	var best record
	found := false
	for _, name := range []string{"boot.0", "boot.1"} {
		b, err := d.read(name)
		if err != nil {
			continue
		}
		if r, ok := readRecord(b); ok && (!found || r.Seq > best.Seq) {
			best, found = r, true
		}
	}
	if !found {
		return record{}, errNoRecord
	}
	return best, nil
}

func readRecord(b []byte) (record, bool) {
	var c checked
	var r record
	if json.Unmarshal(b, &c) != nil || crc32.Checksum(c.Record, castagnoli) != c.CRC || json.Unmarshal(c.Record, &r) != nil {
		return record{}, false
	}
	return r, (r.Active == "a" || r.Active == "b") && r.Floor >= 0
}

// save writes r over the older copy and raises its sequence.
func (d disk) save(r *record) error {
	next := *r
	next.Seq++
	b, err := json.Marshal(next)
	if err != nil {
		return err
	}
	err = d.writeJSON(fmt.Sprintf("boot.%d", next.Seq%2), checked{CRC: crc32.Checksum(b, castagnoli), Record: b})
	if err == nil {
		r.Seq = next.Seq
	}
	return err
}

func slotFile(slot string) string { return "slot-" + slot }

func other(slot string) string {
	if slot == "a" {
		return "b"
	}
	return "a"
}
