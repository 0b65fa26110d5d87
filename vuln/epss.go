// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/feed"
)

// One day of EPSS has about 340,000 scores. A row each is 8 seconds of writing a day (24 on PostgreSQL) to answer for the few
// hundred CVEs that a tenant has; kept only for the records known at import, a record that comes an hour later would have
// none until the next day. So all are kept, 10 bytes each, 4,096 consecutive numbers of a year in one row: 3.4 MB in about
// 250 rows, replaced in one transaction, and one short row is read for each CVE asked about. Figures: decision 0040.
const (
	bucketBits = 12
	scoreBytes = 2 + 4 + 4 // number inside the bucket, probability and percentile in hundred-thousandths
)

// EPSS is how likely a CVE is to be exploited within 30 days.
type EPSS struct {
	Probability float64   `json:"probability"`
	Percentile  float64   `json:"percentile"`
	Model       string    `json:"model"`
	Date        time.Time `json:"date"`
}

func bucketOf(year, number uint32) int64 { return int64(year)<<32 | int64(number>>bucketBits) }

// putScores replaces the scores by those of another day, or leaves them if they are newer already.
func (s *Service) putScores(ctx context.Context, tenant string, e *feed.EPSS) error {
	var buckets []int64
	rows := map[int64][]byte{}
	for _, x := range e.Scores {
		b := bucketOf(x.Year, x.Number)
		if rows[b] == nil {
			buckets = append(buckets, b)
		}
		row := binary.BigEndian.AppendUint16(rows[b], uint16(x.Number&(1<<bucketBits-1)))
		row = binary.BigEndian.AppendUint32(row, x.Probability)
		rows[b] = binary.BigEndian.AppendUint32(row, x.Percentile)
	}
	all := make([][]any, 0, len(buckets))
	for _, b := range buckets {
		all = append(all, []any{tenant, b, rows[b]})
	}
	return s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
		var day int64
		err := tx.QueryRow(`SELECT day FROM vuln_epss_day WHERE tenant = $1`, tenant).Scan(&day)
		if err != nil && !errors.Is(err, store.ErrNoRows) || day > store.Millis(e.Date) {
			return err
		}
		if _, err := tx.Exec(`DELETE FROM vuln_epss WHERE tenant = $1`, tenant); err != nil {
			return err
		}
		if err := tx.InsertMany(`INSERT INTO vuln_epss (tenant, bucket, body)`, all, ``); err != nil {
			return err
		}
		_, err = tx.Exec(`INSERT INTO vuln_epss_day (tenant, model, day, scores) VALUES ($1, $2, $3, $4)
			ON CONFLICT (tenant) DO UPDATE SET model = excluded.model, day = excluded.day, scores = excluded.scores`, tenant, e.Model, store.Millis(e.Date), int64(len(e.Scores)))
		return err
	})
}

// Scores tells the EPSS of those of the CVEs that have one.
func (s *Service) Scores(tx *store.Tx, tenant string, cves []string) (map[string]EPSS, error) {
	var day EPSS
	var at int64
	err := tx.QueryRow(`SELECT model, day FROM vuln_epss_day WHERE tenant = $1`, tenant).Scan(&day.Model, &at)
	if errors.Is(err, store.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	day.Date = store.Time(at)
	asked := map[int64][]string{}
	for _, cve := range cves {
		if year, number, ok := feed.CVENumber(cve); ok {
			b := bucketOf(year, number)
			asked[b] = append(asked[b], cve)
		}
	}
	out := make(map[string]EPSS, len(cves))
	for b, names := range asked {
		var body []byte
		err := tx.QueryRow(`SELECT body FROM vuln_epss WHERE tenant = $1 AND bucket = $2`, tenant, b).Scan(&body)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(body)%scoreBytes != 0 {
			return nil, fmt.Errorf("vuln: a row of scores has %d bytes", len(body))
		}
		for _, name := range names {
			_, number, _ := feed.CVENumber(name)
			low := uint16(number & (1<<bucketBits - 1))
			i := sort.Search(len(body)/scoreBytes, func(i int) bool { return binary.BigEndian.Uint16(body[i*scoreBytes:]) >= low })
			if i*scoreBytes < len(body) && binary.BigEndian.Uint16(body[i*scoreBytes:]) == low {
				x := day
				x.Probability = float64(binary.BigEndian.Uint32(body[i*scoreBytes+2:])) / 100_000
				x.Percentile = float64(binary.BigEndian.Uint32(body[i*scoreBytes+6:])) / 100_000
				out[name] = x
			}
		}
	}
	return out, nil
}

// scoresDay is the model and date of the scores that are known; nil: none.
func (s *Service) scoresDay(ctx context.Context, tenant string) (*EPSS, error) {
	var day EPSS
	var at int64
	err := s.cfg.DB.QueryRow(ctx, `SELECT model, day FROM vuln_epss_day WHERE tenant = $1`, tenant).Scan(&day.Model, &at)
	if errors.Is(err, store.ErrNoRows) {
		return nil, nil
	}
	day.Date = store.Time(at)
	return &day, err
}
