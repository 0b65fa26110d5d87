// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// Exit codes of Run.
const (
	ExitProven = 0 // everything holds under the pinned key
	ExitFailed = 1 // something does not hold, or the origin is unproven
	ExitUsage  = 2
)

// Run is the command line "[--log-key KEY] [--json] BUNDLE" of the program called name; "-" reads standard input. Flags
// may stand before and after BUNDLE. KEY is the key itself or a file that holds it.
func Run(name string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(stderr)
	key := fs.String("log-key", "", "the log key that you got over a way that you trust, or a file that holds it")
	asJSON := fs.Bool("json", false, "print the report as JSON")
	fs.Usage = func() {
		fmt.Fprintf(stderr, "usage: %s BUNDLE --log-key KEY [--json]\n\nChecks an evidence bundle, or an export of the audit log, with no server and no network.\nExit codes: 0 proven, 1 not proven, 2 usage.\n\n", name)
		fs.PrintDefaults()
	}
	var files []string
	for rest := args; ; {
		if err := fs.Parse(rest); errors.Is(err, flag.ErrHelp) {
			return ExitProven
		} else if err != nil {
			return ExitUsage
		}
		if rest = fs.Args(); len(rest) == 0 {
			break
		}
		files, rest = append(files, rest[0]), rest[1:]
	}
	if len(files) != 1 {
		fs.Usage()
		return ExitUsage
	}
	pinned, err := readKey(*key)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return ExitUsage
	}
	in := stdin
	if files[0] != "-" {
		f, err := os.Open(files[0])
		if err != nil {
			fmt.Fprintf(stderr, "%s: %v\n", name, err)
			return ExitUsage
		}
		defer f.Close()
		in = f
	}
	rep, err := Bundle(in, pinned, time.Now())
	if *asJSON {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		if err := e.Encode(rep); err != nil {
			fmt.Fprintf(stderr, "%s: %v\n", name, err)
			return ExitFailed
		}
	} else {
		rep.Print(stdout)
	}
	if err != nil {
		return ExitFailed
	}
	return ExitProven
}

// readKey takes a key, or reads it from a file; no path of a key file has two plus signs.
func readKey(s string) (string, error) {
	if s == "" || strings.Count(s, "+") >= 2 {
		return s, nil
	}
	b, err := os.ReadFile(s)
	if err != nil {
		return "", fmt.Errorf("--log-key is neither a key nor a file: %w", err)
	}
	if len(strings.TrimSpace(string(b))) == 0 {
		return "", fmt.Errorf("%s holds no key", s)
	}
	return strings.TrimSpace(string(b)), nil
}

// Print writes the report for people.
func (r Report) Print(w io.Writer) {
	if r.Log != nil {
		fmt.Fprintf(w, "Audit log of %s, from %s until %s: %d entries\n", r.Tenant, r.Log.From.Format(time.RFC3339), r.Log.To.Format(time.RFC3339), r.Entries)
	}
	if about := r.Device + r.Subject; about != "" {
		fmt.Fprintf(w, "Evidence about %s", about)
		if !r.Made.IsZero() {
			fmt.Fprintf(w, ", made on %s UTC", r.Made.Format(time.DateTime))
		}
		fmt.Fprintln(w)
	}
	for _, f := range r.Facts {
		fmt.Fprintf(w, "  ok  %s\n", f)
	}
	for _, c := range r.Cases {
		what := "case"
		if c.Drill {
			what = "DRILL, not a case:"
		}
		fmt.Fprintf(w, "\n%s %s (%s), recomputed from %d events:\n", what, c.ID, c.Kind, c.Events)
		for _, d := range c.Deadlines {
			fmt.Fprintf(w, "  %s\n", d.line())
		}
	}
	if len(r.Cases) > 0 {
		fmt.Fprintln(w)
	}
	if r.Proven {
		fmt.Fprintln(w, "PROVEN: the bundle comes from the pinned log and everything in it holds.")
		return
	}
	fmt.Fprintf(w, "NOT PROVEN: %s\n", r.Failure)
}
