// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/respond"
)

// packCommands are those of case that concern what is submitted.
func packCommands(r *remote) []*cobra.Command {
	var stage string
	pack := &cobra.Command{
		Use: "pack CASE", Short: "The next report of a case, field by field, to be copied to the reporting platform; nothing is sent", Args: cobra.ExactArgs(1),
		Example: `  openthings case pack cas_…
  openthings case pack cas_… --stage final --json`,
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/cases/"+url.PathEscape(args[0])+"/pack?stage="+url.QueryEscape(stage), printPack)
		},
	}
	pack.Flags().StringVar(&stage, "stage", "", "early_warning, notification or final; the next one if absent")

	var fields, reset []string
	fill := &cobra.Command{
		Use: "fill CASE", Short: "Write into fields of a case's reports, or take them back to their drafts", Args: cobra.ExactArgs(1),
		Example: `  openthings case fill cas_… --field versions='1.0 to 1.4' --field general=@analysis.txt
  openthings case fill cas_… --reset impact`,
		RunE: func(c *cobra.Command, args []string) error {
			in := struct {
				Kind   respond.EventKind `json:"kind"`
				Fields map[string]string `json:"fields,omitempty"`
				Reset  []string          `json:"reset,omitempty"`
			}{respond.FieldsFilled, map[string]string{}, reset}
			for _, f := range fields {
				id, value, ok := strings.Cut(f, "=")
				if !ok {
					return usageError{fmt.Errorf("%q is not a field and a value, such as versions=1.0", f)}
				}
				if file, ok := strings.CutPrefix(value, "@"); ok {
					b, err := os.ReadFile(file)
					if err != nil {
						return problem.Invalid("the text cannot be read").Because(err)
					}
					value = strings.TrimSpace(string(b))
				}
				in.Fields[id] = value
			}
			if len(in.Fields)+len(reset) == 0 {
				return usageError{errors.New("name a field")}
			}
			return do(c, r, http.MethodPost, "/v1/cases/"+url.PathEscape(args[0])+"/events", in, func(w io.Writer, e respond.Event) error {
				_, err := fmt.Fprintf(w, "event %d: %d written, %d back to their drafts\n", e.Seq, len(e.Data.Fields), len(e.Data.Reset))
				return err
			})
		},
	}
	fill.Flags().StringArrayVar(&fields, "field", nil, "id=text, or id=@file; may be repeated")
	fill.Flags().StringArrayVar(&reset, "reset", nil, "id of a field that goes back to its draft; may be repeated")

	var file string
	var attempt int64
	receipt := &cobra.Command{
		Use: "receipt CASE", Short: "Keep a receipt of the reporting platform as a file; a second person confirms it", Args: cobra.ExactArgs(1),
		Example: `  openthings case receipt cas_… --attempt 3 --file receipt.pdf`,
		RunE: func(c *cobra.Command, args []string) error {
			f, err := os.Open(file)
			if err != nil {
				return problem.Invalid("the receipt cannot be read").Because(err)
			}
			defer f.Close()
			q := url.Values{"attempt": {strconv.FormatInt(attempt, 10)}, "name": {filepath.Base(file)}}
			return do(c, r, http.MethodPost, "/v1/cases/"+url.PathEscape(args[0])+"/receipts?"+q.Encode(), io.Reader(f), func(w io.Writer, e respond.Event) error {
				_, err := fmt.Fprintf(w, "%s: %d bytes, SHA-256 %s, for event %d\n", e.Data.Name, e.Data.Size, e.Data.SHA256, e.Data.Attempt)
				return err
			})
		},
	}
	receipt.Flags().StringVar(&file, "file", "", "the receipt")
	receipt.Flags().Int64Var(&attempt, "attempt", 0, "number of the event that says that the report was submitted")
	cobra.CheckErr(receipt.MarkFlagRequired("file"))
	cobra.CheckErr(receipt.MarkFlagRequired("attempt"))

	coordinator := &cobra.Command{
		Use: "coordinator", Short: "Whose CSIRT is our coordinator, as a person confirmed it (CRA Art. 14(7))", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/coordinator", func(w io.Writer, x respond.Confirmed) error {
				fmt.Fprintf(w, "%s: %s (%s, list as of %s), confirmed %s by %s\n", x.State, x.CSIRT.Name, x.CSIRT.Basis, x.AsOf, instant(x.At), x.Actor)
				if x.Reason != "" {
					fmt.Fprintln(w, "reason:", x.Reason)
				}
				rows := [][]string{{"QUESTION", "ANSWER", "DECIDES"}}
				for _, s := range x.Steps {
					rows = append(rows, []string{s.Question, s.Answer, yes(s.Decides)})
				}
				return table(w, rows)
			})
		},
	}
	return []*cobra.Command{pack, fill, receipt, coordinator}
}

// printPack shows a pack as it is to be copied: what is missing first, then each field with its text as it stands.
func printPack(w io.Writer, p respond.Pack) error {
	if p.Drill {
		fmt.Fprintln(w, "DRILL. An exercise: nothing of this is ever filed.")
	}
	fmt.Fprintf(w, "%s of %s, fields of %s\n", p.Stage.Name(), p.Case, strings.Join(p.Profiles, " and "))
	for _, f := range p.Faults {
		fmt.Fprintf(w, "missing: %s (%s): %s, asked by %s\n", f.Label, f.Field, f.Why, f.Rule)
	}
	if p.Countries.Mismatch() {
		fmt.Fprintf(w, "compare: named %s, declared %s, seen in the fleet %s\n", strings.Join(p.Countries.Named, " "), strings.Join(p.Countries.Declared, " "), strings.Join(p.Countries.Seen, " "))
	}
	for _, f := range p.Fields {
		if f.Value == "" {
			continue
		}
		count := strconv.Itoa(f.Used)
		if f.Limit > 0 {
			count += " of " + strconv.Itoa(f.Limit)
		}
		fmt.Fprintf(w, "\n%s  (%s; %s; %s)\n%s\n", f.Label, f.ID, count, f.Source, f.Value)
		if f.Draft != "" {
			fmt.Fprintf(w, "  the draft is different now: %s\n", f.Draft)
		}
	}
	if len(p.Annex) > 0 {
		fmt.Fprintf(w, "\nAnnex: all affected versions\n%s\n", strings.Join(p.Annex, ", "))
	}
	_, err := fmt.Fprintf(w, "\nSHA-256 %s\n", p.Digest)
	return err
}
