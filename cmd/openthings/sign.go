// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/update"
)

func signCommand() *cobra.Command {
	c := parent("sign", "The manufacturer's signature over releases; runs offline")
	c.Long = "The manufacturer's signature over releases. It runs offline: the keys stay in the signing folder and never reach the platform."
	var dir string
	var days int
	init := &cobra.Command{
		Use: "init", Short: "Make a signing folder: a root key, a targets key and root.json", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o := update.SignInitOptions{Now: time.Now()}
			o.Expires = o.Now.AddDate(0, 0, days)
			if err := update.SignInit(dir, o); err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "%s is the manufacturer's: keep it offline and backed up.\nSend %s to the platform once: POST /v1/trust/root.\n", dir, filepath.Join(dir, update.FileRoot))
			return nil
		},
	}
	init.Flags().IntVar(&days, "days", 365, "how long the root is valid")
	var o update.SignReleaseOptions
	var floors string
	release := &cobra.Command{
		Use: "release", Short: "Sign a release into the folder's list, targets.json", Args: cobra.NoArgs,
		Example: `  openthings sign release --image lamp.bin --sbom lamp.cdx.json --product prd_… --hw C --version 1.1.0 --security-version 2`,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Dir, o.Now = dir, time.Now()
			o.Expires = o.Now.AddDate(0, 0, days)
			if o.SecurityVersion < 1 {
				return problem.Invalid("--security-version begins at 1").At("--security-version")
			}
			if floors != "" {
				var err error
				if o.Floors, err = readFloors(floors); err != nil {
					return err
				}
			}
			if err := update.SignRelease(o); err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "%s %s is signed. Upload it with openthings release upload.\n", o.Product, o.Version)
			return nil
		},
	}
	f := release.Flags()
	f.StringVar(&o.Image, "image", "", "the firmware image")
	f.StringVar(&o.SBOM, "sbom", "", "its bill of materials, which names the image's SHA-256")
	f.StringVar(&o.Product, "product", "", "the product's id")
	f.StringSliceVar(&o.HW, "hw", nil, "names of the hardware revisions it is made for")
	f.StringVar(&o.Version, "version", "", "for people")
	f.Int64Var(&o.SecurityVersion, "security-version", 0, "rises when an older release must never be installed again")
	f.StringVar(&floors, "floors", "", "file with the lowest safe security versions (openthings vuln safe PRODUCT --json): what lies below is not signed")
	f.Int64Var(&o.MinFrom, "min-from", 0, "lowest security version it may be installed over")
	f.StringVar(&o.Class, "class", "", "security or feature")
	f.StringVar(&o.Out, "out", "", "write the signed list here as well")
	f.IntVar(&days, "days", 180, "how long the list is valid")
	for _, name := range []string{"image", "sbom", "product", "hw", "version", "security-version"} {
		cobra.CheckErr(release.MarkFlagRequired(name))
	}
	c.PersistentFlags().StringVar(&dir, "dir", "signing", "the signing folder")
	c.AddCommand(init, release)
	return c
}
