// SPDX-License-Identifier: AGPL-3.0-only

package advisory

import (
	"context"
	"time"

	"github.com/openthings-platform/openthings/respond/pgp"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/csaf"
)

// Copy is the newest revision of a published advisory, for whoever keeps it where this platform is not.
type Copy struct {
	File      string // name, such as exa-2027-0001.json
	Title     string
	At        time.Time
	Document  []byte
	Signature string // armored, over Document
	Key       pgp.Key
}

// Copies returns what was published about a product for everybody, the newest change first.
func (s *Service) Copies(ctx context.Context, t, product string) (out []Copy, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		out = nil
		es, err := published(tx, t, csaf.TLPWhite, "")
		if err != nil {
			return err
		}
		keys, err := pgp.Of(tx, t)
		if err != nil {
			return err
		}
		for _, e := range es {
			if e.product != product {
				continue
			}
			revs, err := revisions(tx, t, e.id)
			if err != nil {
				return err
			}
			r := revs[len(revs)-1]
			c := Copy{File: csaf.Filename(e.tracking), Title: e.title, At: r.At, Document: r.document, Signature: r.signature}
			for _, k := range keys {
				if k.Fingerprint == r.Fingerprint {
					c.Key = k
				}
			}
			out = append(out, c)
		}
		return nil
	})
	return out, err
}
