// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/command"
	"github.com/openthings-platform/openthings/problem"
)

// jobFlags are what a job is made of.
type jobFlags struct {
	title, filter, product, solution, notBefore, notAfter string
	follow, wait                                          bool
	rate, parallel, abortCount, abortPercent, abortAfter  int64
	timeout                                               time.Duration
	retries                                               int64
}

func (f *jobFlags) add(c *cobra.Command) {
	fs := c.Flags()
	fs.StringVar(&f.title, "title", "", "what people call it")
	fs.StringVar(&f.filter, "filter", "", "whom it reaches, such as group:harbour label.site:north; everybody without one")
	fs.StringVar(&f.product, "product", "", "only devices of this product")
	fs.StringVar(&f.solution, "solution", "", "only devices of this solution")
	fs.BoolVar(&f.follow, "follow", false, "devices that match later join until the job ends")
	fs.Int64Var(&f.rate, "rate", 0, "devices that begin in a minute; 0 is no bound")
	fs.Int64Var(&f.parallel, "parallel", 0, "devices at work at the same time; 0 is no bound")
	fs.Int64Var(&f.abortCount, "abort-count", 0, "end the job when so many devices have failed")
	fs.Int64Var(&f.abortPercent, "abort-percent", 0, "end the job when this share of those that have ended has failed")
	fs.Int64Var(&f.abortAfter, "abort-after", 0, "judge the share once so many devices have ended")
	fs.DurationVar(&f.timeout, "timeout", 0, "how long one device has for its result; until the job ends without one")
	fs.Int64Var(&f.retries, "retries", command.DefaultPolicy.Retries, "how often a device is asked again")
	fs.StringVar(&f.notBefore, "not-before", "", "when it begins, RFC 3339; now without one")
	fs.StringVar(&f.notAfter, "not-after", "", "when it ends, RFC 3339; 24 hours after its beginning without one")
	fs.BoolVar(&f.wait, "wait", false, "show how far it is until it has ended; exit 1 unless it completed and nobody failed")
}

// body is the request; args is what is asked.
func (f *jobFlags) body(kind, name string, args json.RawMessage) (map[string]any, error) {
	b := map[string]any{"kind": kind, "title": f.title, "filter": f.filter, "product": f.product, "solution": f.solution, "follow": f.follow, "rate": f.rate, "parallel": f.parallel,
		"abort_count": f.abortCount, "abort_percent": f.abortPercent, "abort_after": f.abortAfter, "timeout_s": int64(f.timeout / time.Second), "retries": f.retries, "args": args}
	if name != "" {
		b["name"] = name
	}
	for flag, at := range map[string]string{"not_before": f.notBefore, "not_after": f.notAfter} {
		if at == "" {
			continue
		}
		if _, err := time.Parse(time.RFC3339, at); err != nil {
			return nil, problem.Invalid("%s is not an instant with an offset, such as 2026-11-21T09:00:00Z", at).At("--" + strings.ReplaceAll(flag, "_", "-"))
		}
		b[flag] = at
	}
	return b, nil
}

func jobCommand() *cobra.Command {
	c, r := group("job", "Ask the same of many devices")
	var flags, twinFlags jobFlags
	create := &cobra.Command{
		Use: "create NAME [ARGUMENT=TEXT | ARGUMENT:=JSON]...", Short: "Send a command to all devices that match", Args: cobra.MinimumNArgs(1),
		Example: `  openthings job create reboot --filter 'group:harbour' --rate 60 --abort-percent 5 --abort-after 20
  openthings job create set-level level:=40 --solution $SOLUTION --wait`,
		RunE: func(c *cobra.Command, args []string) error {
			given, err := argsOf(args[1:])
			if err != nil {
				return err
			}
			b, err := flags.body(command.KindCommand, args[0], given)
			if err != nil {
				return err
			}
			return makeJob(c, r, b, flags.wait)
		},
	}
	flags.add(create)
	desire := &cobra.Command{
		Use: "twin PATCH", Short: "Change what all devices that match shall be like", Args: cobra.ExactArgs(1),
		Long:    "Change what all devices that match shall be like. PATCH is a merge patch (RFC 7396): JSON, or @FILE.",
		Example: `  openthings job twin '{"telemetry":{"interval_s":60}}' --filter 'label.site:north'`,
		RunE: func(c *cobra.Command, args []string) error {
			patch, err := document(args[0], c.InOrStdin())
			if err != nil {
				return err
			}
			b, err := twinFlags.body(command.KindTwin, "", patch)
			if err != nil {
				return err
			}
			return makeJob(c, r, b, twinFlags.wait)
		},
	}
	twinFlags.add(desire)
	var pages, partPages paging
	list := &cobra.Command{
		Use: "list", Short: "Jobs, the newest first", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, pages.path("/v1/jobs", nil), func(w io.Writer, p api.Page[command.Job]) error {
				rows := [][]string{{"JOB", "WHAT", "STATE", "DEVICES", "DONE", "FAILED", "OPEN", "CREATED"}}
				for _, j := range p.Items {
					n := j.Counts
					rows = append(rows, []string{j.ID, what(j), j.State, fmt.Sprint(n.Devices), fmt.Sprint(n.Done), fmt.Sprint(n.Failed + n.Expired), fmt.Sprint(n.Waiting + n.Away + n.Started), instant(j.Created)})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(list)
	show := &cobra.Command{
		Use: "show JOB", Short: "How far a job has come", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/jobs/"+url.PathEscape(args[0]), printJob)
		},
	}
	var state string
	devices := &cobra.Command{
		Use: "devices JOB", Short: "The devices of a job and how each stands", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, partPages.path("/v1/jobs/"+url.PathEscape(args[0])+"/devices", url.Values{"state": {state}}), func(w io.Writer, p api.Page[command.Part]) error {
				rows := [][]string{{"DEVICE", "STATE", "SINCE", "COMMAND", "REASON"}}
				for _, x := range p.Items {
					rows = append(rows, []string{x.Device, x.State, instant(x.At), x.Command, x.Reason})
				}
				return partPages.table(w, rows, p.Next)
			})
		},
	}
	partPages.flags(devices)
	devices.Flags().StringVar(&state, "state", "", "only those in this state: waiting, away, started, done, failed, expired, cancelled")
	watch := &cobra.Command{
		Use: "watch JOB", Short: "Show how far a job is until it has ended; exit 1 unless it completed and nobody failed", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return watchJob(c, r, args[0]) },
	}
	c.AddCommand(create, desire, list, show, devices, watch)
	for _, x := range [][2]string{{"pause", "Let no more devices begin"}, {"resume", "Go on"}, {"cancel", "End a job and take back what no device has begun"}} {
		name, short, reason := x[0], x[1], ""
		steer := &cobra.Command{
			Use: name + " JOB", Short: short, Args: cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error {
				cl, err := r.client()
				if err != nil {
					return err
				}
				var raw json.RawMessage
				if err := cl.Do(c.Context(), http.MethodPost, "/v1/jobs/"+url.PathEscape(args[0])+"/"+name, map[string]string{"reason": reason}, &raw); err != nil {
					return err
				}
				return showJob(c, r, raw)
			},
		}
		steer.Flags().StringVar(&reason, "reason", "", "why")
		c.AddCommand(steer)
	}
	return c
}

// argsOf reads the arguments of a command from the command line.
func argsOf(members []string) (json.RawMessage, error) {
	if len(members) == 0 {
		return json.RawMessage(`{}`), nil
	}
	return bodyOf(members, "", nil)
}

func what(j command.Job) string {
	if j.Title != "" {
		return j.Title
	}
	if j.Kind == command.KindTwin {
		return "desired state"
	}
	return j.Name
}

func showJob(c *cobra.Command, r *remote, raw json.RawMessage) error {
	return show(c, r, raw, printJob)
}

func makeJob(c *cobra.Command, r *remote, body map[string]any, wait bool) error {
	cl, err := r.client()
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := cl.Do(c.Context(), http.MethodPost, "/v1/jobs", body, &raw); err != nil {
		return err
	}
	if !wait {
		return showJob(c, r, raw)
	}
	var j command.Job
	if err := json.Unmarshal(raw, &j); err != nil {
		return err
	}
	return watchJob(c, r, j.ID)
}

func printJob(w io.Writer, j command.Job) error {
	fmt.Fprintf(w, "%s  %s  %s", j.ID, what(j), strings.ToUpper(j.State))
	if j.Reason != "" {
		fmt.Fprintf(w, ": %s", j.Reason)
	}
	_, err := fmt.Fprintf(w, "\n%s\n", progressOf(j))
	return err
}

// progressOf is a job in one line.
func progressOf(j command.Job) string {
	n := j.Counts
	ended := n.Devices - n.Waiting - n.Away - n.Started
	line := fmt.Sprintf("%d of %d ended: %d done", ended, n.Devices, n.Done)
	for _, x := range []struct {
		n    int64
		word string
	}{{n.Failed, "failed"}, {n.Expired, "expired"}, {n.Cancelled, "cancelled"}, {n.Started, "at work"}, {n.Waiting, "waiting"}, {n.Away, "away"}} {
		if x.n > 0 {
			line += fmt.Sprintf(", %d %s", x.n, x.word)
		}
	}
	return line
}

// watchJob follows a job to its end: redrawn in place on a terminal, one line for each change elsewhere.
func watchJob(c *cobra.Command, r *remote, id string) error {
	cl, err := r.client()
	if err != nil {
		return err
	}
	out := c.ErrOrStderr()
	file, ok := out.(*os.File)
	live := ok && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb"
	last := ""
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		var raw json.RawMessage
		if err := cl.Do(c.Context(), http.MethodGet, "/v1/jobs/"+url.PathEscape(id), nil, &raw); err != nil {
			return err
		}
		var j command.Job
		if err := json.Unmarshal(raw, &j); err != nil {
			return err
		}
		line := j.State + "  " + progressOf(j)
		switch {
		case live:
			fmt.Fprintf(out, "\r\x1b[K%s %s", meter(j.Counts, 24), line)
		case line != last && !r.json:
			fmt.Fprintln(out, line)
		}
		last = line
		if !j.Ended.IsZero() {
			if live {
				fmt.Fprint(out, "\r\x1b[K")
			}
			if err := show(c, r, raw, printJob); err != nil {
				return err
			}
			if j.State != command.Completed || j.Counts.Failed+j.Counts.Expired > 0 {
				return exitCode(1)
			}
			return nil
		}
		if err := next(c.Context(), tick); err != nil {
			return err
		}
	}
}

func next(ctx context.Context, tick *time.Ticker) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-tick.C:
		return nil
	}
}

// meter draws how much has ended: done, failed, the rest.
func meter(n command.Counts, width int64) string {
	if n.Devices == 0 {
		return strings.Repeat("·", int(width))
	}
	done := n.Done * width / n.Devices
	bad := (n.Failed + n.Expired + n.Cancelled) * width / n.Devices
	return strings.Repeat("█", int(done)) + strings.Repeat("▒", int(bad)) + strings.Repeat("·", int(width-done-bad))
}
