// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/app"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire"
)

// onHost holds the flags of commands that go through the socket in the data folder.
type onHost struct {
	data string
	json bool
}

func (o *onHost) flags(c *cobra.Command) {
	c.Flags().StringVar(&o.data, "data", defaultData(), "the platform's data folder ($OPENTHINGS_DATA_DIR)")
	c.Flags().BoolVar(&o.json, "json", false, "print the answer as JSON")
}

// ask sends in to the running platform; human prints what it answered.
func ask[T any](c *cobra.Command, o *onHost, path string, in app.CARequest, human func(w io.Writer, v T) error) error {
	abs, err := filepath.Abs(o.data)
	if err != nil {
		return err
	}
	var v T
	if err := app.Host(c.Context(), abs, "/ca/"+path, in, &v); err != nil {
		return err
	}
	if o.json {
		return printJSON(c.OutOrStdout(), v)
	}
	return human(c.OutOrStdout(), v)
}

// caCommand is the life of the platform's own authorities. Runbooks: docs/runbooks/ceremony.md, docs/runbooks/rollover.md.
func caCommand() *cobra.Command {
	c := parent("ca", "The platform's certificate authorities: ceremony, rotation, trust bundles")
	c.Long = "The platform's certificate authorities: ceremony, rotation, trust bundles.\n" +
		"Commands that change something go through a socket in the data folder, so whoever may do this administers the machine.\n" +
		"ceremony, sign, cross-sign, bundle sign and root prove need no platform: they run where the recovery file is."
	c.AddCommand(caStatusCommand(), caAuthoritiesCommand(), caBundlesCommand(), caLaggingCommand(),
		caRequestCommand(), caRotateCommand(), caInstallCommand(), caPromoteCommand(), caRetireCommand(), caCompromiseCommand(),
		caIdentityCommand(), caCeremonyCommand(), caSignCommand(), caCrossSignCommand(), caRootCommand(), caBundleCommand())
	return c
}

func caStatusCommand() *cobra.Command {
	o := &onHost{}
	c := &cobra.Command{
		Use: "status", Short: "Authorities, where their keys are, the trust bundle and who has acknowledged it", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return ask(c, o, "status", app.CARequest{}, func(w io.Writer, v identity.Overview) error {
				if err := printAuthorities(w, v.Authorities); err != nil {
					return err
				}
				if v.Bundle != nil {
					fmt.Fprintf(w, "\ntrust bundle %d of %s: acknowledged by %d of %d commissioned devices, %d behind, %d unknown\n",
						v.Bundle.Version, instant(v.Bundle.Created), v.Progress.Acknowledged, v.Progress.Devices, v.Progress.Behind, v.Progress.Unknown)
				}
				for _, x := range v.Warnings {
					fmt.Fprintln(w, "warning:", x)
				}
				return nil
			})
		},
	}
	o.flags(c)
	return c
}

func printAuthorities(w io.Writer, all []identity.AuthorityOut) error {
	rows := [][]string{{"AUTHORITY", "STATUS", "ALGORITHM", "BACKEND", "KEY", "BELOW", "ENDS"}}
	for _, a := range all {
		ends := "-"
		if !a.NotAfter.IsZero() {
			ends = a.NotAfter.Format(time.DateOnly)
		}
		rows = append(rows, []string{a.ID, string(a.Status), string(a.Algorithm), a.Backend, a.Protection, a.Parent, ends})
	}
	return table(w, rows)
}

func caAuthoritiesCommand() *cobra.Command {
	r := &remote{}
	c := &cobra.Command{
		Use: "authorities", Short: "Authorities, from any machine", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/authorities", func(w io.Writer, p api.Page[identity.AuthorityOut]) error { return printAuthorities(w, p.Items) })
		},
	}
	r.flags(c)
	return c
}

func caBundlesCommand() *cobra.Command {
	r := &remote{}
	var pages paging
	c := &cobra.Command{
		Use: "bundles", Short: "Trust bundles, the newest first, and who has acknowledged them", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, pages.path("/v1/trust-bundles", nil), func(w io.Writer, p api.Page[identity.BundleProgress]) error {
				rows := [][]string{{"VERSION", "CREATED", "ROOTS", "ANCHORS", "ACKNOWLEDGED", "BEHIND", "UNKNOWN"}}
				for _, b := range p.Items {
					rows = append(rows, []string{fmt.Sprint(b.Version), instant(b.Created), fmt.Sprint(len(b.Roots)), fmt.Sprint(len(b.Anchors)),
						fmt.Sprint(b.Progress.Acknowledged), fmt.Sprint(b.Progress.Behind), fmt.Sprint(b.Progress.Unknown)})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	r.flags(c)
	pages.flags(c)
	return c
}

func caLaggingCommand() *cobra.Command {
	r := &remote{}
	var pages paging
	c := &cobra.Command{
		Use: "lagging VERSION", Short: "Commissioned devices that have not acknowledged a trust bundle", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, pages.path("/v1/trust-bundles/"+url.PathEscape(args[0])+"/lagging", nil), func(w io.Writer, p api.Page[identity.Ack]) error {
				rows := [][]string{{"DEVICE", "SERIAL", "GOES BY", "SINCE"}}
				for _, a := range p.Items {
					by, since := "unknown", "-"
					if a.Version > 0 {
						by, since = fmt.Sprint(a.Version), instant(a.At)
					}
					rows = append(rows, []string{a.Device, a.Serial, by, since})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	r.flags(c)
	pages.flags(c)
	return c
}

func caRequestCommand() *cobra.Command {
	o := &onHost{}
	var role, algorithm, out string
	c := &cobra.Command{
		Use: "request", Short: "Make the key of a role's next authority and write its request for a ceremony", Args: cobra.NoArgs,
		Example: `  openthings ca request --role operational --out operational.csr`,
		RunE: func(c *cobra.Command, _ []string) error {
			return ask(c, o, "request", app.CARequest{Role: identity.Role(role), Algorithm: identity.Algorithm(algorithm)}, func(w io.Writer, v app.CSR) error {
				if err := create(out, []byte(v.Request), 0o644); err != nil {
					return err
				}
				_, err := fmt.Fprintf(w, "%s is requested: take %s to the machine with the recovery file and sign it with openthings ca sign\n", v.Authority.ID, out)
				return err
			})
		},
	}
	o.flags(c)
	roleFlag(c, &role)
	algorithmFlag(c, &algorithm)
	c.Flags().StringVar(&out, "out", "", "where to write the request (PEM)")
	cobra.CheckErr(c.MarkFlagRequired("out"))
	return c
}

func roleFlag(c *cobra.Command, role *string) {
	c.Flags().StringVar(role, "role", "", "factory, operational, server or bootstrap")
	cobra.CheckErr(c.MarkFlagRequired("role"))
}

func algorithmFlag(c *cobra.Command, algorithm *string) {
	c.Flags().StringVar(algorithm, "algorithm", string(identity.AlgP256), "of the key: ecdsa-p256, ecdsa-p384 or ed25519")
}

func caRotateCommand() *cobra.Command {
	o := &onHost{}
	var role, algorithm string
	c := &cobra.Command{
		Use: "rotate", Short: "Make a role's next authority below a root whose key is still on the platform's machine", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return ask(c, o, "rotate", app.CARequest{Role: identity.Role(role), Algorithm: identity.Algorithm(algorithm)}, func(w io.Writer, v identity.Installed) error {
				_, err := fmt.Fprintf(w, "%s stands by; openthings ca promote %s puts it to work\n", v.Authority.ID, v.Authority.ID)
				return err
			})
		},
	}
	o.flags(c)
	roleFlag(c, &role)
	algorithmFlag(c, &algorithm)
	return c
}

func caInstallCommand() *cobra.Command {
	o := &onHost{}
	c := &cobra.Command{
		Use: "install FILE...", Short: "Take certificates from a ceremony: roots, bridges, authorities that were requested", Args: cobra.MinimumNArgs(1),
		Example: `  openthings ca install root-2.crt anchor-2.crt bridges.pem operational-2.crt`,
		RunE: func(c *cobra.Command, args []string) error {
			var all strings.Builder
			for _, f := range args {
				b, err := readInput("FILE", f)
				if err != nil {
					return err
				}
				all.Write(append(b, '\n'))
			}
			return ask(c, o, "install", app.CARequest{Certificates: all.String()}, func(w io.Writer, v []identity.Installed) error {
				for _, x := range v {
					fmt.Fprintf(w, "%s: %s, %s\n", x.Authority.ID, x.What, x.Authority.Status)
				}
				return nil
			})
		},
	}
	o.flags(c)
	return c
}

func caPromoteCommand() *cobra.Command {
	o := &onHost{}
	var percent float64
	var force string
	c := &cobra.Command{
		Use: "promote ID", Short: "Let a standby authority sign from now on; the one before retires", Args: cobra.ExactArgs(1),
		Long: "Let a standby authority sign from now on; the one before retires. Below another root than before this needs the\n" +
			"acknowledgement of a trust bundle with that root from --percent of the commissioned devices, or --force with a reason,\n" +
			"which goes into the log.",
		RunE: func(c *cobra.Command, args []string) error {
			return ask(c, o, "promote", app.CARequest{ID: args[0], Percent: percent, Force: force}, printAuthority)
		},
	}
	o.flags(c)
	c.Flags().Float64Var(&percent, "percent", identity.Gated, "share of the commissioned devices that must know the new root")
	c.Flags().StringVar(&force, "force", "", "promote all the same, for this reason")
	return c
}

func printAuthority(w io.Writer, a identity.Authority) error {
	_, err := fmt.Fprintf(w, "%s is %s\n", a.ID, a.Status)
	return err
}

func caRetireCommand() *cobra.Command {
	o := &onHost{}
	c := &cobra.Command{
		Use: "retire ID", Short: "End an authority that retires, once nothing that it signed is in service", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return ask(c, o, "retire", app.CARequest{ID: args[0]}, printAuthority)
		},
	}
	o.flags(c)
	return c
}

func caCompromiseCommand() *cobra.Command {
	o := &onHost{}
	var reason string
	c := &cobra.Command{
		Use: "compromise ID", Short: "End the trust in everything that an authority signed, at once and for ever", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return compromise(c, o, args[0], reason)
		},
	}
	o.flags(c)
	c.Flags().StringVar(&reason, "reason", "", "what happened, for the log")
	cobra.CheckErr(c.MarkFlagRequired("reason"))
	return c
}

// compromise ends the trust in an authority, and says in words what has stopped with it and what comes next.
func compromise(c *cobra.Command, o *onHost, id, reason string) error {
	return ask(c, o, "compromise", app.CARequest{ID: id, Reason: reason}, func(w io.Writer, a identity.Authority) error {
		if err := printAuthority(w, a); err != nil {
			return err
		}
		return ask(c, o, "status", app.CARequest{}, func(w io.Writer, v identity.Overview) error {
			for _, x := range identity.Stopped(v.Authorities) {
				fmt.Fprintln(w, x)
			}
			return nil
		})
	})
}

// create writes a new file and refuses to replace one: nobody loses a recovery file to a repeated command.
func create(path string, b []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return problem.Conflict("%s exists already", path).Hint("it is not replaced; choose another name")
	}
	if err != nil {
		return problem.Invalid("%s cannot be written", path).Because(err)
	}
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func caBundleCommand() *cobra.Command {
	c := parent("bundle", "The trust bundle: what devices believe the platform by")
	draft, publish := &onHost{}, &onHost{}
	var out string
	draftCommand := &cobra.Command{
		Use: "draft", Short: "Write the next trust bundle as the authorities stand now, for an anchor to sign", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return ask(c, draft, "bundle/draft", app.CARequest{}, func(w io.Writer, v json.RawMessage) error {
				b, err := wire.ParseBundle(v)
				if err != nil {
					return err
				}
				if err := create(out, b.Bytes(), 0o644); err != nil {
					return err
				}
				_, err = fmt.Fprintf(w, "trust bundle %d: %d roots, %d anchors, %d bridges; sign it with openthings ca bundle sign\n", b.Version, len(b.Roots), len(b.Anchors), len(b.Bridges))
				return err
			})
		},
	}
	draft.flags(draftCommand)
	draftCommand.Flags().StringVar(&out, "out", "", "where to write it")
	cobra.CheckErr(draftCommand.MarkFlagRequired("out"))
	publishCommand := &cobra.Command{
		Use: "publish [FILE]", Short: "Publish a signed trust bundle; without FILE the anchor on the platform's machine signs", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var in app.CARequest
			if len(args) == 1 {
				raw, err := readInput("FILE", args[0])
				if err != nil {
					return err
				}
				s, err := wire.ParseSignedBundle(raw)
				if err != nil {
					return problem.Invalid("%s is not a signed trust bundle", args[0]).Because(err)
				}
				in.Bundle = &s
			}
			return ask(c, publish, "bundle/publish", in, func(w io.Writer, v identity.BundleOut) error {
				_, err := fmt.Fprintf(w, "trust bundle %d is published: %d roots, %d anchors\n", v.Version, len(v.Roots), len(v.Anchors))
				return err
			})
		},
	}
	publish.flags(publishCommand)
	c.AddCommand(draftCommand, caBundleSignCommand(), publishCommand)
	return c
}
