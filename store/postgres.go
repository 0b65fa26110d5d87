// SPDX-License-Identifier: AGPL-3.0-only

package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/stdlib"
)

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
