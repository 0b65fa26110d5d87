// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/tenant"
)

func solutionCommand() *cobra.Command {
	c, r := group("solution", "Where devices serve: solutions, and those that stand in them")
	var pages paging
	var within string
	list := &cobra.Command{
		Use: "list", Short: "The tree of solutions, each before those that stand in it", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, pages.path("/v1/solutions", url.Values{"within": {within}}), func(w io.Writer, p api.Page[tenant.Solution]) error {
				rows := [][]string{{"SOLUTION", "NAME", "OWNER"}}
				for _, sol := range p.Items {
					rows = append(rows, []string{sol.ID, strings.Repeat("  ", max(0, sol.Depth-1)) + sol.Name, sol.Owner})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	list.Flags().StringVar(&within, "within", "", "only this solution and what lies below it")
	pages.flags(list)
	get := &cobra.Command{
		Use: "get SOLUTION", Short: "One solution", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, solutionURL(args[0]), printSolution)
		},
	}
	c.AddCommand(list, get, solutionCreateCommand(r), solutionChangeCommand(r), solutionMoveCommand(r), solutionInviteCommand(r), solutionTokenCommand(r))
	return c
}

func solutionURL(id string) string { return "/v1/solutions/" + url.PathEscape(id) }

func printSolution(w io.Writer, sol tenant.Solution) error {
	_, err := fmt.Fprintf(w, "%s  %s  owner %s\n", sol.ID, sol.Path, sol.Owner)
	return err
}

func solutionCreateCommand(r *remote) *cobra.Command {
	var in, owner string
	c := &cobra.Command{
		Use: "create NAME", Short: "Make a solution, in the organisation or in another solution", Args: cobra.ExactArgs(1),
		Example: `  openthings solution create "Nordlicht GmbH" --owner "Nordlicht GmbH"
  openthings solution create "Port of Kiel" --in $DISTRIBUTOR`,
		RunE: func(c *cobra.Command, args []string) error {
			return do(c, r, http.MethodPost, "/v1/solutions", map[string]any{"name": args[0], "owner": owner, "parent": in}, printSolution)
		},
	}
	c.Flags().StringVar(&in, "in", "", "the solution that it stands in")
	c.Flags().StringVar(&owner, "owner", "", "the customer, in words")
	return c
}

func solutionChangeCommand(r *remote) *cobra.Command {
	var name, owner string
	c := &cobra.Command{
		Use: "change SOLUTION", Short: "Name a solution anew, or say whom it serves", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			in := map[string]any{}
			if c.Flags().Changed("name") {
				in["name"] = name
			}
			if c.Flags().Changed("owner") {
				in["owner"] = owner
			}
			return do(c, r, http.MethodPatch, solutionURL(args[0]), in, printSolution)
		},
	}
	c.Flags().StringVar(&name, "name", "", "its name")
	c.Flags().StringVar(&owner, "owner", "", "the customer, in words")
	return c
}

func solutionMoveCommand(r *remote) *cobra.Command {
	var in string
	c := &cobra.Command{
		Use: "move SOLUTION", Short: "Move a solution with all below; it takes a right on both places", Args: cobra.ExactArgs(1),
		Long: "Move a solution with all that lies below it. It takes the right to give access on what it stands in now and on what\n" +
			"it shall stand in. Rights on the old place end there at once; rights inside the solution go with it.",
		Example: `  openthings solution move $SOLUTION --in $DISTRIBUTOR
  openthings solution move $SOLUTION --in ''`,
		RunE: func(c *cobra.Command, args []string) error {
			return do(c, r, http.MethodPatch, solutionURL(args[0]), map[string]any{"parent": in}, printSolution)
		},
	}
	c.Flags().StringVar(&in, "in", "", "the solution that it shall stand in; empty: right under the organisation")
	cobra.CheckErr(c.MarkFlagRequired("in"))
	return c
}

func solutionInviteCommand(r *remote) *cobra.Command {
	var role string
	c := &cobra.Command{
		Use: "invite SOLUTION NAME", Short: "A one-time link by which a person enters a solution", Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return do(c, r, http.MethodPost, "/v1/people", map[string]any{"solution": args[0], "name": args[1], "role": role}, func(w io.Writer, i tenant.Invitation) error {
				_, err := fmt.Fprintln(w, i.Link)
				return err
			})
		},
	}
	c.Flags().StringVar(&role, "role", string(tenant.Customer), "what the person may do there and below")
	return c
}

func solutionTokenCommand(r *remote) *cobra.Command {
	var role string
	var days int
	c := &cobra.Command{
		Use: "token SOLUTION NAME", Short: "A token that reaches a solution and what lies below it; shown once", Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			in := map[string]any{"solution": args[0], "name": args[1], "role": role, "expires": time.Now().UTC().AddDate(0, 0, days)}
			return do(c, r, http.MethodPost, "/v1/tokens", in, func(w io.Writer, t tenant.NewToken) error {
				_, err := fmt.Fprintln(w, t.Text)
				return err
			})
		},
	}
	c.Flags().StringVar(&role, "role", string(tenant.Customer), "what it may do there and below")
	c.Flags().IntVar(&days, "days", 90, "how long it is valid")
	return c
}

func deviceTransferCommand(r *remote) *cobra.Command {
	var to, reason string
	c := &cobra.Command{
		Use: "transfer DEVICE", Short: "Move a claimed device to another solution; it takes the right to claim on both", Args: oneDevice,
		RunE: func(c *cobra.Command, args []string) error {
			return do(c, r, http.MethodPost, "/v1/devices/"+url.PathEscape(args[0])+"/transfer", map[string]any{"solution": to, "reason": reason}, func(w io.Writer, d identity.Device) error {
				_, err := fmt.Fprintf(w, "%s  serial %s  serves in %s\n", d.ID, d.Serial, d.Solution)
				return err
			})
		},
	}
	c.Flags().StringVar(&to, "to", "", "the solution that it serves in from now on")
	c.Flags().StringVar(&reason, "reason", "", "kept in the audit log")
	cobra.CheckErr(c.MarkFlagRequired("to"))
	return c
}
