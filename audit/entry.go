// SPDX-License-Identifier: AGPL-3.0-only

package audit

import (
	"crypto/rand"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema holds the log's tables.
var Schema = store.Migrations{Stage: "audit", FS: migrationsFS}

// Entry is what a stage tells the log.
type Entry struct {
	Tenant  string // "" is the platform itself
	Actor   string // id of who did it: "per_…", "tok_…", "host", "system", "dev_…"
	Kind    string // noun.verb: "device.claimed"
	Subject string // the id it is about
	Data    any    // becomes JSON of at most MaxData bytes
}

// MaxData is the size of an entry's JSON, in bytes. Larger things are kept elsewhere and named by their digest.
const MaxData = 64 << 10

var kindName = regexp.MustCompile(`^[a-z][a-z0-9_-]*(\.[a-z][a-z0-9_-]*)+$`)

// Append adds an entry in the transaction of the business rows it tells of. It is pending until the sequencer gives it
// a position, within a second; Log.Wait waits for that.
func Append(tx *store.Tx, e Entry) error {
	leaf, data, err := e.leaf(store.NewID("aud"), store.Millis(tx.DB().Clock().Now()))
	if err != nil {
		return err
	}
	return insert(tx, leaf, data)
}

func insert(tx *store.Tx, leaf wire.Leaf, data wire.LeafData) error {
	payload, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("audit: %s: %w", leaf.Kind, err)
	}
	hash := tlog.RecordHash(leaf.Bytes())
	_, err = tx.Exec(`INSERT INTO audit_entry(id, at, actor, tenant, kind, subject, digest, payload, leaf_hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		leaf.ID, leaf.At, leaf.Actor, leaf.Tenant, leaf.Kind, leaf.Subject, leaf.Data, payload, hash[:])
	if err != nil {
		return fmt.Errorf("audit: %s: %w", leaf.Kind, err)
	}
	return nil
}

// leaf checks e and makes what is hashed and what is kept beside it.
func (e Entry) leaf(id string, at int64) (wire.Leaf, wire.LeafData, error) {
	if !kindName.MatchString(e.Kind) {
		return wire.Leaf{}, wire.LeafData{}, fmt.Errorf("audit: kind %q is not noun.verb", e.Kind)
	}
	if e.Subject == "" || e.Actor == "" {
		return wire.Leaf{}, wire.LeafData{}, fmt.Errorf("audit: %s names no subject or no actor", e.Kind)
	}
	for _, s := range []string{e.Tenant, e.Actor, e.Subject} {
		if !utf8.ValidString(s) || strings.ContainsRune(s, 0) || len(s) > 256 {
			return wire.Leaf{}, wire.LeafData{}, fmt.Errorf("audit: %s: %q is not a usable id", e.Kind, s)
		}
	}
	b, err := json.Marshal(e.Data)
	if err != nil {
		return wire.Leaf{}, wire.LeafData{}, fmt.Errorf("audit: %s: %w", e.Kind, err)
	}
	if len(b) > MaxData {
		return wire.Leaf{}, wire.LeafData{}, fmt.Errorf("audit: %s: the data has %d bytes, more than %d", e.Kind, len(b), MaxData)
	}
	var salt [16]byte
	rand.Read(salt[:]) // never fails since Go 1.24
	data := wire.LeafData{Salt: hex.EncodeToString(salt[:]), Data: b}
	return wire.Leaf{ID: id, At: at, Tenant: e.Tenant, Actor: e.Actor, Kind: e.Kind, Subject: e.Subject, Data: data.Digest()}, data, nil
}
