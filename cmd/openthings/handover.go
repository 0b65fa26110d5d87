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

// deviceDataCommand writes everything that a device said and was asked.
func deviceDataCommand(r *remote) *cobra.Command {
	var out, format string
	c := &cobra.Command{
		Use: "data DEVICE -o FILE", Short: "Write everything that a device measured, told, was asked and answered", Args: oneDevice,
		Long: "Write a ZIP with all measurements, events, security events, commands and state of a device, as CSV and JSON Lines. Do it before\n" +
			"a device is deprovisioned: that destroys the key of its data.",
		Example: "  openthings device data dev_… -o lamp.zip",
		RunE: func(c *cobra.Command, args []string) error {
			return saveDownload(c, r, "/v1/devices/"+url.PathEscape(args[0])+"/data/export?"+url.Values{"format": {format}}.Encode(), out)
		},
	}
	c.Flags().StringVar(&format, "format", "csv", "form of the measurements: csv or jsonl")
	outFlag(c, &out)
	return c
}

// configurationCommand writes what was set for devices.
func configurationCommand(r *remote) *cobra.Command {
	var out, filter, cohort string
	c := &cobra.Command{
		Use: "configuration -o FILE", Short: "Write what was set for devices: labels, desired state, groups, alarm rules, commands", Args: cobra.NoArgs,
		Example: "  openthings device configuration --filter 'solution:harbour' -o harbour.zip",
		RunE: func(c *cobra.Command, _ []string) error {
			q := url.Values{}
			for name, v := range map[string]string{"filter": filter, "cohort": cohort} {
				if v != "" {
					q.Set(name, v)
				}
			}
			return saveDownload(c, r, "/v1/configuration/export?"+q.Encode(), out)
		},
	}
	c.Flags().StringVar(&filter, "filter", "", "only devices that match, in the language of the fleet")
	c.Flags().StringVar(&cohort, "cohort", "", "only devices of this placement cohort")
	outFlag(c, &out)
	return c
}
