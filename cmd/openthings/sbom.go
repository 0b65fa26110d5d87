// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
)

// sbomCommands are those that ask a platform, or need none where they are given files.
func sbomCommands() []*cobra.Command {
	return []*cobra.Command{sbomShowCommand(), sbomPartsCommand(), sbomCompareCommand(), sbomExportCommand(), sbomEvidenceCommand()}
}

// billFile reads a bill of materials where the argument is a file; false: it is the id of a release.
func billFile(name string) (sbom.Bill, bool, error) {
	if _, err := os.Stat(name); err != nil && strings.HasPrefix(name, "rel_") {
		return sbom.Bill{}, false, nil
	}
	doc, err := readAtMost(name, sbom.MaxBytes)
	if err != nil {
		return sbom.Bill{}, true, err
	}
	b, err := sbom.Parse(doc)
	if err != nil {
		err = problem.Of(err).At(name)
	}
	return b, true, err
}

// readAtMost reads a file, and refuses one of more bytes without having read it.
func readAtMost(name string, bytes int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, problem.Invalid("%s cannot be read", name).Because(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, bytes+1))
	if err != nil {
		return nil, problem.Invalid("%s cannot be read", name).Because(err)
	}
	if int64(len(b)) > bytes {
		return nil, problem.TooLarge("%s has more than %d bytes; so much is not read", name, bytes)
	}
	return b, nil
}

func releasePath(release, rest string) string {
	return "/v1/releases/" + url.PathEscape(release) + rest
}

func sbomShowCommand() *cobra.Command {
	r := &remote{}
	c := &cobra.Command{
		Use: "show FILE | RELEASE", Short: "Quality of a bill of materials: what it says and what it leaves out", Args: cobra.ExactArgs(1),
		Long: "Quality of a bill of materials, of a file or of a release: the facts of BSI TR-03183-2 and of the NTIA's minimum\n" +
			"elements, which are given and which are missing, and how many parts no record can be compared with.",
		Example: "  openthings sbom show lamp.cdx.json",
		RunE: func(c *cobra.Command, args []string) error {
			b, isFile, err := billFile(args[0])
			if err != nil {
				return err
			}
			if !isFile {
				return read(c, r, releasePath(args[0], "/sbom/record"), func(w io.Writer, x sbom.Record) error { return printQuality(w, x.Quality) })
			}
			raw, err := json.Marshal(b.Quality())
			if err != nil {
				return err
			}
			return show(c, r, raw, printQuality)
		},
	}
	r.flags(c)
	return c
}

func printQuality(w io.Writer, q sbom.Quality) error {
	fmt.Fprintf(w, "%s: %d parts, %d can be compared with records, %d cannot\n", q.Grade, q.Total, q.Matchable, q.NotMatchable())
	for _, list := range []string{sbom.ListBSI, sbom.ListNTIA} {
		facts, given := q.List(list)
		fmt.Fprintf(w, "\n%s: %d of %d\n", list, given, len(facts))
		rows := [][]string{{"FACT", "GIVEN", "MISSING"}}
		for _, f := range facts {
			rows = append(rows, []string{f.Title, yes(f.Given()), f.Missing})
		}
		if err := table(w, rows); err != nil {
			return err
		}
	}
	return nil
}

func sbomPartsCommand() *cobra.Command {
	r := &remote{}
	var pages paging
	c := &cobra.Command{
		Use: "parts RELEASE", Short: "Parts of a release, and by which names they are matched", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, pages.path(releasePath(args[0], "/components"), nil), func(w io.Writer, p api.Page[sbom.Part]) error {
				rows := [][]string{{"PART", "VERSION", "LICENCE", "SUPPLIER", "MATCHED BY"}}
				for _, x := range p.Items {
					by := "not matchable"
					for i, space := range x.Spaces {
						if i == 0 {
							by = space
						} else {
							by += ", " + space
						}
					}
					rows = append(rows, []string{x.Name, x.Version, x.Licence, x.Supplier, by})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	r.flags(c)
	pages.flags(c)
	return c
}

func sbomCompareCommand() *cobra.Command {
	r := &remote{}
	c := &cobra.Command{
		Use: "compare A B", Short: "What B adds, leaves out and changes: two releases, or two files", Args: cobra.ExactArgs(2),
		Example: "  openthings sbom compare lamp-1.0.cdx.json lamp-1.1.cdx.json",
		RunE: func(c *cobra.Command, args []string) error {
			before, first, err := billFile(args[0])
			if err != nil {
				return err
			}
			after, second, err := billFile(args[1])
			if err != nil {
				return err
			}
			switch {
			case first && second:
				raw, err := json.Marshal(sbom.CompareBills(before, after))
				if err != nil {
					return err
				}
				return show(c, r, raw, printComparison)
			case first || second:
				return usageError{fmt.Errorf("compare two files or two releases, not one of each")}
			}
			return read(c, r, releasePath(args[0], "/sbom/compare?with="+url.QueryEscape(args[1])), printComparison)
		},
	}
	r.flags(c)
	return c
}

func printComparison(w io.Writer, x sbom.Comparison) error {
	fmt.Fprintf(w, "%d added, %d removed, %d in another version, %d under another licence, %d the same\n",
		len(x.Added), len(x.Removed), len(x.Versions()), len(x.Licences()), x.Same)
	rows := [][]string{{"", "PART", "VERSION", "LICENCE"}}
	for _, p := range x.Added {
		rows = append(rows, []string{"+", p.Name, p.Version, p.Licence})
	}
	for _, p := range x.Removed {
		rows = append(rows, []string{"-", p.Name, p.Version, p.Licence})
	}
	arrow := func(before, after string) string {
		if before == after {
			return after
		}
		return before + " -> " + after
	}
	for _, p := range x.Changed {
		rows = append(rows, []string{"~", p.Name, arrow(p.Before.Version, p.After.Version), arrow(p.Before.Licence, p.After.Licence)})
	}
	if len(rows) == 1 {
		return nil
	}
	return table(w, rows)
}

func sbomExportCommand() *cobra.Command {
	r := &remote{}
	var form, out string
	var less sbom.Reduction
	c := &cobra.Command{
		Use: "export FILE | RELEASE", Short: "A copy in another form, whole or reduced to what somebody needs to know", Args: cobra.ExactArgs(1),
		Long: "A copy of a bill of materials in another form, whole or reduced to what somebody needs to know. A reduced copy says that\n" +
			"it is one. A copy of a release's bill becomes an entry of the audit log.",
		Example: `  openthings sbom export lamp.cdx.json --format spdx-3.0.1 -o lamp.spdx.json
  openthings sbom export $RELEASE --top-level --without-paths -o for-the-customer.cdx.json`,
		RunE: func(c *cobra.Command, args []string) error {
			b, isFile, err := billFile(args[0])
			if err != nil {
				return err
			}
			var doc []byte
			if isFile {
				doc, err = b.Reduce(less).Write(sbom.Output(form))
			} else {
				doc, err = exported(c, r, args[0], form, less)
			}
			if err != nil {
				return err
			}
			if out == "-" {
				_, err = c.OutOrStdout().Write(doc)
				return err
			}
			return os.WriteFile(out, doc, 0o644)
		},
	}
	r.connect(c)
	f := c.Flags()
	f.StringVar(&form, "format", string(sbom.Outputs[0]), problem.Or(sbom.Outputs))
	f.StringVarP(&out, "out", "o", "-", "where to write it; - is standard output")
	f.BoolVar(&less.TopLevel, "top-level", false, "only what the product itself depends on or contains")
	f.BoolVar(&less.WithoutPaths, "without-paths", false, "no files, repositories and links")
	f.BoolVar(&less.WithoutHashes, "without-hashes", false, "no digests of parts")
	f.StringArrayVar(&less.WithoutSuppliers, "without-supplier", nil, "no parts of this supplier; may be given several times")
	return c
}

func exported(c *cobra.Command, r *remote, release, form string, less sbom.Reduction) ([]byte, error) {
	cl, err := r.client()
	if err != nil {
		return nil, err
	}
	q := url.Values{"format": {form}, "without_supplier": less.WithoutSuppliers}
	for name, on := range map[string]bool{"top_level": less.TopLevel, "without_paths": less.WithoutPaths, "without_hashes": less.WithoutHashes} {
		if on {
			q.Set(name, "true")
		}
	}
	var doc []byte
	err = cl.Do(c.Context(), http.MethodGet, releasePath(release, "/sbom/export?"+q.Encode()), nil, &doc)
	return doc, err
}

func sbomEvidenceCommand() *cobra.Command {
	r := &remote{}
	var kind string
	c := &cobra.Command{
		Use: "evidence RELEASE [FILE]", Short: "Show how a release was built: the kernel's compiled sources, or its configuration", Args: cobra.RangeArgs(1, 2),
		Long: "Show how a release was built: compile_commands.json, a build log of the kernel or a list of its compiled sources; or, with\n" +
			"--kind kernel-config, its .config. Without a file: what was shown so far.",
		Example: `  openthings sbom evidence $RELEASE compile_commands.json
  openthings sbom evidence $RELEASE .config --kind kernel-config`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				return read(c, r, releasePath(args[0], "/evidence"), func(w io.Writer, p api.Page[sbom.Evidence]) error { return printEvidence(w, p.Items...) })
			}
			f, err := os.Open(args[1])
			if err != nil {
				return problem.Invalid("%s cannot be read", args[1]).Because(err)
			}
			defer f.Close()
			cl, err := r.client()
			if err != nil {
				return err
			}
			var raw json.RawMessage
			if err := cl.Do(c.Context(), http.MethodPut, releasePath(args[0], "/evidence/"+url.PathEscape(kind)), io.Reader(f), &raw); err != nil {
				return err
			}
			return show(c, r, raw, func(w io.Writer, e sbom.Evidence) error { return printEvidence(w, e) })
		},
	}
	r.flags(c)
	c.Flags().StringVar(&kind, "kind", string(sbom.CompiledFiles), fmt.Sprintf("%s or %s", sbom.CompiledFiles, sbom.KernelConfig))
	return c
}

func printEvidence(w io.Writer, list ...sbom.Evidence) error {
	rows := [][]string{{"KIND", "ENTRIES", "SHOWN", "CONTENT"}}
	for _, e := range list {
		rows = append(rows, []string{string(e.Kind), fmt.Sprint(e.Entries), instant(e.At), e.Content})
	}
	return table(w, rows)
}
