// SPDX-License-Identifier: AGPL-3.0-only

package store

import "runtime"

// Queued waits until n callers of Write and WriteFirst wait for the writer.
func (db *DB) Queued(n int) {
	for len(db.first)+len(db.normal) < n {
		runtime.Gosched()
	}
}
