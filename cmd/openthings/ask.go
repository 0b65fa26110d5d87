// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/vuln"
)

// group is a command whose subcommands speak to a platform.
func group(use, short string) (*cobra.Command, *remote) {
	c, r := &cobra.Command{Use: use, Short: short}, &remote{}
	r.flags(c)
	return c, r
}

// read fetches path and prints the API's JSON with --json, or what human writes.
func read[T any](c *cobra.Command, r *remote, path string, human func(w io.Writer, v T) error) error {
	cl, err := r.client()
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := cl.Do(c.Context(), http.MethodGet, path, nil, &raw); err != nil {
		return err
	}
	if r.json {
		return printJSON(c.OutOrStdout(), raw)
	}
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return err
	}
	return human(c.OutOrStdout(), v)
}

func vulnCommand() *cobra.Command {
	c, r := group("vuln", "Vulnerabilities: which devices, which version, since when")
	var asOf string
	affected := &cobra.Command{
		Use: "affected CVE", Short: "Which devices are affected, which version, since when: now or as of a past instant", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path := "/v1/vulnerabilities/" + url.PathEscape(args[0]) + "/affected"
			if asOf != "" {
				if _, err := time.Parse(time.RFC3339, asOf); err != nil {
					return problem.Invalid("--as-of is an instant with an offset, such as 2026-11-21T09:00:00Z").At("--as-of")
				}
				path += "?as_of=" + url.QueryEscape(asOf)
			}
			return read(c, r, path, func(w io.Writer, p vuln.AffectedPage) error {
				exploited := ""
				if p.Exploited {
					exploited = "  KNOWN TO BE EXPLOITED"
				}
				fmt.Fprintf(w, "%s: %d devices exposed as of %s%s\n", p.Name, p.Devices, p.AsOf.Format(time.RFC3339), exploited)
				rows := [][]string{{"RELEASE", "VERSION", "COMPONENT", "FIXED IN", "DEVICES", "EXPOSED", "KNOWN SINCE"}}
				for _, x := range p.Releases {
					rows = append(rows, []string{x.Release, x.Version, x.Name + " " + x.Has, x.FixedIn, fmt.Sprint(x.Devices), yes(x.Exposed), x.KnownSince.Format(time.RFC3339)})
				}
				return table(w, rows)
			})
		},
	}
	affected.Flags().StringVar(&asOf, "as-of", "", "an instant of the past, RFC 3339")
	list := &cobra.Command{
		Use: "list", Short: "Vulnerabilities with open findings, the exploited first", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/vulnerabilities", func(w io.Writer, p struct{ Items []vuln.Summary }) error {
				for _, v := range p.Items {
					fmt.Fprintf(w, "%-22s %s\n", v.Name, v.Group.Summary)
				}
				return nil
			})
		},
	}
	c.AddCommand(affected, list)
	return c
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func feedCommand() *cobra.Command {
	c, r := group("feed", "Feeds of vulnerability records")
	c.AddCommand(&cobra.Command{
		Use: "import NAME FILE", Short: "Import OSV records (zip or JSON) or a KEV catalogue", Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			f, err := os.Open(args[1])
			if err != nil {
				return problem.Invalid("the feed cannot be read").Because(err)
			}
			defer f.Close()
			cl, err := r.client()
			if err != nil {
				return err
			}
			var out json.RawMessage
			if err := cl.Do(c.Context(), http.MethodPost, "/v1/feeds/"+url.PathEscape(args[0]), io.Reader(f), &out); err != nil {
				return err
			}
			return printJSON(c.OutOrStdout(), out)
		},
	})
	return c
}

func releaseCommand() *cobra.Command {
	c, r := group("release", "Releases of firmware")
	var targets, bill, image string
	upload := &cobra.Command{
		Use: "upload", Short: "Upload a signed release with its bill of materials", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := r.client()
			if err != nil {
				return err
			}
			// The parts go in the order in which the platform checks them; the image is streamed.
			pr, pw := io.Pipe()
			m := multipart.NewWriter(pw)
			go func() {
				for _, p := range []struct{ name, file string }{{"targets", targets}, {"sbom", bill}, {"image", image}} {
					if err := attach(m, p.name, p.file); err != nil {
						pw.CloseWithError(err)
						return
					}
				}
				pw.CloseWithError(m.Close())
			}()
			var out json.RawMessage
			if err := cl.Do(c.Context(), http.MethodPost, "/v1/releases", io.Reader(pr), &out, "Content-Type", m.FormDataContentType()); err != nil {
				return err
			}
			return printJSON(c.OutOrStdout(), out)
		},
	}
	f := upload.Flags()
	f.StringVar(&targets, "targets", "", "targets.json as openthings sign release made it")
	f.StringVar(&bill, "sbom", "", "the bill of materials")
	f.StringVar(&image, "image", "", "the image")
	for _, name := range []string{"targets", "sbom", "image"} {
		cobra.CheckErr(upload.MarkFlagRequired(name))
	}
	c.AddCommand(upload)
	return c
}

func attach(m *multipart.Writer, name, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	w, err := m.CreateFormFile(name, filepath.Base(file))
	if err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}

func evidenceCommand() *cobra.Command {
	c, r := group("evidence", "Evidence that an outsider can check")
	var out string
	export := &cobra.Command{
		Use: "export DEVICE -o FILE", Short: "Write the sealed bundle of a device; check it with openthings verify", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := r.client()
			if err != nil {
				return err
			}
			var b []byte
			if err := cl.Do(c.Context(), http.MethodGet, "/v1/devices/"+url.PathEscape(args[0])+"/evidence", nil, &b); err != nil {
				return err
			}
			if out == "-" {
				_, err = c.OutOrStdout().Write(b)
				return err
			}
			if err := os.WriteFile(out, b, 0o600); err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "%s: %d bytes. Check it anywhere with: openthings verify %s --log-key KEY\n", out, len(b), out)
			return nil
		},
	}
	export.Flags().StringVarP(&out, "out", "o", "", "where to write it; - is standard output")
	cobra.CheckErr(export.MarkFlagRequired("out"))
	c.AddCommand(export)
	return c
}

func auditCommand() *cobra.Command {
	c, r := group("audit", "The log of what happened")
	var subject string
	list := &cobra.Command{
		Use: "list", Short: "Entries, the newest first", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/audit/entries?subject="+url.QueryEscape(subject), func(w io.Writer, p struct{ Items []audit.Item }) error {
				rows := [][]string{{"AT", "KIND", "SUBJECT", "ACTOR"}}
				for _, e := range p.Items {
					rows = append(rows, []string{e.At.Format(time.RFC3339), e.Kind, e.Subject, e.Actor})
				}
				return table(w, rows)
			})
		},
	}
	list.Flags().StringVar(&subject, "subject", "", "only what is about this id")
	c.AddCommand(list, auditVerifyCommand(), acknowledgeCommand())
	return c
}

func deviceCommand() *cobra.Command {
	c, r := group("device", "Devices")
	list := &cobra.Command{
		Use: "list", Short: "List devices", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/devices", func(w io.Writer, p struct{ Items []fleet.DeviceOut }) error {
				rows := [][]string{{"DEVICE", "SERIAL", "STATE", "ONLINE", "RELEASE"}}
				for _, d := range p.Items {
					rows = append(rows, []string{d.ID, d.Serial, string(d.State), yes(d.Presence.Online), d.Release})
				}
				return table(w, rows)
			})
		},
	}
	show := &cobra.Command{
		Use: "show DEVICE", Short: "A device's passport", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/devices/"+url.PathEscape(args[0]), func(w io.Writer, d fleet.PassportOut) error {
				fmt.Fprintf(w, "%s  serial %s  %s\n", d.ID, d.Serial, strings.ToUpper(string(d.State)))
				rows := [][]string{{"RAN", "FROM", "TO"}}
				for _, i := range d.History {
					to := "now"
					if i.To != nil {
						to = i.To.Format(time.RFC3339)
					}
					rows = append(rows, []string{i.Release, i.From.Format(time.RFC3339), to})
				}
				return table(w, rows)
			})
		},
	}
	c.AddCommand(list, show)
	return c
}

func caseCommand() *cobra.Command {
	c, r := group("case", "Cases and their legal clocks")
	list := &cobra.Command{
		Use: "list", Short: "Cases with their clocks", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/cases", func(w io.Writer, p struct{ Items []respond.Case }) error {
				for _, x := range p.Items {
					fmt.Fprintf(w, "%s  %s  %s  aware %s\n", x.ID, strings.ToUpper(string(x.Kind)), x.Title, x.T0.Format(time.RFC3339))
					rows := [][]string{}
					for _, d := range x.Clocks {
						due := d.Undetermined
						if !d.Due.IsZero() {
							due = d.Due.Format(time.RFC3339)
						}
						rows = append(rows, []string{"", string(d.Stage), due})
					}
					if err := table(w, rows); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	c.AddCommand(list)
	return c
}
