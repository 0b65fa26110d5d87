// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/evidence"
)

func evidenceCommand() *cobra.Command {
	c, r := group("evidence", "Evidence that an outsider can check")
	c.AddCommand(evidenceExportCommand(r), answersCommand(r), answerCommand(r))
	return c
}

// evidenceExportCommand writes the sealed bundle of whatever an id names.
func evidenceExportCommand(r *remote) *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "export ID -o FILE", Short: "Write the sealed bundle of a device, a case or a product; check it with openthings verify", Args: cobra.ExactArgs(1),
		Example: `  openthings evidence export dev_… -o lamp.bundle
  openthings evidence export cas_… -o case.bundle
  openthings verify lamp.bundle --log-key log.pub`,
		RunE: func(c *cobra.Command, args []string) error {
			of := "devices"
			switch kind, _, _ := strings.Cut(args[0], "_"); kind {
			case "cas":
				of = "cases"
			case "prd":
				of = "products"
			}
			return save(c, r, "/v1/"+of+"/"+url.PathEscape(args[0])+"/evidence", out)
		},
	}
	fileFlag(c, &out)
	return c
}

// answersCommand lists the fifteen questions.
func answersCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "answers", Short: "What an auditor asks in the first hour, and what answers it", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/evidence/answers", func(w io.Writer, p api.Page[evidence.AuditQuestion]) error {
				rows := [][]string{{"NO", "FILE", "QUESTION", "NOT ANSWERED"}}
				for _, q := range p.Items {
					file := q.File
					if file == "" {
						file = "not yet"
					}
					rows = append(rows, []string{strconv.Itoa(q.Number), file, q.Question, q.Gap})
				}
				return table(w, rows)
			})
		},
	}
}

// answerCommand writes the file that answers one of them.
func answerCommand(r *remote) *cobra.Command {
	var out, product string
	c := &cobra.Command{
		Use: "answer NUMBER --product PRODUCT -o FILE", Short: "Write the sealed file that answers one question about a product", Args: cobra.ExactArgs(1),
		Example: `  openthings evidence answer 5 --product prd_… -o on-time.bundle`,
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := strconv.Atoi(args[0]); err != nil {
				return usageError{fmt.Errorf("%q is not the number of a question", args[0])}
			}
			return save(c, r, "/v1/products/"+url.PathEscape(product)+"/evidence?answer="+url.QueryEscape(args[0]), out)
		},
	}
	c.Flags().StringVar(&product, "product", "", "the product that is asked about")
	cobra.CheckErr(c.MarkFlagRequired("product"))
	fileFlag(c, &out)
	return c
}

// auditExportCommand writes the entries of the log in a time.
func auditExportCommand(r *remote) *cobra.Command {
	var out string
	q := map[string]*string{}
	c := &cobra.Command{
		Use: "export -o FILE", Short: "Write the entries of a time, of the whole tenant or about one product, each with its proof; check it with openthings verify", Args: cobra.NoArgs,
		Example: `  openthings audit export --from 2026-09-11 --to 2026-12-31 --product prd_… -o log.txt
  openthings verify log.txt --log-key log.pub`,
		RunE: func(c *cobra.Command, _ []string) error {
			v := url.Values{}
			for name, p := range q {
				if *p != "" {
					v.Set(name, *p)
				}
			}
			return save(c, r, "/v1/audit/export?"+v.Encode(), out)
		},
	}
	for name, text := range map[string]string{"from": "an instant or a day; the beginning of the log if absent", "to": "until before that instant, or until the end of that day; now if absent", "product": "only what is about it and what belongs to it"} {
		q[name] = c.Flags().String(name, "", text)
	}
	fileFlag(c, &out)
	r.flags(c)
	return c
}

func fileFlag(c *cobra.Command, out *string) {
	c.Flags().StringVarP(out, "out", "o", "", "where to write it; - is standard output")
	cobra.CheckErr(c.MarkFlagRequired("out"))
}

// save writes an answer of the API to a file as it comes in; a file that broke off is removed.
func save(c *cobra.Command, r *remote, path, out string) error {
	cl, err := r.client()
	if err != nil {
		return err
	}
	if out == "-" {
		_, err = cl.Copy(c.Context(), path, c.OutOrStdout())
		return err
	}
	f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	n, err := cl.Copy(c.Context(), path, f)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		os.Remove(out)
		return err
	}
	fmt.Fprintf(c.ErrOrStderr(), "%s: %d bytes. Check it anywhere with: openthings verify %s --log-key KEY\n", out, n, out)
	return nil
}
