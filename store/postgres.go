// SPDX-License-Identifier: AGPL-3.0-only

package store

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
)

// How long the server keeps a transaction open whose process says nothing. A node that freezes, or whose machine goes
// away, holds its locks no longer than idleWrite, so the others wait that long at most; on waking its write fails and
// nothing of it exists. A View holds no lock, but keeps the server from cleaning up. Statements have no limit of time of
// their own: migrations and indexes take as long as they take, and a wait for a lock ends with the holder's transaction.
const (
	idleWrite = 10 * time.Second
	idleRead  = 5 * time.Minute
)

// idle is the URL with that limit, unless the operator's has one of its own.
func idle(u *url.URL, q url.Values, limit time.Duration) string {
	const name = "idle_in_transaction_session_timeout" // read by the server at connect, in milliseconds
	with, params := *u, maps.Clone(q)
	if !params.Has(name) {
		params.Set(name, strconv.FormatInt(limit.Milliseconds(), 10))
	}
	with.RawQuery = params.Encode()
	return with.String()
}

// pgExec runs text without arguments, several statements if need be, and returns the last command tag.
func pgExec(driverConn any, text string) (string, error) {
	c, ok := driverConn.(*stdlib.Conn)
	if !ok {
		return "", fmt.Errorf("store: %T is not a PostgreSQL connection", driverConn)
	}
	res, err := c.Conn().PgConn().Exec(context.Background(), text).ReadAll()
	if err != nil || len(res) == 0 {
		return "", err
	}
	return res[len(res)-1].CommandTag.String(), nil
}
