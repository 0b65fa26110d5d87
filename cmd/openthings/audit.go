// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/app"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

func auditVerifyCommand() *cobra.Command {
	var data, database, key string
	var asJSON bool
	c := &cobra.Command{
		Use: "verify", Short: "Recompute the whole log from its database: roots, signatures, payloads", Args: cobra.NoArgs,
		Long: "Recompute the whole log from its database, beside the running platform or without one.\n" +
			"Give --log-key from elsewhere: the key in the data folder proves only that the log is consistent with that folder.",
		RunE: func(c *cobra.Command, _ []string) error {
			folder, err := filepath.Abs(data)
			if err != nil {
				return err
			}
			if key == "" {
				key = filepath.Join(folder, app.LogKeyFile)
				fmt.Fprintln(c.ErrOrStderr(), "using the log key of the data folder itself")
			}
			if b, err := os.ReadFile(key); err == nil {
				key = strings.TrimSpace(string(b))
			}
			url := database
			if url == "" {
				file := filepath.Join(folder, "platform.db")
				if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
					return problem.NotFound("there is no platform in %s", folder)
				}
				url = "sqlite://" + file
			}
			db, err := store.Open(c.Context(), store.Config{URL: url})
			if err != nil {
				return err
			}
			defer db.Close()
			rep, err := audit.VerifyDB(c.Context(), db, key, nil)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(c.OutOrStdout(), rep)
			} else {
				err = printAudit(c.OutOrStdout(), rep)
			}
			if err == nil && len(rep.Faults) > 0 {
				return exitCode(1)
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&data, "data", defaultData(), "the platform's data folder ($OPENTHINGS_DATA_DIR)")
	f.StringVar(&database, "database", "", "postgres://… if the platform uses one")
	f.StringVar(&key, "log-key", "", "the log's verifier key, or a file that holds it")
	f.BoolVar(&asJSON, "json", false, "print the report as JSON")
	return c
}

func printAudit(w io.Writer, r audit.Report) error {
	whole := "chain whole"
	if !r.OK() {
		whole = "CHAIN BROKEN"
	}
	fmt.Fprintf(w, "%s: %s, %s … %s, %s, %d pending, %s erased\n", whole, console.Plural(r.Size, "entry", "entries"),
		r.From.Format(time.DateOnly), r.To.Format(time.DateOnly), console.Plural(r.Checkpoints, "signed checkpoint", "signed checkpoints"), r.Pending,
		console.Plural(r.Erased, "payload", "payloads"))
	for _, f := range r.Faults {
		fmt.Fprintln(w, " ", f)
	}
	return nil
}
