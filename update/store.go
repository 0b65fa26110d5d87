// SPDX-License-Identifier: AGPL-3.0-only

package update

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/update/trust"
)

type scanner interface{ Scan(...any) error }

const releaseColumns = `id, tenant, product, version, security_version, data_floor, min_from, class, path, hw, image, length, sbom, targets,
	signers, state, actor, created, published, withdrawn`

func scanRelease(r scanner) (Release, error) {
	var x Release
	var hw, signers string
	var created, published, withdrawn int64
	err := r.Scan(&x.ID, &x.Tenant, &x.Product, &x.Version, &x.SecurityVersion, &x.DataFloor, &x.MinFrom, &x.Class, &x.Path, &hw, &x.Image, &x.Length,
		&x.SBOM, &x.Targets, &signers, &x.State, &x.Actor, &created, &published, &withdrawn)
	if err != nil {
		return Release{}, err
	}
	x.Created, x.Published, x.Withdrawn = store.Time(created), store.Time(published), store.Time(withdrawn)
	return x, errors.Join(json.Unmarshal([]byte(hw), &x.HW), json.Unmarshal([]byte(signers), &x.Signers))
}

func insertRelease(tx *store.Tx, r Release) error {
	hw, err := json.Marshal(r.HW)
	if err != nil {
		return err
	}
	signers, err := json.Marshal(r.Signers)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO release(`+releaseColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, 0, 0)`,
		r.ID, r.Tenant, r.Product, r.Version, r.SecurityVersion, r.DataFloor, r.MinFrom, r.Class, r.Path, string(hw), r.Image, r.Length, r.SBOM, r.Targets,
		string(signers), r.State, r.Actor, store.Millis(r.Created))
	if store.IsUnique(err) {
		return problem.Conflict("There is a release %s already, or one with this very image.", r.Path)
	}
	return err
}

func listReleases(ctx context.Context, db *store.DB, tenant, product string) ([]Release, error) {
	rows, err := db.Query(ctx, `SELECT `+releaseColumns+` FROM release WHERE tenant = $1 AND (product = $2 OR $2 = '' AND state <> 'watched') ORDER BY created DESC, id DESC`, tenant, product)
	return store.Collect(rows, err, func(r *sql.Rows) (Release, error) { return scanRelease(r) })
}

func setReleaseState(tx *store.Tx, tenant, id string, s State) error {
	_, err := tx.Exec(`UPDATE release SET state = $1 WHERE tenant = $2 AND id = $3`, s, tenant, id)
	return err
}

// highestPublished is the highest security_version that was ever published for a product, withdrawn ones included.
func highestPublished(tx *store.Tx, tenant, product string) (int64, error) {
	var n int64
	err := tx.QueryRow(`SELECT COALESCE(MAX(security_version), 0) FROM release WHERE tenant = $1 AND product = $2 AND published > 0`, tenant, product).Scan(&n)
	return n, err
}

// putCheck says false when the check has said exactly this before.
func putCheck(tx *store.Tx, tenant, release string, c Check) (changed bool, err error) {
	n, err := tx.Exec(`INSERT INTO release_check(release_id, tenant, name, verdict, evidence, actor, at) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (release_id, name) DO UPDATE SET verdict = excluded.verdict, evidence = excluded.evidence, actor = excluded.actor, at = excluded.at
		WHERE release_check.verdict <> excluded.verdict OR release_check.evidence <> excluded.evidence`,
		release, tenant, c.Name, c.Verdict, c.Evidence, c.By, store.Millis(c.At))
	return n == 1, err
}

func checksOf(query func(string, ...any) (*sql.Rows, error), tenant, release string) ([]Check, error) {
	rows, err := query(`SELECT name, verdict, evidence, actor, at FROM release_check WHERE tenant = $1 AND release_id = $2 ORDER BY name`, tenant, release)
	return store.Collect(rows, err, func(r *sql.Rows) (c Check, err error) {
		var at int64
		err = r.Scan(&c.Name, &c.Verdict, &c.Evidence, &c.By, &at)
		c.At = store.Time(at)
		return c, err
	})
}

func latestRoot(query func(context.Context, string, ...any) *sql.Row, ctx context.Context, tenant string) (doc []byte, err error) {
	err = query(ctx, `SELECT doc FROM trust_root WHERE tenant = $1 ORDER BY version DESC LIMIT 1`, tenant).Scan(&doc)
	return doc, err
}

func rootAt(ctx context.Context, db *store.DB, tenant string, version int64) (doc []byte, err error) {
	err = db.QueryRow(ctx, `SELECT doc FROM trust_root WHERE tenant = $1 AND version = $2`, tenant, version).Scan(&doc)
	return doc, err
}

func insertRoot(tx *store.Tx, tenant string, r *trust.Root, actor string, at time.Time) error {
	_, err := tx.Exec(`INSERT INTO trust_root(tenant, version, doc, expires, at, actor) VALUES ($1, $2, $3, $4, $5, $6)`,
		tenant, r.Version, r.Raw, store.Millis(r.Expires), store.Millis(at), actor)
	if store.IsUnique(err) {
		return problem.Conflict("Root version %d exists already.", r.Version)
	}
	return err
}

// putTargets stores a signed list. A list with a known version must be the very same bytes, and a new one must be newer
// than all before it.
func putTargets(tx *store.Tx, tenant string, t *trust.Targets, doc []byte, at time.Time) error {
	var have []byte
	err := tx.QueryRow(`SELECT doc FROM trust_targets WHERE tenant = $1 AND version = $2`, tenant, t.Version).Scan(&have)
	switch {
	case err == nil && string(have) == string(doc):
		return nil
	case err == nil:
		return problem.Forbidden("update."+trust.RuleRollback, "Another signed list with version %d is known already.", t.Version)
	case !errors.Is(err, store.ErrNoRows):
		return err
	}
	var newest int64
	if err := tx.QueryRow(`SELECT COALESCE(MAX(version), 0) FROM trust_targets WHERE tenant = $1`, tenant).Scan(&newest); err != nil {
		return err
	}
	if t.Version < newest {
		return problem.Forbidden("update."+trust.RuleRollback, "The signed list has version %d; version %d is known already.", t.Version, newest).
			Hint("Sign from the folder that holds the latest targets.json.")
	}
	_, err = tx.Exec(`INSERT INTO trust_targets(tenant, version, doc, expires, at) VALUES ($1, $2, $3, $4, $5)`,
		tenant, t.Version, doc, store.Millis(t.Expires), store.Millis(at))
	return err
}

// relist points the releases that a newer list still names at that list.
func relist(tx *store.Tx, tenant string, t *trust.Targets) error {
	for path, target := range t.Targets {
		if _, err := tx.Exec(`UPDATE release SET targets = $1 WHERE tenant = $2 AND path = $3 AND image = $4 AND targets < $1`, t.Version, tenant, path, target.SHA256); err != nil {
			return err
		}
	}
	return nil
}

func targetsDoc(ctx context.Context, db *store.DB, tenant string, version int64) (doc []byte, err error) {
	err = db.QueryRow(ctx, `SELECT doc FROM trust_targets WHERE tenant = $1 AND version = $2`, tenant, version).Scan(&doc)
	return doc, err
}

const deploymentColumns = `id, tenant, release_id, product, solution, state, reason, wave, actor, created, ended, override`

func scanDeployment(r scanner) (Deployment, error) {
	var d Deployment
	var created, ended int64
	err := r.Scan(&d.ID, &d.Tenant, &d.Release, &d.Product, &d.Solution, &d.State, &d.Reason, &d.Wave, &d.Actor, &created, &ended, &d.Override)
	d.Created, d.Ended = store.Time(created), store.Time(ended)
	return d, err
}

func insertDeployment(tx *store.Tx, d Deployment) error {
	_, err := tx.Exec(`INSERT INTO deployment(`+deploymentColumns+`) VALUES ($1, $2, $3, $4, $5, $6, '', 0, $7, $8, 0, $9)`,
		d.ID, d.Tenant, d.Release, d.Product, d.Solution, d.State, d.Actor, store.Millis(d.Created), d.Override)
	for _, w := range d.Waves {
		if err != nil {
			return err
		}
		_, err = tx.Exec(`INSERT INTO wave(deployment_id, n, tenant, percent, state, opened, closed) VALUES ($1, $2, $3, $4, $5, $6, 0)`,
			d.ID, w.N, d.Tenant, w.Percent, w.State, store.Millis(w.Opened))
	}
	return err
}

// loadDeployment reads a deployment with its waves.
func loadDeployment(tx *store.Tx, tenant, id string) (Deployment, error) {
	d, err := one(scanDeployment(tx.QueryRow(`SELECT `+deploymentColumns+` FROM deployment WHERE tenant = $1 AND id = $2`, tenant, id)))("deployment")
	if err != nil {
		return Deployment{}, err
	}
	rows, err := tx.Query(`SELECT n, percent, state, opened, closed FROM wave WHERE tenant = $1 AND deployment_id = $2 ORDER BY n`, tenant, id)
	d.Waves, err = store.Collect(rows, err, func(r *sql.Rows) (w Wave, err error) {
		var opened, closed int64
		err = r.Scan(&w.N, &w.Percent, &w.State, &opened, &closed)
		w.Opened, w.Closed = store.Time(opened), store.Time(closed)
		return w, err
	})
	return d, err
}

// listDeployments returns deployments without their waves, the newest first; empty arguments mean all.
func listDeployments(ctx context.Context, db *store.DB, tenant, release, state string) ([]Deployment, error) {
	rows, err := db.Query(ctx, `SELECT `+deploymentColumns+` FROM deployment WHERE tenant = $1 AND ($2 = '' OR release_id = $2) AND ($3 = '' OR state = $3)
		ORDER BY created DESC, id DESC`, tenant, release, state)
	return store.Collect(rows, err, func(r *sql.Rows) (Deployment, error) { return scanDeployment(r) })
}

// moveDeployment changes the state while the old one still holds; false means that somebody else was faster.
func moveDeployment(tx *store.Tx, d Deployment, to, reason string, ended time.Time) (bool, error) {
	n, err := tx.Exec(`UPDATE deployment SET state = $1, reason = $2, ended = $3 WHERE tenant = $4 AND id = $5 AND state = $6`,
		to, reason, store.Millis(ended), d.Tenant, d.ID, d.State)
	return n == 1, err
}

// openWave closes wave n and opens the next one; false means that it was done already.
func openWave(tx *store.Tx, d Deployment, at time.Time) (bool, error) {
	n, err := tx.Exec(`UPDATE deployment SET wave = wave + 1 WHERE tenant = $1 AND id = $2 AND wave = $3 AND state = $4`, d.Tenant, d.ID, d.Wave, Running)
	if err != nil || n == 0 {
		return false, err
	}
	if err := setWave(tx, d, d.Wave, WaveDone, at); err != nil {
		return false, err
	}
	return true, setWave(tx, d, d.Wave+1, WaveOpen, at)
}

func setWave(tx *store.Tx, d Deployment, n int64, state string, at time.Time) error {
	column := "opened"
	if state == WaveDone {
		column = "closed"
	}
	_, err := tx.Exec(`UPDATE wave SET state = $1, `+column+` = $2 WHERE tenant = $3 AND deployment_id = $4 AND n = $5`, state, store.Millis(at), d.Tenant, d.ID, n)
	return err
}

const updateColumns = `id, deployment_id, release_id, device, wave, state, rule, reason, offered, ended`

func scanUpdate(r scanner) (Update, error) {
	var u Update
	var offered, ended int64
	err := r.Scan(&u.ID, &u.Deployment, &u.Release, &u.Device, &u.Wave, &u.State, &u.Rule, &u.Reason, &offered, &ended)
	u.Offered, u.Ended = store.Time(offered), store.Time(ended)
	return u, err
}

func insertUpdate(tx *store.Tx, tenant string, u Update) (bool, error) {
	n, err := tx.Exec(`INSERT INTO device_update(tenant, `+updateColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, '', '', $8, 0) ON CONFLICT (deployment_id, device) DO NOTHING`,
		tenant, u.ID, u.Deployment, u.Release, u.Device, u.Wave, u.State, store.Millis(u.Offered))
	return n == 1, err
}

// retractUpdate removes an offer that never reached its device.
func retractUpdate(tx *store.Tx, tenant, id string) error {
	_, err := tx.Exec(`DELETE FROM device_update WHERE tenant = $1 AND id = $2 AND state = $3`, tenant, id, Offered)
	return err
}

// moveUpdate changes an update that has not ended; false means that it had.
func moveUpdate(tx *store.Tx, tenant, id, state, rule, reason string, ended time.Time) (bool, error) {
	n, err := tx.Exec(`UPDATE device_update SET state = $1, rule = $2, reason = $3, ended = $4 WHERE tenant = $5 AND id = $6 AND ended = 0`,
		state, rule, reason, store.Millis(ended), tenant, id)
	return n == 1, err
}

func getUpdate(tx *store.Tx, tenant, device, id string) (Update, error) {
	return one(scanUpdate(tx.QueryRow(`SELECT `+updateColumns+` FROM device_update WHERE tenant = $1 AND id = $2 AND device = $3`, tenant, id, device)))("update")
}

// updatesOf returns the updates of a deployment, or with a device the latest ones of that device.
func updatesOf(ctx context.Context, db *store.DB, tenant, deployment, device string, limit int) ([]Update, error) {
	rows, err := db.Query(ctx, `SELECT `+updateColumns+` FROM device_update WHERE tenant = $1 AND ($2 = '' OR deployment_id = $2) AND ($3 = '' OR device = $3)
		ORDER BY offered DESC, id DESC LIMIT $4`, tenant, deployment, device, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (Update, error) { return scanUpdate(r) })
}

// Firmware is what a device last said of the software that runs on it.
type Firmware struct {
	Release         string    `json:"release,omitempty" doc:"Empty: the image is not that of a known release"`
	Version         string    `json:"version"`
	SecurityVersion int64     `json:"security_version"`
	Image           string    `json:"image"`
	Slot            string    `json:"slot"`
	Floor           int64     `json:"floor"`
	Boot            int64     `json:"boot"`
	Agent           string    `json:"agent"`
	At              time.Time `json:"at"`
}

// putFirmware says false when a later report is known already.
func putFirmware(tx *store.Tx, tenant, device string, f Firmware) (bool, error) {
	n, err := tx.Exec(`INSERT INTO firmware(tenant, device, release_id, version, security_version, image, slot, floor, boot, agent, at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (tenant, device) DO UPDATE SET release_id = excluded.release_id,
		version = excluded.version, security_version = excluded.security_version, image = excluded.image, slot = excluded.slot, floor = excluded.floor,
		boot = excluded.boot, agent = excluded.agent, at = excluded.at WHERE excluded.at >= firmware.at`,
		tenant, device, f.Release, f.Version, f.SecurityVersion, f.Image, f.Slot, f.Floor, f.Boot, f.Agent, store.Millis(f.At))
	return n == 1, err
}

// Firmware returns what a device last said of its software, or problem.NotFound.
func (s *Service) Firmware(ctx context.Context, tenant, device string) (Firmware, error) {
	var f Firmware
	var at int64
	err := s.cfg.DB.QueryRow(ctx, `SELECT release_id, version, security_version, image, slot, floor, boot, agent, at FROM firmware WHERE tenant = $1 AND device = $2`, tenant, device).
		Scan(&f.Release, &f.Version, &f.SecurityVersion, &f.Image, &f.Slot, &f.Floor, &f.Boot, &f.Agent, &at)
	f.At = store.Time(at)
	return one(f, err)("report of this device's software")
}

// countWaves counts the devices that have begun, by wave and state.
func countWaves(ctx context.Context, db *store.DB, tenant, deployment string) (map[int64]map[string]int64, error) {
	counts := map[int64]map[string]int64{}
	rows, err := db.Query(ctx, `SELECT wave, state, COUNT(*) FROM device_update WHERE tenant = $1 AND deployment_id = $2 GROUP BY wave, state`, tenant, deployment)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var wave, n int64
		var state string
		err := r.Scan(&wave, &state, &n)
		if counts[wave] == nil {
			counts[wave] = map[string]int64{}
		}
		counts[wave][state] = n
		return struct{}{}, err
	})
	return counts, err
}

// ProductsOf is the product of each of these releases and deployments of the tenant, by id.
func (s *Service) ProductsOf(ctx context.Context, tenant string, ids []string) (map[string]string, error) {
	in, args := store.In([]any{tenant}, ids)
	return store.Pairs(s.cfg.DB.Query(ctx, `SELECT id, product FROM release WHERE tenant = $1 AND id IN `+in+` UNION ALL SELECT id, product FROM deployment WHERE tenant = $1 AND id IN `+in, args...))
}
