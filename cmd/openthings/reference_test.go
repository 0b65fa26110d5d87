// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var rewrite = flag.Bool("update", false, "write docs/reference/cli.md anew")

// docs/reference/cli.md says what the command tree says.
func TestReference(t *testing.T) {
	t.Setenv("HOME", "/home/you")
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "OPENTHINGS_") {
			t.Setenv(name, "") // defaults come from the environment
		}
	}
	var b strings.Builder
	b.WriteString("# The command line\n\nWritten from the commands themselves by `go test ./cmd/openthings -run TestReference -update`; a test fails when it lags behind.\n\n" +
		"Exit codes: 0 done, 1 failed, 2 usage, 3 refused by policy. With `--json` a command prints the API's own JSON, which is a contract; what it prints\nfor people is not.\n")
	describe(&b, commands())
	file := filepath.Join(repository(t), "docs", "reference", "cli.md")
	if *rewrite {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != b.String() {
		t.Error("docs/reference/cli.md lags behind: go test ./cmd/openthings -run TestReference -update")
	}
}

// describe writes a section for each command that does something, depth first.
func describe(b *strings.Builder, c *cobra.Command) {
	if !c.HasSubCommands() {
		fmt.Fprintf(b, "\n## %s\n\n%s\n", c.CommandPath(), c.Short)
		if c.Long != "" && c.Long != c.Short {
			fmt.Fprintf(b, "\n%s\n", c.Long)
		}
		fmt.Fprintf(b, "\n    %s\n", strings.TrimSpace(c.UseLine()))
		if c.Example != "" {
			fmt.Fprintf(b, "\nExamples:\n\n%s\n", indent(c.Example))
		}
		rows := ""
		add := func(f *pflag.Flag) {
			if f.Hidden || f.Name == "help" {
				return
			}
			name := "--" + f.Name
			if f.Shorthand != "" {
				name = "-" + f.Shorthand + ", " + name
			}
			usage := f.Usage
			if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0" {
				usage += "; default `" + f.DefValue + "`"
			}
			rows += fmt.Sprintf("| `%s` | %s |\n", name, usage)
		}
		c.LocalFlags().VisitAll(add)
		c.InheritedFlags().VisitAll(add)
		if rows != "" {
			fmt.Fprintf(b, "\n| flag | |\n|---|---|\n%s", rows)
		}
	}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			describe(b, sub)
		}
	}
}

func indent(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i, l := range lines {
		lines[i] = "    " + strings.TrimSpace(l)
	}
	return strings.Join(lines, "\n")
}
