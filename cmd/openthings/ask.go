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

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/app"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/update"
)

// group is a command whose subcommands speak to a platform.
func group(use, short string) (*cobra.Command, *remote) {
	c, r := parent(use, short), &remote{}
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
	return show(c, r, raw, human)
}

// do sends in, as api.Client.Do does, and prints the API's JSON with --json, or what human writes.
func do[T any](c *cobra.Command, r *remote, method, path string, in any, human func(w io.Writer, v T) error, header ...string) error {
	cl, err := r.client()
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := cl.Do(c.Context(), method, path, in, &raw, header...); err != nil {
		return err
	}
	return show(c, r, raw, human)
}

// show prints an answer of the API as it came with --json, or what human writes.
func show[T any](c *cobra.Command, r *remote, raw json.RawMessage, human func(w io.Writer, v T) error) error {
	if r.json {
		return printJSON(c.OutOrStdout(), raw)
	}
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return err
	}
	return human(c.OutOrStdout(), v)
}

// instant prints a time for people, to the second.
func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func releaseCommand() *cobra.Command {
	c, r := group("release", "Releases of firmware")
	var targets, bill, statements, image string
	upload := &cobra.Command{
		Use: "upload", Short: "Upload a signed release with its bill of materials", Args: cobra.NoArgs,
		Example: `  openthings release upload --targets signing/targets.json --sbom lamp.cdx.json --image lamp.bin`,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := r.client()
			if err != nil {
				return err
			}
			// The parts go in the order in which the platform checks them; the image is streamed.
			pr, pw := io.Pipe()
			m := multipart.NewWriter(pw)
			go func() {
				for _, p := range []struct{ name, file string }{{"targets", targets}, {"sbom", bill}, {"vex", statements}, {"image", image}} {
					if p.file == "" {
						continue // only statements may be left out
					}
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
			return show(c, r, out, printRelease)
		},
	}
	f := upload.Flags()
	f.StringVar(&targets, "targets", "", "targets.json as openthings sign release made it")
	f.StringVar(&bill, "sbom", "", "the bill of materials")
	f.StringVar(&statements, "vex", "", "what is said of its vulnerabilities (OpenVEX, CycloneDX or CSAF): proposals, stored with the release or not at all")
	f.StringVar(&image, "image", "", "the image")
	for _, name := range []string{"targets", "sbom", "image"} {
		cobra.CheckErr(upload.MarkFlagRequired(name))
	}
	list := &cobra.Command{
		Use: "list", Short: "Releases, the newest first", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/releases", func(w io.Writer, p api.Page[update.Release]) error {
				rows := [][]string{{"RELEASE", "VERSION", "SECURITY", "STATE", "CLASS", "UPLOADED"}}
				for _, x := range p.Items {
					rows = append(rows, []string{x.ID, x.Version, fmt.Sprint(x.SecurityVersion), string(x.State), x.Class, instant(x.Created)})
				}
				return table(w, rows)
			})
		},
	}
	one := &cobra.Command{
		Use: "show RELEASE", Short: "A release, its checks, and how many devices run it", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/releases/"+url.PathEscape(args[0]), func(w io.Writer, x update.ReleaseOut) error {
				if err := printRelease(w, x); err != nil {
					return err
				}
				_, err := fmt.Fprintf(w, "%d devices run it\n", x.Devices)
				return err
			})
		},
	}
	c.AddCommand(upload, list, one)
	return c
}

func printRelease(w io.Writer, x update.ReleaseOut) error {
	fmt.Fprintf(w, "%s  version %s  security version %d  %s\n", x.ID, x.Version, x.SecurityVersion, strings.ToUpper(string(x.State)))
	rows := [][]string{{"CHECK", "VERDICT", "BECAUSE"}}
	for _, k := range x.Checks {
		rows = append(rows, []string{k.Name, string(k.Verdict), k.Evidence})
	}
	return table(w, rows)
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

func auditCommand() *cobra.Command {
	c, r := parent("audit", "The log of what happened"), &remote{} // only list asks a running platform
	var subject, data string
	var platform bool
	var pages paging
	list := &cobra.Command{
		Use: "list", Short: "Entries, the newest first", Args: cobra.NoArgs,
		Long: "Entries, the newest first. What concerns the platform itself (its authorities and trust bundles) belongs to no tenant:\n" +
			"--platform lists that, through the socket in the data folder.",
		RunE: func(c *cobra.Command, _ []string) error {
			human := func(w io.Writer, p api.Page[audit.Item]) error {
				rows := [][]string{{"AT", "KIND", "SUBJECT", "ACTOR"}}
				for _, e := range p.Items {
					rows = append(rows, []string{instant(e.At), e.Kind, e.Subject, e.Actor})
				}
				return pages.table(w, rows, p.Next)
			}
			if platform {
				in := app.CARequest{Subject: subject, Before: pages.token, Size: pages.size}
				return ask(c, &onHost{data: data, json: r.json}, "log", in, human)
			}
			return read(c, r, pages.path("/v1/audit/entries", url.Values{"subject": {subject}}), human)
		},
	}
	list.Flags().BoolVar(&platform, "platform", false, "what concerns the platform itself; on its machine only")
	list.Flags().StringVar(&data, "data", defaultData(), "the platform's data folder, for --platform ($OPENTHINGS_DATA_DIR)")
	list.Flags().StringVar(&subject, "subject", "", "only what is about this id")
	r.flags(list)
	pages.flags(list)
	c.AddCommand(list, auditExportCommand(r), auditVerifyCommand(), acknowledgeCommand())
	return c
}
