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

// errUsage marks a command line that cannot be understood.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main with its world handed in, so that scripts can run it inside a test.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "openthings",
		Short:         "Accompanies every device from the production line to the scrap heap, and can prove each step.",
		SilenceErrors: true, SilenceUsage: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetArgs(args)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return errors.Join(errUsage, fmt.Errorf("%w; see %s --help", err, c.CommandPath()))
	})
	root.AddGroup(&cobra.Group{ID: "run", Title: "Run:"}, &cobra.Group{ID: "ask", Title: "Ask and do:"}, &cobra.Group{ID: "offline", Title: "Without a platform:"})
	for _, c := range []*cobra.Command{upCommand(), demoCommand(), tokenCommand()} {
		c.GroupID = "run"
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{deviceCommand(), releaseCommand(), vulnCommand(), feedCommand(), caseCommand(), evidenceCommand(), auditCommand()} {
		c.GroupID = "ask"
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{signCommand(), verifyCommand(), sbomCommand(), rolesCommand(), versionCommand()} {
		c.GroupID = "offline"
		root.AddCommand(c)
	}
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

// exitCode ends the program with this code when everything was said already.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// report says what went wrong and returns the exit code.
func report(w io.Writer, err error) int {
	if errors.Is(err, errUsage) || isUsage(err) {
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
