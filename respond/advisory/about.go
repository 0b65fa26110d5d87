// SPDX-License-Identifier: AGPL-3.0-only

package advisory

import (
	"context"
	"errors"

	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/csaf"
)

// About is the newest revision of what was published for everybody about a vulnerability of a product: the file's name, its
// address and the document. Without one the document is nil.
func (s *Service) About(ctx context.Context, t, product, vulnerability string) (file, url string, document []byte, err error) {
	p, _, err := s.publisher(ctx, t)
	if err != nil {
		return "", "", nil, err
	}
	var e entry
	var initial int64
	err = s.cfg.DB.QueryRow(ctx, `SELECT a.tracking, a.initial, v.document FROM respond_advisory a JOIN respond_advisory_revision v ON v.advisory = a.id AND v.number = a.revision
		WHERE a.tenant = $1 AND a.tlp = $2 AND a.revision > 0 AND a.product = $3 AND a.vuln = $4 ORDER BY a.latest DESC, a.id DESC LIMIT 1`,
		t, csaf.TLPWhite, product, vulnerability).Scan(&e.tracking, &initial, &e.document)
	if errors.Is(err, store.ErrNoRows) {
		return "", "", nil, nil
	}
	return csaf.Filename(e.tracking), p.at(csaf.TLPWhite, store.Time(initial), e.tracking, ""), e.document, err
}
