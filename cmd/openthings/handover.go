// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/problem"
)

// orphanBundleCommand writes what keeps a product's units usable without anybody who serves them.
func orphanBundleCommand(r *remote) *cobra.Command {
	var out, revision string
	c := &cobra.Command{
		Use: "orphan-bundle PRODUCT -o FILE", Short: "Write what keeps units usable and verifiable without their maker and without a platform", Args: cobra.ExactArgs(1),
		Long: "Write a ZIP with the last firmware of each hardware revision, the maker's signatures and keys, bill of materials, statements\n" +
			"about vulnerabilities, advisories and the user information. Its README.md says how to verify it with openssl, sha256sum\n" +
			"and openthings-agent check. As long as nothing new is published it has the same bytes each time.",
		Example: "  openthings product orphan-bundle $PRODUCT -o lamp.zip",
		RunE: func(c *cobra.Command, args []string) error {
			q := url.Values{}
			if revision != "" {
				q.Set("revision", revision)
			}
			return saveDownload(c, r, "/v1/products/"+url.PathEscape(args[0])+"/orphan-bundle?"+q.Encode(), out)
		},
	}
	c.Flags().StringVar(&revision, "revision", "", "only this hardware revision")
	outFlag(c, &out)
	return c
}

// outFlag adds the mandatory flag that says where a download goes.
func outFlag(c *cobra.Command, out *string) {
	c.Flags().StringVarP(out, "out", "o", "", "file to write; - is standard output")
	cobra.CheckErr(c.MarkFlagRequired("out"))
}

// saveDownload writes what a path answers to a file, or to standard output. A file is complete or is not there.
func saveDownload(c *cobra.Command, r *remote, path, out string) error {
	cl, err := r.client()
	if err != nil {
		return err
	}
	if out == "-" {
		_, err := cl.Copy(c.Context(), path, c.OutOrStdout())
		return err
	}
	part := out + ".part"
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return problem.Invalid("%s cannot be written", out).At("--out").Because(err)
	}
	n, err := cl.Copy(c.Context(), path, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	if err := os.Rename(part, out); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.ErrOrStderr(), "%s: %d bytes\n", out, n)
	return err
}
