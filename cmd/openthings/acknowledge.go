// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
)

// acknowledgeCommand lets a log go on that stands still because its database was restored from a backup.
func acknowledgeCommand() *cobra.Command {
	var data, keyDir, database, reason string
	c := &cobra.Command{
		Use: "acknowledge --reason TEXT", Short: "Let the log go on after the restore of a backup", Args: cobra.NoArgs,
		Long: "Let the log go on from where a restored database is. Entries that were published after the backup are lost: whoever\n" +
			"archived a checkpoint of them will see the fork. The reason becomes an entry of the log. Stop the platform first.",
		RunE: func(c *cobra.Command, _ []string) error {
			folder, err := filepath.Abs(data)
			if err != nil {
				return err
			}
			sealed := cmp.Or(keyDir, filepath.Join(folder, "keys"))
			if _, err := os.Stat(filepath.Join(sealed, "platform.key")); err != nil {
				return problem.NotFound("there is no platform in %s", folder)
			}
			if conn, err := net.Dial("unix", filepath.Join(folder, "host.sock")); err == nil {
				conn.Close()
				return problem.Conflict("the platform in %s is running", folder).Hint("stop it first")
			}
			url := database
			if url == "" {
				url = "sqlite://" + filepath.Join(folder, "platform.db")
			}
			keys, err := seal.Open(sealed, clock.System)
			if err != nil {
				return err
			}
			db, err := store.Open(c.Context(), store.Config{URL: url, Schema: []store.Migrations{audit.Schema}})
			if err != nil {
				return err
			}
			defer db.Close()
			l, err := audit.New(audit.Config{DB: db, Keys: keys, Origin: "openthings", Journal: filepath.Join(folder, "journal", "checkpoints")})
			if err != nil {
				return err
			}
			defer l.Close()
			if err := l.Acknowledge(c.Context(), "host", reason); err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), "acknowledged; start the platform again")
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&data, "data", defaultData(), "the platform's data folder ($OPENTHINGS_DATA_DIR)")
	f.StringVar(&keyDir, "keys", "", "the folder of its keys, if they are not in --data")
	f.StringVar(&database, "database", "", "postgres://… if the platform uses one")
	f.StringVar(&reason, "reason", "", "what happened, for the log")
	cobra.CheckErr(c.MarkFlagRequired("reason"))
	return c
}
