// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/app"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/update/trust"
	"github.com/openthings-platform/openthings/vuln"
	"github.com/openthings-platform/openthings/vuln/feed"
)

// feedFlags say what sources of feeds may reach.
func feedFlags(f *pflag.FlagSet, cfg *app.Config) {
	f.StringVar(&cfg.Feeds, "feeds", env("OPENTHINGS_FEEDS", ""), "folder that sources of vulnerability records of kind file lie in; default: feeds in --data ($OPENTHINGS_FEEDS)")
	f.BoolVar(&cfg.PrivateFeeds, "private-feeds", false, "let sources of vulnerability records reach loopback and private addresses, such as a mirror inside")
}

func feedCommand() *cobra.Command {
	c, r := group("feed", "Feeds of vulnerability records: where they come from, how they are, and bundles for sites without a network")
	c.AddCommand(feedImportCommand(r), feedListCommand(r), feedAddCommand(r), feedKeyCommand(), feedBundleCommand(), feedVerifyCommand(r), feedServeCommand())
	for _, a := range []struct{ use, short, method, action string }{
		{"sync NAME", "Look at a source now", http.MethodPost, "/sync"},
		{"remove NAME", "End a source; its records stay", http.MethodDelete, ""},
	} {
		c.AddCommand(&cobra.Command{Use: a.use, Short: a.short, Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
			cl, err := r.client()
			if err != nil {
				return err
			}
			return cl.Do(c.Context(), a.method, sourcePath(args[0])+a.action, nil, nil)
		}})
	}
	return c
}

func sourcePath(name string) string { return "/v1/feed-sources/" + url.PathEscape(name) }

func feedImportCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "import NAME FILE", Short: "Import a feed from a file, or a signed bundle", Args: cobra.ExactArgs(2),
		Long: "Import a feed from a file: records of OSV or the CVE list, KEV, EUVD, EPSS or CSAF, as published or in a zip. A feed is\n" +
			"taken over whole or not at all; importing the same again changes nothing. A bundle is taken only by a source of kind\n" +
			"bundle, signed by one of its keys, unaltered, and newer than the last.",
		Example: `  openthings feed import osv all.zip
  openthings feed import kev known_exploited_vulnerabilities.json
  openthings feed import site feeds.bundle`,
		RunE: func(c *cobra.Command, args []string) error {
			f, err := os.Open(args[1])
			if err != nil {
				return problem.Invalid("the feed cannot be read").Because(err)
			}
			defer f.Close()
			return do(c, r, http.MethodPost, "/v1/feeds/"+url.PathEscape(args[0]), io.Reader(f), func(w io.Writer, i vuln.Imported) error {
				for _, why := range i.Unread {
					fmt.Fprintln(c.ErrOrStderr(), "not read:", why)
				}
				_, err := fmt.Fprintf(w, "%s: %s; records: %d new, %d changed; %d newly known to be exploited\n", i.Feed, console.Plural(i.Records, "entry", "entries"), i.New, i.Changed, i.Exploited)
				return err
			})
		},
	}
}

func feedListCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Sources and their health", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/feed-sources", func(w io.Writer, p api.Page[vuln.FeedSource]) error {
				rows := [][]string{{"SOURCE", "KIND", "STATE", "LAST GOOD", "BEHIND", "RECORDS", "NEXT", "DIGEST", "ERROR"}}
				for _, x := range p.Items {
					behind := ""
					if !x.Made.IsZero() || x.BehindDays > 0 {
						behind = fmt.Sprintf("%d days", x.BehindDays)
					}
					rows = append(rows, []string{x.Name, string(x.Kind), string(x.State), ever(x.LastGood), behind, fmt.Sprint(x.Records), ever(x.Next), x.Digest, x.Error})
				}
				return table(w, rows)
			})
		},
	}
}

// ever prints a time, or a dash for none.
func ever(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return instant(t)
}

func feedAddCommand(r *remote) *cobra.Command {
	var in vuln.SourceIn
	var kind string
	var keys []string
	var every, stale time.Duration
	c := &cobra.Command{
		Use: "add NAME", Short: "Set where a feed comes from", Args: cobra.ExactArgs(1),
		Long: "Set where a feed comes from. Kinds: osv (one zip for each ecosystem), url (one file), mirror (what feed serve offers, or a\n" +
			"folder with an index.txt), csaf (a provider's provider-metadata.json), file (in the folder of feeds of the host), bundle\n" +
			"(what a person brings, signed).",
		Example: `  openthings feed add osv --kind osv --from https://osv-vulnerabilities.storage.googleapis.com --ecosystem Go --ecosystem Debian:12
  openthings feed add kev --kind url --from https://www.cisa.gov/sites/default/files/feeds/known_exploited_vulnerabilities.json
  openthings feed add epss --kind url --from https://epss.empiricalsecurity.com/epss_scores-current.csv.gz --every 24h
  openthings feed add site --kind bundle --key feed.key.pub`,
		RunE: func(c *cobra.Command, args []string) error {
			in.Kind = feed.Kind(kind)
			for _, k := range keys {
				text, err := keyLine(k)
				if err != nil {
					return err
				}
				in.Keys = append(in.Keys, text)
			}
			in.EveryMinutes, in.StaleMinutes = int64(every/time.Minute), int64(stale/time.Minute)
			return do(c, r, http.MethodPut, sourcePath(args[0]), in, func(w io.Writer, x vuln.FeedSource) error {
				_, err := fmt.Fprintf(w, "%s: %s\n", x.Name, x.State)
				return err
			})
		},
	}
	f := c.Flags()
	f.StringVar(&kind, "kind", "", "osv, url, mirror, csaf, file or bundle")
	f.StringVar(&in.Location, "from", "", "address, or path inside the host's folder of feeds")
	f.StringSliceVar(&in.Ecosystems, "ecosystem", nil, "of an OSV source; may be repeated")
	f.StringArrayVar(&keys, "key", nil, "key that it must be signed with, or a file that holds it; may be repeated")
	f.StringVar(&in.Origin, "origin", "", "whose statements CSAF documents hold: vendor or distribution; default vendor")
	f.BoolVar(&in.Whole, "whole", false, "it names everything: what it leaves out is no longer named by it")
	f.DurationVar(&every, "every", 0, "how often it is looked at; default 6h")
	f.DurationVar(&stale, "stale", 0, "after how long without a good look people are told; default 72h, 168h for what people bring")
	cobra.CheckErr(c.MarkFlagRequired("kind"))
	return c
}

// keyLine is a key as typed, or what the file of that name holds.
func keyLine(k string) (string, error) {
	if _, err := os.Stat(k); err != nil {
		return k, nil
	}
	b, err := readInput("--key", k)
	return strings.TrimSpace(string(b)), err
}

func feedKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "key FILE", Short: "Make a key that bundles are signed with, and print the line by which others know it", Args: cobra.ExactArgs(1),
		Long: "Make a key that bundles are signed with, if FILE does not hold one yet, and print the line by which others know it, which is\n" +
			"also written to FILE.pub. The key is Ed25519 in the form that openthings sign init writes. It runs offline: the file stays\n" +
			"with whoever makes the bundles.",
		RunE: func(c *cobra.Command, args []string) error {
			b, err := os.ReadFile(args[0])
			if errors.Is(err, os.ErrNotExist) {
				key, err := trust.GenerateKey(nil)
				if err != nil {
					return err
				}
				if b, err = trust.MarshalKey(key); err != nil {
					return err
				}
				if err := create(args[0], b, 0o600); err != nil {
					return err
				}
			} else if err != nil {
				return problem.Invalid("%s cannot be read", args[0]).Because(err)
			}
			key, err := feed.ParseKey(b)
			if err != nil {
				return err
			}
			line, err := feed.Public(key)
			if err != nil {
				return err
			}
			if err := os.WriteFile(args[0]+".pub", []byte(line+"\n"), 0o644); err != nil {
				return problem.Invalid("%s.pub cannot be written", args[0]).Because(err)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), line)
			return err
		},
	}
}

func feedBundleCommand() *cobra.Command {
	var out, keyFile string
	var m feed.Manifest
	c := &cobra.Command{
		Use: "bundle SOURCE...", Short: "Write a signed bundle of feeds for a site without a network", Args: cobra.MinimumNArgs(1),
		Long: "Write a signed bundle of feeds for a site without a network. A SOURCE is a file, a folder, the address of a file, or the\n" +
			"address of a provider-metadata.json. What a platform would refuse is not bundled. Each bundle has a number, the second of\n" +
			"its making unless --sequence says otherwise; a site takes none that is older than its last.",
		Example: `  openthings feed bundle --key feed.key --out feeds.bundle osv/ kev.json epss_scores-current.csv.gz`,
		RunE: func(c *cobra.Command, args []string) error {
			b, err := readInput("--key", keyFile)
			if err != nil {
				return err
			}
			key, err := feed.ParseKey(b)
			if err != nil {
				return err
			}
			m.Made = time.Now()
			if m.Sequence == 0 {
				m.Sequence = m.Made.Unix()
			}
			files, end, err := gather(c, args)
			defer end()
			if err != nil {
				return err
			}
			done, err := writeBundle(out, func(w io.Writer) (feed.Manifest, error) { return feed.WriteBundle(w, key, m, files) })
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s: number %d of %s, %d files\n", out, done.Sequence, instant(done.Made), len(done.Files))
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&out, "out", "", "where to write it")
	f.StringVar(&keyFile, "key", "", "the key that openthings feed key made")
	f.Int64Var(&m.Sequence, "sequence", 0, "its number; default: the seconds since 1970")
	f.BoolVar(&m.Whole, "whole", false, "it names everything: what it leaves out is no longer named by it")
	for _, name := range []string{"out", "key"} {
		cobra.CheckErr(c.MarkFlagRequired(name))
	}
	return c
}

// gather brings the files of sources together. Those of a folder keep its name, those of an address its host's.
func gather(c *cobra.Command, sources []string) (files []feed.File, end func(), err error) {
	var closes []func() error
	end = func() {
		for _, fn := range closes {
			fn() //nolint:errcheck // they were only read
		}
	}
	for i, at := range sources {
		u, err := url.Parse(at)
		if err != nil || u.Host == "" {
			list, closer, err := feed.Files(at)
			if err != nil {
				return nil, end, err
			}
			closes = append(closes, closer.Close)
			folder := ""
			if info, err := os.Stat(at); err == nil && info.IsDir() {
				folder = filepath.Base(filepath.Clean(at))
			}
			for _, f := range list {
				files = append(files, f.Named(folder))
			}
			continue
		}
		spool, err := os.MkdirTemp("", "openthings-feed-")
		if err != nil {
			return nil, end, err
		}
		closes = append(closes, func() error { return os.RemoveAll(spool) })
		kind := feed.KindURL
		if path.Base(u.Path) == "provider-metadata.json" {
			kind = feed.KindCSAF
		}
		get := &feed.Fetcher{Client: &http.Client{}, Clock: clock.System, Spool: filepath.Join(spool, fmt.Sprint(i))}
		haul, err := get.Gather(c.Context(), feed.Source{Kind: kind, Location: at}, feed.Cursor{})
		if err != nil {
			return nil, end, err
		}
		closes = append(closes, haul.Close)
		for _, f := range haul.Files {
			files = append(files, f.Named(u.Hostname()))
		}
	}
	return files, end, nil
}

// writeBundle writes a file whole or not at all.
func writeBundle(out string, fn func(w io.Writer) (feed.Manifest, error)) (m feed.Manifest, err error) {
	f, err := os.CreateTemp(filepath.Dir(out), ".bundle-")
	if err != nil {
		return m, problem.Invalid("%s cannot be written", out).Because(err)
	}
	m, err = fn(f)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), out)
	}
	if err != nil {
		os.Remove(f.Name()) //nolint:errcheck // the error before says why
	}
	return m, err
}

func feedVerifyCommand(r *remote) *cobra.Command {
	var keys []string
	c := &cobra.Command{
		Use: "verify BUNDLE", Short: "Check a bundle against a key, with no platform and no network", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			f, size, lines, err := openBundle(args[0], keys)
			if err != nil {
				return err
			}
			defer f.Close()
			m, _, err := feed.BundleFiles(f, size, lines)
			if err != nil {
				return err
			}
			if r.json {
				return printJSON(c.OutOrStdout(), m)
			}
			fmt.Fprintf(c.OutOrStdout(), "whole and signed: number %d of %s\n", m.Sequence, instant(m.Made))
			rows := [][]string{{"FILE", "BYTES", "SHA-256", "FROM"}}
			for _, s := range m.Files {
				rows = append(rows, []string{s.Name, fmt.Sprint(s.Size), s.SHA256, s.Origin})
			}
			return table(c.OutOrStdout(), rows)
		},
	}
	bundleKeys(c, &keys)
	return c
}

func bundleKeys(c *cobra.Command, keys *[]string) {
	c.Flags().StringArrayVar(keys, "key", nil, "the line that openthings feed key printed, or a file that holds it; may be repeated")
}

func openBundle(name string, keys []string) (f *os.File, size int64, lines []string, err error) {
	for _, k := range keys {
		line, err := keyLine(k)
		if err != nil {
			return nil, 0, nil, err
		}
		lines = append(lines, line)
	}
	if f, err = os.Open(name); err != nil {
		return nil, 0, nil, problem.Invalid("the bundle cannot be read").Because(err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, nil, errors.Join(err, f.Close())
	}
	return f, info.Size(), lines, nil
}

func feedServeCommand() *cobra.Command {
	var from, listen, cert, key string
	var keys []string
	c := &cobra.Command{
		Use: "serve DIR", Short: "Offer feeds to other sites: a mirror that they name as a source", Args: cobra.ExactArgs(1),
		Long: "Offer feeds to other sites: a mirror that they name as a source. With --from, a bundle is checked and written into DIR\n" +
			"first; any web server can offer the folder as well. Without --listen nothing is served. Beyond this machine TLS is required.",
		Example: `  openthings feed serve mirror --from feeds.bundle --key feed.key.pub
  openthings feed serve mirror --listen :8470 --tls-cert mirror.crt --tls-key mirror.key`,
		RunE: func(c *cobra.Command, args []string) error {
			if from != "" {
				f, size, lines, err := openBundle(from, keys)
				if err != nil {
					return err
				}
				defer f.Close()
				m, err := feed.WriteMirror(args[0], f, size, lines)
				if err != nil {
					return err
				}
				fmt.Fprintf(c.OutOrStdout(), "%s: number %d of %s, %d files\n", args[0], m.Sequence, instant(m.Made), len(m.Files))
			}
			if listen == "" {
				return nil
			}
			return serveFeeds(c, args[0], listen, cert, key)
		},
	}
	f := c.Flags()
	f.StringVar(&from, "from", "", "bundle to write into DIR first")
	bundleKeys(c, &keys)
	f.StringVar(&listen, "listen", "", "host:port to serve at")
	f.StringVar(&cert, "tls-cert", "", "certificate (PEM)")
	f.StringVar(&key, "tls-key", "", "its key (PEM)")
	c.MarkFlagsRequiredTogether("tls-cert", "tls-key")
	return c
}

func serveFeeds(c *cobra.Command, dir, listen, cert, key string) error {
	handler, err := feed.Serve(dir)
	if err != nil {
		return problem.Invalid("%s cannot be read", dir).Because(err)
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return problem.Invalid("it cannot listen at %s", listen).At("--listen").Because(err)
	}
	at, err := netip.ParseAddrPort(l.Addr().String())
	scheme := "https"
	if cert == "" {
		scheme = "http"
		if err != nil || !at.Addr().Unmap().IsLoopback() {
			return errors.Join(problem.Forbidden("feed.tls", "A mirror beyond this machine is served over TLS only.").Hint("give --tls-cert and --tls-key"), l.Close())
		}
	}
	s := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	go func() {
		<-c.Context().Done()
		s.Close() //nolint:errcheck // it ends either way
	}()
	fmt.Fprintf(c.OutOrStdout(), "serving %s at %s://%s\n", dir, scheme, l.Addr())
	if cert == "" {
		err = s.Serve(l)
	} else {
		err = s.ServeTLS(l, cert, key)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
