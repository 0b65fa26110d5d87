// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"io"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/problem"
)

// tpmMakerCommand says whose TPMs are believed when a device attests its key.
func tpmMakerCommand() *cobra.Command {
	c, r := group("tpm-maker", "Makers of TPMs whose endorsement certificates are believed")
	makers := func(w io.Writer, ms []enroll.Maker) error {
		rows := [][]string{{"MAKER", "NAME", "SUBJECT", "ENDS"}}
		for _, m := range ms {
			rows = append(rows, []string{m.ID, m.Name, m.Subject, m.NotAfter.Format(time.DateOnly)})
		}
		return table(w, rows)
	}
	page := func(w io.Writer, p api.Page[enroll.Maker]) error { return makers(w, p.Items) }
	list := &cobra.Command{
		Use: "list", Short: "Makers that are believed", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return read(c, r, "/v1/tpm-makers", page) },
	}
	add := &cobra.Command{
		Use: "add NAME FILE", Short: "Believe a maker from now on: a PEM file of its root, or of an authority below it", Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := os.ReadFile(args[1])
			if err != nil {
				return problem.Invalid("%s cannot be read", args[1]).Because(err)
			}
			return send(c, r, "/v1/tpm-makers", map[string]string{"name": args[0], "certificate": string(b)},
				func(w io.Writer, m enroll.Maker) error { return makers(w, []enroll.Maker{m}) })
		},
	}
	remove := &cobra.Command{
		Use: "remove MAKER", Short: "Believe a maker no longer; what was proven before keeps its grade", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return send(c, r, "/v1/tpm-makers/"+url.PathEscape(args[0])+"/distrust", nil, page)
		},
	}
	c.AddCommand(list, add, remove)
	return c
}
