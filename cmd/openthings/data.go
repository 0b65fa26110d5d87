// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/telemetry"
)

func cataloguePath(product string) string {
	return "/v1/products/" + url.PathEscape(product) + "/catalogue"
}

func catalogueCommand() *cobra.Command {
	c, r := group("catalogue", "What a product's devices may send, why, and for how long it is kept")
	get := &cobra.Command{
		Use: "get PRODUCT", Short: "What a product's devices may send", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return read(c, r, cataloguePath(args[0]), printCatalogue) },
	}
	set := &cobra.Command{
		Use: "set PRODUCT FILE", Short: "Set it from a file of JSON, as its next version", Args: cobra.ExactArgs(2),
		Long: "Set it from a file of JSON, as its next version. From then on a field that is not named is dropped and counted, unless\n" +
			"the file says \"undeclared\": \"keep\".",
		Example: `  openthings catalogue set prd_01m8 catalogue.json
  # catalogue.json: {"fields": [{"stream": "env", "name": "temp", "unit": "Cel", "purpose": "keeps the cold chain", "retention_days": 365}]}`,
		RunE: func(c *cobra.Command, args []string) error {
			return put(c, r, cataloguePath(args[0]), args[1], printCatalogue)
		},
	}
	c.AddCommand(get, set, declareCommand(r), catalogueHistoryCommand(r), undeclaredCommand(r), retentionCommand(r))
	return c
}

func printCatalogue(w io.Writer, v telemetry.CatalogueVersion) error {
	if v.Version == 0 {
		_, err := fmt.Fprintln(w, "no catalogue: everything that devices send is taken")
		return err
	}
	fmt.Fprintf(w, "version %d, set %s; undeclared fields: %s\n", v.Version, instant(v.Created), v.Undeclared)
	rows := [][]string{{"FIELD", "TYPE", "UNIT", "KEPT", "PERSONAL", "PURPOSE"}}
	for _, f := range v.Fields {
		kept := "default"
		if f.Retention > 0 {
			kept = strconv.Itoa(f.Retention) + " days"
		}
		rows = append(rows, []string{f.Stream + "/" + f.Name, string(f.Type), f.Unit, kept, yes(f.Personal), f.Purpose})
	}
	return table(w, rows)
}

func declareCommand(r *remote) *cobra.Command {
	var f telemetry.Field
	var kind string
	c := &cobra.Command{
		Use: "declare PRODUCT STREAM/FIELD", Short: "Declare one field, or declare it anew", Args: cobra.ExactArgs(2),
		Example: `  openthings catalogue declare prd_01m8 env/temp --unit Cel --purpose "keeps the cold chain" --days 365`,
		RunE: func(c *cobra.Command, args []string) error {
			stream, name, ok := strings.Cut(args[1], "/")
			if !ok {
				return usageError{fmt.Errorf("%q is not STREAM/FIELD, such as env/temp", args[1])}
			}
			f.Stream, f.Name, f.Type = stream, name, telemetry.FieldType(kind)
			return do(c, r, http.MethodPost, cataloguePath(args[0])+"/fields", map[string]any{"fields": []telemetry.Field{f}}, printCatalogue)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.Purpose, "purpose", "", "what it is needed for")
	fl.StringVar(&f.Unit, "unit", "", "UCUM or SenML code, such as Cel, %RH or m/s")
	fl.StringVar(&kind, "type", "number", "number, integer or boolean")
	fl.IntVar(&f.Retention, "days", 0, "days after which it is deleted; 0: the tenant's default")
	fl.BoolVar(&f.Personal, "personal", false, "it is, or may become, data about a person")
	cobra.CheckErr(c.MarkFlagRequired("purpose"))
	return c
}

func catalogueHistoryCommand(r *remote) *cobra.Command {
	var pages paging
	c := &cobra.Command{
		Use: "history PRODUCT", Short: "The versions of a catalogue, the newest first", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, pages.path("/v1/products/"+url.PathEscape(args[0])+"/catalogues", nil), func(w io.Writer, p api.Page[telemetry.CatalogueVersion]) error {
				rows := [][]string{{"VERSION", "SET", "BY", "FIELDS", "UNDECLARED"}}
				for _, v := range p.Items {
					rows = append(rows, []string{fmt.Sprint(v.Version), instant(v.Created), v.Actor, fmt.Sprint(len(v.Fields)), v.Undeclared})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(c)
	return c
}

func undeclaredCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "undeclared PRODUCT", Short: "Fields that a product's devices send and its catalogue does not name", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/products/"+url.PathEscape(args[0])+"/undeclared-fields", func(w io.Writer, p api.Page[telemetry.Undeclared]) error {
				rows := [][]string{{"FIELD", "DROPPED", "LAST"}}
				for _, u := range p.Items {
					n := "kept"
					if u.Count > 0 {
						n = fmt.Sprint(u.Count)
					}
					rows = append(rows, []string{u.Stream + "/" + u.Field, n, instant(u.Last)})
				}
				return table(w, rows)
			})
		},
	}
}

func retentionCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "retention [DAYS]", Short: "How long a field is kept whose catalogue does not say; with DAYS, set it", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			human := func(w io.Writer, v telemetry.RetentionOut) error {
				_, err := fmt.Fprintf(w, "%d days\n", v.Days)
				return err
			}
			if len(args) == 0 {
				return read(c, r, "/v1/telemetry/retention", human)
			}
			days, err := strconv.Atoi(args[0])
			if err != nil {
				return usageError{fmt.Errorf("%q is no number of days", args[0])}
			}
			return do(c, r, http.MethodPut, "/v1/telemetry/retention", telemetry.RetentionOut{Days: days}, human)
		},
	}
}

func telemetryCommand() *cobra.Command {
	c, r := group("telemetry", "What devices measured: values over time, export, gaps, and who may read it")
	var pages paging
	gaps := &cobra.Command{
		Use: "gaps", Short: "Devices of which messages are missing, by their own count", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, pages.path("/v1/telemetry/gaps", nil), func(w io.Writer, p api.Page[telemetry.Gap]) error {
				rows := [][]string{{"DEVICE", "MISSING", "SINCE"}}
				for _, g := range p.Items {
					rows = append(rows, []string{g.Device, fmt.Sprint(g.Missing), instant(g.Since)})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(gaps)
	describe := &cobra.Command{
		Use: "describe DEVICE", Short: "What data a device makes, why, in which units and how long they are kept", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/devices/"+url.PathEscape(args[0])+"/data/description", func(w io.Writer, d telemetry.Description) error {
				rows := [][]string{{"FIELD", "UNIT", "LATEST", "KEPT", "PERSONAL", "PURPOSE"}}
				for _, f := range d.Fields {
					latest, purpose := "-", f.Purpose
					if f.Latest != nil {
						latest = strconv.FormatFloat(*f.Latest, 'g', 6, 64)
					}
					if !f.Declared {
						purpose = "(not declared)"
					}
					rows = append(rows, []string{f.Stream + "/" + f.Name, f.Unit, latest, fmt.Sprintf("%d days", f.Days), yes(f.Personal), purpose})
				}
				return table(w, rows)
			})
		},
	}
	c.AddCommand(append(telemetryReads(r), exportCommand(r), gaps, describe, shareCommand(r))...)
	return c
}

func exportCommand(r *remote) *cobra.Command {
	var device, filter, from, to, format, file string
	var fields []string
	c := &cobra.Command{
		Use: "export [-o FILE]", Short: "Measurements of a device, a group or everything as CSV or JSON Lines", Args: cobra.NoArgs,
		Example: `  openthings telemetry export --device dev_01m8 --from 2026-11-01 -o fridge.csv
  openthings telemetry export --filter "label.site:hall-2" --fields env/temp --format jsonl`,
		RunE: func(c *cobra.Command, _ []string) error {
			q := url.Values{"format": {format}, "fields": fields}
			for name, v := range map[string]string{"device": device, "filter": filter, "from": from, "to": to} {
				if v != "" {
					q.Set(name, v)
				}
			}
			cl, err := r.client()
			if err != nil {
				return err
			}
			w := c.OutOrStdout()
			p := &progress{to: c.ErrOrStderr(), began: time.Now()}
			if file != "" {
				f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
				if err != nil {
					return problem.Invalid("%s cannot be written", file).At("--out").Because(err)
				}
				defer f.Close()
				w = f
				e, ok := c.ErrOrStderr().(*os.File)
				p.shown = ok && term.IsTerminal(int(e.Fd()))
			}
			n, err := cl.Copy(c.Context(), "/v1/telemetry/export?"+q.Encode(), io.MultiWriter(w, p))
			p.end()
			if err != nil {
				return err
			}
			if file != "" {
				fmt.Fprintf(c.ErrOrStderr(), "%s: %d measurements, %d bytes\n", file, p.measurements(format), n)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&device, "device", "", "only this device")
	f.StringVar(&filter, "filter", "", "only devices that match, in the language of the fleet")
	f.StringVar(&from, "from", "", "first instant or day")
	f.StringVar(&to, "to", "", "instant or day before which it ends; default now")
	f.StringSliceVar(&fields, "fields", nil, "only these, as temp or env/temp")
	f.StringVar(&format, "format", "csv", "csv or jsonl")
	f.StringVarP(&file, "out", "o", "", "file to write; default standard output")
	return c
}

// progress counts what passes and shows it on a terminal.
type progress struct {
	to     io.Writer
	shown  bool
	began  time.Time
	lines  int64
	bytes  int64
	spoken time.Time
}

func (p *progress) Write(b []byte) (int, error) {
	p.lines += int64(bytes.Count(b, []byte("\n")))
	p.bytes += int64(len(b))
	if now := time.Now(); p.shown && now.Sub(p.spoken) > 200*time.Millisecond {
		p.spoken = now
		fmt.Fprintf(p.to, "\r%d lines, %.1f MB, %s\x1b[K", p.lines, float64(p.bytes)/1e6, now.Sub(p.began).Round(time.Second))
	}
	return len(b), nil
}

func (p *progress) end() {
	if p.shown && !p.spoken.IsZero() {
		fmt.Fprint(p.to, "\r\x1b[K")
	}
}

// measurements is how many lines are no heading.
func (p *progress) measurements(format string) int64 {
	if format == "csv" && p.lines > 0 {
		return p.lines - 1
	}
	return p.lines
}

func shareCommand(r *remote) *cobra.Command {
	c := parent("share", "Whom the user of devices lets read their data (Data Act, article 5)")
	var pages paging
	list := &cobra.Command{
		Use: "list", Short: "With whom data are shared", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, pages.path("/v1/data/shares", nil), func(w io.Writer, p api.Page[telemetry.Share]) error {
				rows := [][]string{{"SHARE", "SOLUTION", "RECIPIENT", "PURPOSE", "UNTIL", "ENDED"}}
				for _, x := range p.Items {
					ended := ""
					if !x.Ended.IsZero() {
						ended = instant(x.Ended)
					}
					rows = append(rows, []string{x.ID, x.Solution, x.Recipient, x.Purpose, instant(x.Expires), ended})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(list)
	var recipient, purpose string
	var days int
	var none bool
	create := &cobra.Command{
		Use: "create SOLUTION", Short: "Make a token that reads the telemetry of a solution's devices; shown once", Args: cobra.ExactArgs(1),
		Example: `  openthings telemetry share create sol_01m8 --recipient "Repair Ltd" --purpose repair --not-gatekeeper`,
		RunE: func(c *cobra.Command, args []string) error {
			in := map[string]any{"solution": args[0], "recipient": recipient, "purpose": purpose, "not_gatekeeper": none,
				"expires": time.Now().Add(time.Duration(days) * 24 * time.Hour).UTC().Format(time.RFC3339)}
			return do(c, r, http.MethodPost, "/v1/data/shares", in, func(w io.Writer, s telemetry.NewShare) error {
				_, err := fmt.Fprintf(w, "%s until %s\n%s\n", s.ID, instant(s.Expires), s.Token)
				return err
			})
		},
	}
	f := create.Flags()
	f.StringVar(&recipient, "recipient", "", "who reads")
	f.StringVar(&purpose, "purpose", "", "what they may use it for")
	f.IntVar(&days, "days", 90, "how long, up to 366")
	f.BoolVar(&none, "not-gatekeeper", false, "the recipient is no gatekeeper of the Digital Markets Act (article 5(3))")
	for _, name := range []string{"recipient", "purpose"} {
		cobra.CheckErr(create.MarkFlagRequired(name))
	}
	end := &cobra.Command{
		Use: "end SHARE", Short: "End a share and its token at once", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := r.client()
			if err != nil {
				return err
			}
			return cl.Do(c.Context(), http.MethodPost, "/v1/data/shares/"+url.PathEscape(args[0])+"/end", nil, nil)
		},
	}
	c.AddCommand(list, create, end)
	return c
}
