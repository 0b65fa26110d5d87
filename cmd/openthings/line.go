// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
)

func batchCommand() *cobra.Command {
	c, r := group("batch", "Batches: issued against produced")
	var pages paging
	list := &cobra.Command{
		Use: "list", Short: "Batches, the newest first", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, pages.path("/v1/batches", nil), func(w io.Writer, p api.Page[enroll.BatchOut]) error {
				rows := [][]string{{"BATCH", "NAME", "SIZE", "ISSUED", "CLAIMED", "FAILED", "PRODUCED", "SURPLUS", "AT LARGE"}}
				for _, b := range p.Items {
					produced := "open"
					if !b.Closed.IsZero() {
						produced = fmt.Sprint(b.Produced)
					}
					rows = append(rows, []string{b.ID, b.Name, fmt.Sprint(b.Size), fmt.Sprint(b.Issued), fmt.Sprint(b.Claimed), fmt.Sprint(b.Failed), produced, fmt.Sprint(b.Surplus), fmt.Sprint(b.AtLarge)})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(list)
	c.AddCommand(list, batchCloseCommand(r), batchManifestCommand(r), batchDifferencesCommand(r), batchPlaceCommand(r), batchVerifyCommand())
	return c
}

func batchCloseCommand(r *remote) *cobra.Command {
	var produced int64
	var serials string
	c := &cobra.Command{
		Use: "close BATCH", Short: "Close a batch with what the factory made; more identities than units is an alarm", Args: cobra.ExactArgs(1),
		Long: "Close a batch with what the factory made; more identities than units is an alarm. A list of serial numbers names each of them,\n" +
			"a number does not: a batch that was closed with a number takes a list once later, of just as many serial numbers.",
		Example: `  openthings batch close bat_… --produced 4998
  openthings batch close bat_… --serials made.csv`,
		RunE: func(c *cobra.Command, args []string) error {
			path := "/v1/batches/" + url.PathEscape(args[0])
			human := func(w io.Writer, b enroll.BatchOut) error {
				_, err := fmt.Fprintf(w, "%s is closed: %d issued, %d produced, %d too many\n", b.Name, b.Issued, b.Produced, b.Surplus)
				return err
			}
			switch {
			case serials == "" && !c.Flags().Changed("produced"), serials != "" && c.Flags().Changed("produced"):
				return usageError{errors.New("give --produced or --serials")}
			case serials == "":
				return do(c, r, http.MethodPost, path+"/close", map[string]any{"produced": produced}, human)
			}
			f, err := os.Open(serials)
			if err != nil {
				return problem.Invalid("the list cannot be read").Because(err)
			}
			defer f.Close()
			return do(c, r, http.MethodPost, path+"/produced", io.Reader(f), human)
		},
	}
	c.Flags().Int64Var(&produced, "produced", 0, "how many units were made")
	c.Flags().StringVar(&serials, "serials", "", "file with the serial numbers made: the heading serial, then one a line, or the first column of a CSV")
	return c
}

func batchManifestCommand(r *remote) *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "manifest BATCH -o FILE", Short: "Write the signed manifest of a batch: every identity that it was given", Args: cobra.ExactArgs(1),
		Example: `  openthings batch manifest bat_… -o batch.json
  openthings batch verify batch.json --log-key log.pub`,
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := r.client()
			if err != nil {
				return err
			}
			var b []byte
			if err := cl.Do(c.Context(), http.MethodGet, "/v1/batches/"+url.PathEscape(args[0])+"/manifest", nil, &b); err != nil {
				return err
			}
			return writeFile(c.OutOrStdout(), out, b)
		},
	}
	c.Flags().StringVarP(&out, "out", "o", "", "where to write it; - is standard output")
	cobra.CheckErr(c.MarkFlagRequired("out"))
	return c
}

func batchDifferencesCommand(r *remote) *cobra.Command {
	var pages paging
	c := &cobra.Command{
		Use: "differences BATCH", Short: "Surplus and missing serial numbers of a batch that has a list of those made", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, pages.path("/v1/batches/"+url.PathEscape(args[0])+"/differences", nil), func(w io.Writer, p api.Page[enroll.Difference]) error {
				rows := [][]string{{"SERIAL", "DIFFERENCE", "DEVICE", "STATE", "STATION"}}
				for _, d := range p.Items {
					rows = append(rows, []string{d.Serial, d.Kind, d.Device, d.State, d.Station})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(c)
	return c
}

func batchVerifyCommand() *cobra.Command {
	var key string
	var asJSON bool
	c := &cobra.Command{
		Use: "verify MANIFEST --log-key KEY", Short: "Check a manifest, with no server and no network", Args: cobra.ExactArgs(1),
		Long: "Check a manifest, with no server and no network: its signature, that no entry was left out, added or changed, and that nothing\n" +
			"stands in it twice. KEY is the log key that you got over a way that you trust, or a file that holds it.",
		RunE: func(c *cobra.Command, args []string) error {
			if key != "" && strings.Count(key, "+") < 2 {
				b, err := readInput("--log-key", key)
				if err != nil {
					return err
				}
				key = strings.TrimSpace(string(b))
			}
			f, err := os.Open(args[0])
			if err != nil {
				return problem.Invalid("the manifest cannot be read").Because(err)
			}
			defer f.Close()
			m, err := enroll.VerifyManifest(f, key)
			w := c.OutOrStdout()
			if asJSON {
				out := struct {
					Proven  bool   `json:"proven"`
					Failure string `json:"failure,omitempty"`
					enroll.Manifest
				}{Proven: err == nil, Manifest: m}
				if err != nil {
					out.Failure = err.Error()
				}
				if err := printJSON(w, out); err != nil {
					return err
				}
			} else if err == nil {
				fmt.Fprintf(w, "PROVEN: the batch %s (%s) had %s on %s, and these are all of them.\n", m.Name, m.Batch, console.Plural(m.Count, "identity", "identities"), instant(m.At))
			} else {
				fmt.Fprintf(w, "NOT PROVEN: %v\n", err)
			}
			if err != nil {
				return exitCode(1)
			}
			return nil
		},
	}
	c.Flags().StringVar(&key, "log-key", "", "the platform's log key, or a file that holds it")
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}

func serialCommand() *cobra.Command {
	c, r := group("serial", "Preauthorised serial numbers")
	var product, batch, search, used string
	var preview bool
	var pages paging
	imp := &cobra.Command{
		Use: "import FILE", Short: "Let the serial numbers of a CSV file be made, once each; all of them or none", Args: cobra.ExactArgs(1),
		Long:    "Let the serial numbers of a CSV file be made, once each; all of them or none. The first line names the columns: serial, and any\nof mac, order, line, part and label:NAME. Every faulty line is named.",
		Example: `  openthings serial import serials.csv --product prd_… --preview`,
		RunE: func(c *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return problem.Invalid("the file cannot be read").Because(err)
			}
			defer f.Close()
			q := url.Values{"product": {product}}
			if batch != "" {
				q.Set("batch", batch)
			}
			if preview {
				q.Set("preview", "true")
			}
			return do(c, r, http.MethodPost, "/v1/preauthorised/import?"+q.Encode(), io.Reader(f), func(w io.Writer, i enroll.Imported) error {
				said := "may be made"
				if i.Preview && i.Rows == 1 {
					said = "is in order; nothing was taken yet"
				} else if i.Preview {
					said = "are in order; nothing was taken yet"
				}
				_, err := fmt.Fprintf(w, "%s %s\n", console.Plural(i.Rows, "serial number", "serial numbers"), said)
				return err
			})
		},
	}
	imp.Flags().StringVar(&batch, "batch", "", "they may be made in this batch only")
	imp.Flags().BoolVar(&preview, "preview", false, "only check the file")
	list := &cobra.Command{
		Use: "list", Short: "Preauthorised serial numbers of a product", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, pages.path("/v1/preauthorised", url.Values{"product": {product}, "search": {search}, "used": {used}}), func(w io.Writer, p api.Page[enroll.Preauthorised]) error {
				rows := [][]string{{"SERIAL", "ORDER", "LINE", "PART", "DEVICE"}}
				for _, s := range p.Items {
					rows = append(rows, []string{s.Serial, s.Order, s.Line, s.Part, s.Device})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	list.Flags().StringVar(&search, "search", "", "beginning of the serial number")
	list.Flags().StringVar(&used, "used", "", "only those that were used (yes) or were not (no)")
	pages.flags(list)
	revoke := &cobra.Command{
		Use: "revoke SERIAL...", Short: "Take back serial numbers that nobody has used; all of them or none", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := r.client()
			if err != nil {
				return err
			}
			return cl.Do(c.Context(), http.MethodPost, "/v1/preauthorised/revoke", map[string]any{"product": product, "serials": args}, nil)
		},
	}
	for _, sub := range []*cobra.Command{imp, list, revoke} {
		sub.Flags().StringVar(&product, "product", "", "the product")
		cobra.CheckErr(sub.MarkFlagRequired("product"))
	}
	c.AddCommand(imp, list, revoke)
	return c
}

func lobbyCommand() *cobra.Command {
	c, r := group("lobby", "Devices that wait for a person")
	var verdict, solution, reason string
	var labels map[string]string
	var pages paging
	list := &cobra.Command{
		Use: "list", Short: "Who waits, or how was decided", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, pages.path("/v1/lobby", url.Values{"verdict": {verdict}}), func(w io.Writer, p api.Page[enroll.Guest]) error {
				rows := [][]string{{"DEVICE", "SERIAL", "HOW", "SINCE", "VERDICT", "SHOWED"}}
				for _, g := range p.Items {
					rows = append(rows, []string{g.Device, g.Serial, g.How, instant(g.Since), string(g.Verdict), showed(g.Evidence)})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	list.Flags().StringVar(&verdict, "verdict", "", "waiting, approved or denied; default waiting")
	pages.flags(list)
	decide := func(c *cobra.Command, devices []string, path, done string, in map[string]any) error {
		cl, err := r.client()
		if err != nil {
			return err
		}
		in["devices"] = devices
		if err := cl.Do(c.Context(), http.MethodPost, path, in, nil); err != nil {
			return err
		}
		for _, device := range devices {
			fmt.Fprintln(c.OutOrStdout(), device, done)
		}
		return nil
	}
	approve := &cobra.Command{
		Use: "approve DEVICE...", Short: "Let devices into a solution, with labels; all of them or none", Args: cobra.RangeArgs(1, enroll.MaxDecide),
		Example: `  openthings lobby approve dev_… --solution sol_… --label site=harbour`,
		RunE: func(c *cobra.Command, args []string) error {
			return decide(c, args, "/v1/lobby/approve", "is approved; it enrols when it asks again", map[string]any{"solution": solution, "labels": labels})
		},
	}
	approve.Flags().StringVar(&solution, "solution", "", "the solution")
	approve.Flags().StringToStringVar(&labels, "label", nil, "name=value; may be repeated")
	cobra.CheckErr(approve.MarkFlagRequired("solution"))
	deny := &cobra.Command{
		Use: "deny DEVICE...", Short: "Turn devices away; all of them or none", Args: cobra.RangeArgs(1, enroll.MaxDecide),
		RunE: func(c *cobra.Command, args []string) error {
			return decide(c, args, "/v1/lobby/deny", "is turned away; approve lets it in after all", map[string]any{"reason": reason})
		},
	}
	deny.Flags().StringVar(&reason, "reason", "", "why")
	cobra.CheckErr(deny.MarkFlagRequired("reason"))
	c.AddCommand(list, approve, deny)
	return c
}

// showed is what a device showed, as NAME=TEXT.
func showed(evidence json.RawMessage) string {
	var m map[string]any
	if json.Unmarshal(evidence, &m) != nil {
		return string(evidence)
	}
	var words []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		words = append(words, fmt.Sprintf("%s=%v", name, m[name]))
	}
	return strings.Join(words, " ")
}

func hookCommand() *cobra.Command {
	c, r := group("hook", "Your own system that is asked before a device gets in")
	var product string
	var patience int64
	var open bool
	list := &cobra.Command{
		Use: "list", Short: "Hooks, and what they said", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/hooks", func(w io.Writer, p api.Page[enroll.Hook]) error {
				rows := [][]string{{"PRODUCT", "URL", "WITHOUT AN ANSWER", "ASKED", "DENIED", "FAILED", "FAULT"}}
				for _, h := range p.Items {
					name, closed := h.Product, "nobody gets in"
					if name == "" {
						name = "every product"
					}
					if h.Open {
						closed = "devices get in"
					}
					rows = append(rows, []string{name, h.URL, closed, fmt.Sprint(h.Asked), fmt.Sprint(h.Denied), fmt.Sprint(h.Failed), h.Fault})
				}
				return table(w, rows)
			})
		},
	}
	set := &cobra.Command{
		Use: "set URL", Short: "Set a hook; its secret is printed once", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			in := map[string]any{"url": args[0], "product": product, "patience_ms": patience, "open": open}
			return do(c, r, http.MethodPost, "/v1/hooks", in, func(w io.Writer, s enroll.HookSecret) error {
				_, err := fmt.Fprintln(w, s.Secret)
				return err
			})
		},
	}
	set.Flags().Int64Var(&patience, "patience", 0, "milliseconds that it has to answer; default 3000")
	set.Flags().BoolVar(&open, "open", false, "let devices in when it gives no answer")
	drop := &cobra.Command{
		Use: "drop", Short: "Remove a hook", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := r.client()
			if err != nil {
				return err
			}
			return cl.Do(c.Context(), http.MethodPost, "/v1/hooks/drop", map[string]any{"product": product}, nil)
		},
	}
	for _, sub := range []*cobra.Command{set, drop} {
		sub.Flags().StringVar(&product, "product", "", "a product; default all of them: one that has a hook of its own asks both, and each must say yes")
	}
	c.AddCommand(list, set, drop)
	return c
}

func claimCommand() *cobra.Command {
	c, r := group("claim", "Claim codes")
	var solution string
	use := &cobra.Command{
		Use: "use CODE", Short: "Claim the unit with this code, or QR link, into a solution", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return do(c, r, http.MethodPost, "/v1/claims", map[string]any{"code": args[0], "solution": solution}, func(w io.Writer, d identity.Device) error {
				_, err := fmt.Fprintf(w, "%s  serial %s  is claimed\n", d.ID, d.Serial)
				return err
			})
		},
	}
	use.Flags().StringVar(&solution, "solution", "", "the solution")
	cobra.CheckErr(use.MarkFlagRequired("solution"))
	renew := &cobra.Command{
		Use: "renew DEVICE", Short: "Give a unit that nobody holds another claim code; it is printed once", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return do(c, r, http.MethodPost, "/v1/devices/"+url.PathEscape(args[0])+"/claim-code", nil, func(w io.Writer, k enroll.ClaimCode) error {
				_, err := fmt.Fprintln(w, k.Code)
				return err
			})
		},
	}
	c.AddCommand(use, renew)
	return c
}

func labelCommand() *cobra.Command {
	var serial, link, out string
	c := &cobra.Command{
		Use: "label CODE [-o FILE]", Short: "Make the label of a unit's box: a QR code as SVG, PNG or text", Args: cobra.ExactArgs(1),
		DisableFlagsInUseLine: true,
		Example: `  openthings label 7H2KD-… --link https://things.example
  openthings label 7H2KD-… --serial LMP-0001 -o label.svg`,
		RunE: func(c *cobra.Command, args []string) error {
			return writeLabel(c.OutOrStdout(), out, serial, args[0], link)
		},
	}
	f := c.Flags()
	f.StringVar(&serial, "serial", "", "the unit's serial number")
	f.StringVar(&link, "link", "", "address of the platform, for a QR code that leads to the page; default the code alone")
	f.StringVarP(&out, "out", "o", "-", "where to write it: .svg or .png; - prints it on the terminal")
	return c
}

func writeLabel(w io.Writer, file, serial, code, link string) error {
	l, err := enroll.NewLabel(serial, code, link)
	if err != nil {
		return err
	}
	switch filepath.Ext(file) {
	case ".svg":
		svg, err := l.SVG()
		if err != nil {
			return err
		}
		return writeFile(w, file, []byte(svg+"\n"))
	case ".png":
		b, err := l.PNG()
		if err != nil {
			return err
		}
		return writeFile(w, file, b)
	}
	if file != "-" {
		return usageError{errors.New("a label is written to a .svg or .png file")}
	}
	blocks, err := l.Blocks()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s%s\n", blocks, l.Code)
	return err
}
