// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"bytes"
	"cmp"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/conform/self"
	"github.com/openthings-platform/openthings/evidence/verify"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/vuln"
	"github.com/openthings-platform/openthings/vuln/feed"
	"github.com/openthings-platform/openthings/wire"
)

// verifyCommand is the small openthings-verify inside the large binary: the same code, flags and exit codes.
func verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "verify BUNDLE --log-key KEY [--json]", Short: "Check an evidence bundle, with no server and no network",
		Long: "Check an evidence bundle, with no server and no network; the small openthings-verify is the same code.\n" +
			"KEY is the log key that you got over a way that you trust, or a file that holds it; without one nothing is proven.\n" +
			"Exit codes: 0 proven, 1 not proven, 2 usage.",
		DisableFlagsInUseLine: true,
		DisableFlagParsing:    true,
		RunE: func(c *cobra.Command, args []string) error {
			if code := verify.Run("openthings verify", args, c.InOrStdin(), c.OutOrStdout(), c.ErrOrStderr()); code != verify.ExitProven {
				return exitCode(code)
			}
			return nil
		},
	}
}

func sbomCommand() *cobra.Command {
	c := parent("sbom", "Bills of materials")
	var from string
	var asJSON bool
	check := &cobra.Command{
		Use: "check FILE", Short: "Findings of one bill of materials against a folder of OSV records",
		Long: "Findings of one bill of materials (CycloneDX or SPDX) against a folder or zip of OSV records, what is known to be exploited first.\n" +
			"Kinds of packages about which the feed has no record are named: nothing found there says nothing.\nThe exit code is 1 when a component is affected.",
		Example: "  openthings sbom check lamp.cdx.json --feed osv/",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if from == "" {
				return usageError{errors.New("name a folder or zip of OSV records with --feed, or in $OPENTHINGS_FEEDS")}
			}
			bill, isFile, err := billFile(args[0])
			if err != nil {
				return err
			}
			if !isFile {
				return problem.Invalid("There is no file %s.", args[0]).Hint("the findings of a release: openthings release show %s", args[0])
			}
			f, err := feed.OpenPath(from)
			if err != nil {
				return err
			}
			defer f.Close()
			rep, err := vuln.Check(bill, f)
			if err != nil {
				return err
			}
			if err := printReport(c, bill, rep, asJSON); err != nil {
				return err
			}
			if rep.Affected > 0 {
				return exitCode(1)
			}
			return nil
		},
	}
	check.Flags().StringVar(&from, "feed", env("OPENTHINGS_FEEDS", ""), "folder or zip of OSV records, and a KEV catalogue if there is one ($OPENTHINGS_FEEDS)")
	check.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	c.AddCommand(append(sbomCommands(), check, sbomMakeCommand())...)
	return c
}

// sbomMakeCommand writes the bill of materials of a Go program from the build information inside it.
func sbomMakeCommand() *cobra.Command {
	var name, version, out string
	c := &cobra.Command{
		Use: "make BINARY", Short: "Write the CycloneDX bill of a Go program from the build information inside it", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			raw, err := readAtMost(args[0], 1<<30)
			if err != nil {
				return err
			}
			info, err := buildinfo.Read(bytes.NewReader(raw))
			if err != nil {
				return problem.Invalid("%s carries no Go build information", args[0]).Because(err)
			}
			bill, err := sbom.FromBuildInfo(info, wire.Digest(raw), name, version)
			if err != nil {
				return err
			}
			if out == "-" {
				_, err = c.OutOrStdout().Write(bill)
				return err
			}
			return os.WriteFile(out, bill, 0o644)
		},
	}
	f := c.Flags()
	f.StringVar(&name, "name", "", "what the program is called")
	f.StringVar(&version, "version", "", "its version")
	f.StringVarP(&out, "out", "o", "-", "where to write it; - is standard output")
	cobra.CheckErr(c.MarkFlagRequired("name"))
	cobra.CheckErr(c.MarkFlagRequired("version"))
	return c
}

func printReport(c *cobra.Command, bill sbom.Bill, rep vuln.Report, asJSON bool) error {
	w := c.OutOrStdout()
	if asJSON {
		return printJSON(w, rep)
	}
	rows := [][]string{{"COMPONENT", "VERSION", "RECORD", "ALIASES", "FIXED IN", "STATE"}}
	for _, h := range rep.Hits {
		state, fixed := string(h.State), h.Fixed
		if h.Withdrawn {
			state = "withdrawn"
		} else {
			fixed = cmp.Or(fixed, "no fix known")
			if h.Exploited {
				state += ", EXPLOITED"
			}
			if h.Reason != "" {
				state += ": " + h.Reason
			}
		}
		rows = append(rows, []string{h.Component, h.Version, h.Record, strings.Join(h.Aliases, " "), fixed, state})
	}
	if len(rep.Hits) > 0 {
		if err := table(w, rows); err != nil {
			return err
		}
	}
	exploited := "the feed has no list of what is exploited"
	if rep.Catalogue != "" || rep.Exploited > 0 {
		exploited = fmt.Sprintf("%d of them known to be exploited", rep.Exploited)
	}
	fmt.Fprintf(w, "%d components, %d affected, %d unknown, %s, %d not matchable; %d records, feed %.19s\n",
		len(bill.Components), rep.Affected, rep.Unknown, exploited, rep.NotMatched, rep.Records, rep.Feed)
	for _, x := range rep.Silent {
		fmt.Fprintf(w, "The feed has no record of any %s package: nothing is known of %d of its parts.\n", x.Space, x.Components)
	}
	return nil
}

func rolesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "roles", Short: "Who may do what, as a table", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return tenant.PrintRoles(c.OutOrStdout()) },
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Version and dependencies of this binary", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b, ok := debug.ReadBuildInfo()
			if !ok {
				return problem.Unavailable("this binary carries no build information")
			}
			w := c.OutOrStdout()
			version := b.Main.Version
			if r := self.Stamped(); !r.Published.IsZero() {
				version = r.Version
			}
			fmt.Fprintf(w, "openthings %s, %s\n", version, b.GoVersion)
			for _, d := range b.Deps {
				if d.Replace != nil {
					d = d.Replace
				}
				fmt.Fprintf(w, "  %s %s\n", d.Path, d.Version)
			}
			return nil
		},
	}
}
