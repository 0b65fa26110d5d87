// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/vuln"
)

// kernelCommand weighs a release's kernel against its list of compiled files.
func kernelCommand(r *remote) *cobra.Command {
	var accept bool
	var reopen string
	c := &cobra.Command{
		Use: "kernel RELEASE", Short: "Which open findings of a release's kernel stand in sources that were left out of it", Args: cobra.ExactArgs(1),
		Long: "Which open findings of a release's kernel stand in source files, all of which were left out when it was built.\nNeeds the release's list of compiled files: openthings sbom evidence RELEASE FILE.",
		Example: `  openthings vuln kernel rel_01h…
  openthings vuln kernel rel_01h… --accept
  openthings vuln kernel rel_01h… --reopen "the list was of another build"`,
		RunE: func(c *cobra.Command, args []string) error {
			path := "/v1/releases/" + url.PathEscape(args[0]) + "/kernel"
			if accept && reopen != "" {
				return problem.Invalid("choose one of --accept and --reopen")
			}
			said := func(w io.Writer, j vuln.Judged) error {
				_, err := fmt.Fprintf(w, "%d decisions\n", j.Decisions)
				return err
			}
			switch {
			case accept:
				return do(c, r, http.MethodPost, path+"/accept", struct{}{}, said)
			case reopen != "":
				return do(c, r, http.MethodPost, path+"/reopen", map[string]string{"reason": reopen}, said)
			}
			return read(c, r, path, func(w io.Writer, k vuln.Kernel) error {
				fmt.Fprintf(w, "%d open findings of the kernel, %d of them in files that were left out of %d compiled; %d accepted\n", k.Open, len(k.Unbuilt), k.Files, k.Accepted)
				rows := [][]string{{"VULNERABILITY", "FILES, NONE OF THEM COMPILED"}}
				for _, u := range k.Unbuilt {
					rows = append(rows, []string{u.Vulnerability, strings.Join(u.Files, " ")})
				}
				if len(rows) == 1 {
					return nil
				}
				return table(w, rows)
			})
		},
	}
	c.Flags().BoolVar(&accept, "accept", false, "decide that none of them affects the release")
	c.Flags().StringVar(&reopen, "reopen", "", "take back everything that was accepted this way, with the reason")
	return c
}
