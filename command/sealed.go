// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"crypto/cipher"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
)

// answer is what came of a command in the device's words. It is sealed as a whole.
type answer struct {
	Detail string          `json:"detail,omitempty"`
	Data   json.RawMessage `json:"data,omitempty"`
}

// bind is what a sealed column is bound to, besides the device's key.
func (c Command) bind(what string) []byte {
	return fmt.Appendf(nil, "command.%s\x00%s\x00%s\x00%s", what, c.Tenant, c.Device, c.ID)
}

// keyTx is the key of a device, which is made if it has none. After the erasure: seal.ErrDestroyed.
func (s *Service) keyTx(tx *store.Tx, tenant, device string) (cipher.AEAD, error) {
	key, err := s.cfg.Keys.SubjectTx(tx, tenant, device)
	if !problem.Is(err, problem.KindNotFound) {
		return key, err
	}
	if err := s.cfg.Keys.NewSubject(tx, tenant, device); err != nil {
		return nil, err
	}
	return s.cfg.Keys.SubjectTx(tx, tenant, device)
}

// sealAnswer returns what is kept of an answer: nothing when the device was erased meanwhile.
func (s *Service) sealAnswer(tx *store.Tx, c Command, a answer) ([]byte, error) {
	plain, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	key, err := s.keyTx(tx, c.Tenant, c.Device)
	if errors.Is(err, seal.ErrDestroyed) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return key.Seal(nil, nil, plain, c.bind("answer")), nil
}

// open reads what is sealed in commands of one device.
func (s *Service) open(ctx context.Context, cs ...*Command) error {
	if len(cs) == 0 {
		return nil
	}
	key, err := s.cfg.Keys.Subject(ctx, s.cfg.DB, cs[0].Tenant, cs[0].Device)
	if err != nil && !errors.Is(err, seal.ErrDestroyed) && !problem.Is(err, problem.KindNotFound) {
		return err
	}
	for _, c := range cs {
		if err := c.open(key); err != nil {
			return fmt.Errorf("command: %s of %s: %w", c.ID, c.Device, err)
		}
	}
	return nil
}

// open reads what is sealed in the command; without a key nobody can.
func (c *Command) open(key cipher.AEAD) (err error) {
	switch {
	case len(c.Args) > 0: // of an earlier version, and not sealed yet
		return nil
	case key == nil || len(c.asked) == 0:
		c.Args, c.Erased = json.RawMessage(`null`), true
		return nil
	}
	if c.Args, err = key.Open(nil, nil, c.asked, c.bind("args")); err != nil || len(c.answered) == 0 {
		return err
	}
	plain, err := key.Open(nil, nil, c.answered, c.bind("answer"))
	if err != nil {
		return err
	}
	var a answer
	if err := json.Unmarshal(plain, &a); err != nil {
		return err
	}
	c.Result = a.Data
	if a.Detail != "" {
		c.Reason = a.Detail
	}
	return nil
}

// parts returns a page of a job's devices with the words of those that have answered.
func (s *Service) parts(ctx context.Context, j Job, state, after string, limit int) ([]Part, error) {
	ps, err := parts(ctx, s.cfg.DB, j.Tenant, j.ID, state, after, limit)
	if err != nil {
		return nil, err
	}
	for i, p := range ps {
		if p.Command == "" || p.Reason != "" || p.State != string(Done) && p.State != string(Failed) {
			continue
		}
		c, err := s.Get(ctx, j.Tenant, p.Command)
		if err != nil {
			return nil, err
		}
		ps[i].Reason = c.Reason
	}
	return ps, nil
}

// sealBatch bounds the rows of earlier versions that are sealed in one transaction.
const sealBatch = 100

// sealOld seals what earlier versions left open. What a device that was erased was asked goes with its key.
func (s *Service) sealOld(ctx context.Context) error {
	for ctx.Err() == nil {
		rows, err := s.cfg.DB.Query(ctx, `SELECT `+columns+` FROM command WHERE args <> '' ORDER BY id LIMIT $1`, sealBatch)
		old, err := store.Collect(rows, err, func(r *sql.Rows) (Command, error) { return scan(r.Scan) })
		if err != nil || len(old) == 0 {
			return err
		}
		if err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
			for _, c := range old {
				if err := s.sealRow(tx, c); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// sealRow seals one row of an earlier version, unless it moved on since it was read: then it is read again.
func (s *Service) sealRow(tx *store.Tx, c Command) error {
	var asked, answered []byte
	key, err := s.keyTx(tx, c.Tenant, c.Device)
	switch {
	case errors.Is(err, seal.ErrDestroyed):
	case err != nil:
		return err
	default:
		asked = key.Seal(nil, nil, c.Args, c.bind("args"))
		if c.State == Done || c.State == Failed {
			if answered, err = s.sealAnswer(tx, c, answer{c.Reason, c.Result}); err != nil {
				return err
			}
		}
	}
	_, err = tx.Exec(`UPDATE command SET asked = $3, answered = $4, args = '', result = '', reason = CASE WHEN state IN ('done', 'failed') THEN '' ELSE reason END
		WHERE tenant = $1 AND id = $2 AND args <> '' AND state = $5`, c.Tenant, c.ID, asked, answered, c.State)
	return err
}
