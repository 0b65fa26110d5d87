// SPDX-License-Identifier: AGPL-3.0-only

package store

import (
	"context"
	"database/sql"
	"sync"
)

// reads are the statements of Query and QueryRow, prepared once: on SQLite the parser costs more than the lookup of a
// row by its key. pgx keeps its own cache.
type reads struct {
	mu    sync.RWMutex // guards stmts
	stmts map[string]*sql.Stmt
}

// prepared returns the statement for query, or nil where the plain path serves.
func (db *DB) prepared(ctx context.Context, query string) *sql.Stmt {
	if db.engine != SQLite {
		return nil
	}
	r := &db.reads
	r.mu.RLock()
	s, n := r.stmts[query], len(r.stmts)
	r.mu.RUnlock()
	if s != nil || n >= maxStmts {
		return s
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s = r.stmts[query]; s != nil {
		return s
	}
	s, err := db.read.PrepareContext(ctx, ordinal(query))
	if err != nil {
		return nil // the plain path reports it
	}
	if r.stmts == nil {
		r.stmts = map[string]*sql.Stmt{}
	}
	r.stmts[query] = s
	return s
}
