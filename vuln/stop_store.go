// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"database/sql"
	"errors"

	"github.com/openthings-platform/openthings/store"
)

func stopPolicy(tx *store.Tx, tenant, product string) (StopSetting, error) {
	out := StopSetting{Product: product, Policy: StopOff}
	var at int64
	err := tx.QueryRow(`SELECT policy, actor, at FROM vuln_stop_policy WHERE tenant = $1 AND product = $2`, tenant, product).Scan(&out.Policy, &out.By, &at)
	if errors.Is(err, store.ErrNoRows) {
		return out, nil
	}
	out.At = store.Time(at)
	return out, err
}

func putStopPolicy(tx *store.Tx, tenant string, p StopSetting) error {
	_, err := tx.Exec(`INSERT INTO vuln_stop_policy (tenant, product, policy, actor, at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (tenant, product) DO UPDATE SET policy = excluded.policy, actor = excluded.actor, at = excluded.at`,
		tenant, p.Product, string(p.Policy), p.By, store.Millis(p.At))
	return err
}

func productsThatAsk(tx *store.Tx, tenant string) ([]string, error) {
	rows, err := tx.Query(`SELECT product FROM vuln_stop_policy WHERE tenant = $1 AND policy = $2 ORDER BY product`, tenant, string(StopAsk))
	return store.Collect(rows, err, func(r *sql.Rows) (p string, err error) { return p, r.Scan(&p) })
}

// notStopped leaves the releases whose making was never stopped because of the vulnerability, by any of its names.
func notStopped(tx *store.Tx, tenant, group string, releases []string) ([]string, error) {
	rows, err := tx.Query(`SELECT DISTINCT v.release_id FROM vuln_stopped v JOIN vuln_member m ON m.tenant = v.tenant AND m.ident = v.ident
		WHERE v.tenant = $1 AND m.group_id = $2`, tenant, group)
	stopped := map[string]bool{}
	if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var id string
		err := r.Scan(&id)
		stopped[id] = true
		return struct{}{}, err
	}); err != nil {
		return nil, err
	}
	var out []string
	for _, r := range releases {
		if !stopped[r] {
			out = append(out, r)
		}
	}
	return out, nil
}

// releasesOf are the releases of a product that vuln has heard of.
func releasesOf(tx *store.Tx, tenant, product string) ([]string, error) {
	rows, err := tx.Query(`SELECT release_id FROM vuln_release WHERE tenant = $1 AND product = $2 ORDER BY release_id`, tenant, product)
	return store.Collect(rows, err, func(r *sql.Rows) (id string, err error) { return id, r.Scan(&id) })
}

func versionsByImage(tx *store.Tx, tenant, product string) (map[string]string, error) {
	out := map[string]string{}
	rows, err := tx.Query(`SELECT image, version FROM vuln_release WHERE tenant = $1 AND product = $2 AND image <> ''`, tenant, product)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var image, version string
		err := r.Scan(&image, &version)
		out[image] = version
		return struct{}{}, err
	})
	return out, err
}
