// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/openthings-platform/openthings/app"
	"github.com/openthings-platform/openthings/identity/openbao"
)

// issuerFlags say who signs for devices. There is no flag for the token itself: command lines are seen by everybody on a
// machine.
func issuerFlags(f *pflag.FlagSet, cfg *app.Config) {
	f.StringVar(&cfg.Issuer, "issuer", env("OPENTHINGS_ISSUER", app.IssuerEmbedded), "who signs for devices: embedded, or openbao (also Vault) ($OPENTHINGS_ISSUER)")
	f.StringVar(&cfg.OpenBao.Address, "bao-addr", env("OPENTHINGS_BAO_ADDR", ""), "https://… of OpenBao or Vault ($OPENTHINGS_BAO_ADDR)")
	f.StringVar(&cfg.OpenBao.Mount, "bao-mount", env("OPENTHINGS_BAO_MOUNT", openbao.DefaultMount), "mount of its PKI engine ($OPENTHINGS_BAO_MOUNT)")
	f.StringVar(&cfg.OpenBao.TokenFile, "bao-token-file", env("OPENTHINGS_BAO_TOKEN_FILE", ""), "file with its token, mode 0600; without one $OPENTHINGS_BAO_TOKEN is the token ($OPENTHINGS_BAO_TOKEN_FILE)")
	f.StringVar(&cfg.OpenBao.CA, "bao-ca", env("OPENTHINGS_BAO_CA", ""), "CA of its TLS certificate (PEM); default: the system's ($OPENTHINGS_BAO_CA)")
	f.BoolVar(&cfg.OpenBao.Store, "bao-store", env("OPENTHINGS_BAO_STORE", "") == "true", "let the engine keep every certificate too ($OPENTHINGS_BAO_STORE)")
	cfg.OpenBao.Token = os.Getenv("OPENTHINGS_BAO_TOKEN")
}

func issuerCommand() *cobra.Command {
	c := parent("issuer", "Who signs certificates")
	var mount string
	var store, setup bool
	policy := &cobra.Command{
		Use: "policy", Short: "Print the least that the platform's token may do in OpenBao or Vault (HCL)", Args: cobra.NoArgs,
		Long: "Print the least that the platform's token may do in OpenBao or Vault, as an access policy in HCL. With --setup it may also\n" +
			"mount the engine and make authorities in it: for the first start, and while an authority is rotated.",
		Example: `  openthings issuer policy | bao policy write openthings -
  openthings issuer policy --setup | bao policy write openthings-setup -`,
		RunE: func(c *cobra.Command, _ []string) error {
			text := openbao.Policy(mount, store)
			if setup {
				text += openbao.SetupPolicy(mount)
			}
			_, err := io.WriteString(c.OutOrStdout(), text)
			return err
		},
	}
	f := policy.Flags()
	f.StringVar(&mount, "mount", openbao.DefaultMount, "mount of the PKI engine")
	f.BoolVar(&store, "store", false, "for a platform that runs with --bao-store")
	f.BoolVar(&setup, "setup", false, "also what the first start and a rotation need")
	c.AddCommand(policy)
	return c
}
