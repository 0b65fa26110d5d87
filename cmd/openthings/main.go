// SPDX-License-Identifier: AGPL-3.0-only

// Command openthings is the platform, its demonstration and its command line.
//
// Exit codes: 0 done, 1 failed, 2 usage, 3 refused by policy.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/problem"
)

// usageError is about a command line that cannot be understood.
type usageError struct{ error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main with its world handed in, so that scripts can run it inside a test.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := commands()
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var code exitCode
	if errors.As(err, &code) {
		return int(code)
	}
	return report(stderr, err)
}

// greeting is what somebody reads who types the name and nothing else.
const greeting = `OpenThings accompanies every connected device from the production line to the scrap heap, and can prove each step.

  openthings demo      watch real agents go through a whole life
  openthings up        run the platform here
  openthings --help    all commands
`

// commands is the whole tree; docs/reference/cli.md is written from it.
func commands() *cobra.Command {
	root := &cobra.Command{
		Use:   "openthings",
		Short: "Accompanies every device from the production line to the scrap heap, and can prove each step.",
		Long: "Accompanies every device from the production line to the scrap heap, and can prove each step.\n\n" +
			"Exit codes: 0 done, 1 failed, 2 usage, 3 refused by policy (the rule is named).\n" +
			"Commands that ask a platform read OPENTHINGS_URL, OPENTHINGS_CA and OPENTHINGS_TOKEN; without a token they act as the\n" +
			"person of openthings login.",
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := io.WriteString(c.OutOrStdout(), greeting)
			return err
		},
		SilenceErrors: true, SilenceUsage: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see %s --help", err, c.CommandPath())}
	})
	root.AddGroup(&cobra.Group{ID: "run", Title: "Run:"}, &cobra.Group{ID: "ask", Title: "Ask and do:"}, &cobra.Group{ID: "offline", Title: "Without a platform:"})
	for _, c := range []*cobra.Command{upCommand(), demoCommand(), loginCommand(), logoutCommand(), tokenCommand(), caCommand(), drainCommand()} {
		c.GroupID = "run"
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{productCommand(), batchCommand(), stationCommand(), serialCommand(), claimCommand(), lobbyCommand(), trustedCACommand(), enrolTokenCommand(), clonesCommand(), hookCommand(), policyCommand(), tpmMakerCommand(), baselineCommand(), catalogueCommand(), telemetryCommand(), devicesCommand(), deviceCommand(), groupCommand(), twinCommand(), jobCommand(), releaseCommand(), vulnCommand(), feedCommand(), vexCommand(), stopCommand(), caseCommand(), advisoryCommand(), conformCommand(), disclosureCommand(), informCommand(), evidenceCommand(), auditCommand(), apiCommand(), revokeCommand(), revocationsCommand(), notifyCommand(), alarmCommand(), solutionCommand()} {
		c.GroupID = "ask"
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{signCommand(), verifyCommand(), sbomCommand(), labelCommand(), issuerCommand(), rolesCommand(), selfCommand(), versionCommand()} {
		c.GroupID = "offline"
		root.AddCommand(c)
	}
	return root
}

// exitCode ends the program with this code when everything was said already.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// report says what went wrong and returns the exit code.
func report(w io.Writer, err error) int {
	if isUsage(err) {
		fmt.Fprintln(w, "openthings:", err)
		return 2
	}
	p := problem.Of(err)
	if p.Kind == problem.KindInternal {
		fmt.Fprintln(w, "openthings:", err)
		return 1
	}
	fmt.Fprintln(w, "openthings:", p.Text)
	for _, f := range p.Fields {
		if f.Message == p.Text { // it was just said: only where
			fmt.Fprintln(w, "  at:", f.At)
			continue
		}
		fmt.Fprintf(w, "  %s: %s\n", f.At, f.Message)
	}
	if p.Rule != "" {
		fmt.Fprintln(w, "  rule:", p.Rule)
	}
	if p.Help != "" {
		fmt.Fprintln(w, "  hint:", p.Help)
	}
	if p.Cause != nil {
		fmt.Fprintln(w, "  cause:", p.Cause)
	}
	return problem.Kinds[p.Kind].Exit
}
