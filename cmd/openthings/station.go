// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/enroll/station"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire"
)

// stationCommand is both sides of a line station: what runs in the factory, and what the manufacturer asks about it.
func stationCommand() *cobra.Command {
	c, r := group("station", "Line stations: in the factory, and seen from the platform")
	c.AddCommand(stationOpenCommand(r), stationMakeCommand(), stationSyncCommand(), stationRenewCommand(), stationStatusCommand(),
		stationListCommand(r), stationDevicesCommand(r), stationRefusalsCommand(r), stationKillCommand(r))
	return c
}

// serialRange is what --serials takes: LMP-0001-0500 means LMP-0001 to LMP-0500.
var serialRange = regexp.MustCompile(`^(.*?)([0-9]{1,18})\.\.([0-9]{1,18})$`)

func readSerials(spec string) (s wire.Serials, err error) {
	if spec == "" {
		return s, nil
	}
	if file, ok := strings.CutPrefix(spec, "@"); ok {
		b, err := readInput("--serials", file)
		s.List = strings.Fields(string(b))
		return s, err
	}
	m := serialRange.FindStringSubmatch(spec)
	if m == nil || len(m[2]) != len(m[3]) {
		return s, usageError{fmt.Errorf("--serials is like LMP-0001..0500, or @FILE with one serial number a line")}
	}
	s.Prefix, s.Digits = m[1], len(m[2])
	if s.From, err = strconv.ParseInt(m[2], 10, 64); err == nil {
		s.To, err = strconv.ParseInt(m[3], 10, 64)
	}
	return s, err
}

func stationOpenCommand(r *remote) *cobra.Command {
	var dir, batch, name, devices, serials string
	var quota int64
	var hours float64
	var offline bool
	c := &cobra.Command{
		Use: "open", Short: "Make a station here and have it admitted to a batch", Args: cobra.NoArgs,
		Long: "Make a station here and have it admitted to a batch. Its keys are made in --dir and never leave it. With --offline it gets a\n" +
			"permit and works without a network: openthings station make, and openthings station sync once there is one again. The folder of a\n" +
			"station whose certificate has ended is used again, with a new key.",
		Example: `  openthings station open --dir line3 --batch $BATCH --name "line 3"
  openthings station open --dir hall9 --batch $BATCH --name "hall 9" --offline --quota 500 --hours 240 --serials LMP-0001..0500`,
		RunE: func(c *cobra.Command, _ []string) error {
			may, err := readSerials(serials)
			if err != nil {
				return err
			}
			ask, err := station.Prepare(dir, name, offline, time.Now())
			if err != nil {
				return err
			}
			roots := []byte(nil)
			if r.ca != "" {
				if roots, err = readInput("--ca", r.ca); err != nil {
					return err
				}
			}
			cl, err := r.client()
			if err != nil {
				return err
			}
			in := map[string]any{"batch": batch, "name": name, "quota": quota, "hours": hours, "csr": ask.CSR}
			if offline {
				in["offline"] = enroll.OfflineAsk{Authority: ask.Authority, Serials: may}
			}
			var raw json.RawMessage
			if err := cl.Do(c.Context(), http.MethodPost, "/v1/stations", in, &raw); err != nil {
				return err
			}
			var o enroll.Opened
			if err := json.Unmarshal(raw, &o); err != nil {
				return err
			}
			conf := station.Config{ID: o.ID, Name: o.Name, Batch: o.Batch, Quota: o.Quota, Expires: o.Expires, Devices: strings.TrimSuffix(devices, "/")}
			if err := station.Install(dir, conf, o.Certificate, string(roots), o.Permit); err != nil {
				return err
			}
			return show(c, r, raw, func(w io.Writer, o enroll.Opened) error {
				_, err := fmt.Fprintf(w, "%s is open until %s for %d units; its folder is %s\n", o.ID, instant(o.Expires), o.Quota, dir)
				return err
			})
		},
	}
	f := c.Flags()
	folderFlag(c, &dir)
	f.StringVar(&batch, "batch", "", "the batch that it makes units of")
	f.StringVar(&name, "name", "", "what people call it")
	f.Int64Var(&quota, "quota", 0, "how many units it may make; default the size of the batch")
	f.Float64Var(&hours, "hours", 24, "how long it may make units, up to 720")
	f.BoolVar(&offline, "offline", false, "it works without a network")
	f.StringVar(&serials, "serials", "", "serial numbers of an offline station: LMP-0001..0500, or @FILE; default any")
	f.StringVar(&devices, "devices", env("OPENTHINGS_DEVICES", "https://localhost:8444"), "the platform's door for devices ($OPENTHINGS_DEVICES)")
	cobra.CheckErr(c.MarkFlagRequired("batch"))
	cobra.CheckErr(c.MarkFlagRequired("name"))
	return c
}

func folderFlag(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "dir", "", "the station's folder")
	cobra.CheckErr(c.MarkFlagRequired("dir"))
}

// withStation opens the folder of a station for one command.
func withStation(dir string, do func(*station.Station) error) error {
	s, err := station.Open(dir, clock.System)
	if err != nil {
		return err
	}
	defer s.Close()
	return do(s)
}

func stationMakeCommand() *cobra.Command {
	var dir, csr, label, link string
	var order wire.LineRequest
	c := &cobra.Command{
		Use: "make [ORDER]", Short: "Give a unit its identity: with the platform, or without a network under a permit", Args: cobra.MaximumNArgs(1),
		Long: "Give a unit its identity and print what it gets, as JSON. ORDER is a file with the unit's request, as openthings-agent provision\n" +
			"makes it; - is standard input. The flags fill it in, or make it from a certificate request alone.",
		Example: `  openthings-agent provision -dir lamp -serial LMP-0001 | openthings station make --dir line3 - > unit.json
  openthings station make --dir hall9 --serial LMP-0002 --csr unit.csr --order 4711 --part LMP-C --label unit.svg`,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := readOrder(args, c.InOrStdin(), csr, order)
			if err != nil {
				return err
			}
			return withStation(dir, func(s *station.Station) error {
				var out wire.LineResponse
				if s.Offline() {
					out, err = s.Make(r)
				} else {
					out, err = s.MakeOnline(c.Context(), r)
				}
				if err != nil {
					return err
				}
				if label != "" {
					if err := writeLabel(c.OutOrStdout(), label, r.Serial, out.Claim, link); err != nil {
						return err
					}
				}
				if err := json.NewEncoder(c.OutOrStdout()).Encode(out); err != nil { // not indented: the trust bundle in it is signed byte by byte
					return err
				}
				if s.Due() { // the unit has its identity, whatever comes of this
					if err := s.Renew(c.Context()); err != nil {
						fmt.Fprintf(c.ErrOrStderr(), "The station's certificate ends on %s and was not renewed: %v\n", instant(s.Status().Certificate), err)
					}
				}
				return nil
			})
		},
	}
	folderFlag(c, &dir)
	f := c.Flags()
	f.StringVar(&order.Serial, "serial", "", "serial number")
	f.StringVar(&csr, "csr", "", "file with the unit's certificate request (PEM)")
	f.StringVar(&order.Firmware, "firmware", "", "digest of what was flashed")
	f.StringVar(&order.SBOM, "sbom", "", "id or digest of its bill of materials")
	f.StringVar(&order.MAC, "mac", "", "MAC address")
	f.StringVar(&order.SKU, "sku", "", "what is sold")
	f.StringVar(&order.Order, "order", "", "production order")
	f.StringVar(&order.Line, "line", "", "production line")
	f.StringVar(&order.Part, "part", "", "part number")
	f.StringVar(&label, "label", "", "write the label of the box here: .svg or .png")
	f.StringVar(&link, "link", "", "address of the platform for the label's QR code")
	return c
}

func readOrder(args []string, stdin io.Reader, csr string, flags wire.LineRequest) (r wire.LineRequest, err error) {
	if len(args) == 1 {
		b, err := []byte(nil), error(nil)
		if args[0] == "-" {
			b, err = io.ReadAll(io.LimitReader(stdin, enroll.MaxLineRequest))
		} else {
			b, err = readInput("ORDER", args[0])
		}
		if err != nil {
			return r, err
		}
		if err := json.Unmarshal(b, &r); err != nil {
			return r, problem.Invalid("the order is not the JSON that it should be").Because(err)
		}
	}
	if csr != "" {
		b, err := readInput("--csr", csr)
		if err != nil {
			return r, err
		}
		r.CSR = string(b)
	}
	for _, f := range []struct {
		to   *string
		from string
	}{{&r.Serial, flags.Serial}, {&r.Firmware, flags.Firmware}, {&r.SBOM, flags.SBOM}, {&r.MAC, flags.MAC}, {&r.SKU, flags.SKU}, {&r.Order, flags.Order}, {&r.Line, flags.Line}, {&r.Part, flags.Part}} {
		if f.from != "" {
			*f.to = f.from
		}
	}
	return r, nil
}

func stationSyncCommand() *cobra.Command {
	var dir string
	var asJSON bool
	c := &cobra.Command{
		Use: "sync", Short: "Bring the platform what an offline station has made", Args: cobra.NoArgs,
		Long: "Bring the platform what an offline station has made, over mutual TLS. It may be repeated at any time: nothing is brought twice,\n" +
			"nothing is left out. The exit code is 3 when units were refused; each is named.",
		RunE: func(c *cobra.Command, _ []string) error {
			return withStation(dir, func(s *station.Station) error {
				rep, err := s.Sync(c.Context())
				if err != nil {
					return err
				}
				w := c.OutOrStdout()
				if asJSON {
					err = printJSON(w, rep)
				} else {
					fmt.Fprintf(w, "%s brought; the platform has %d\n", console.Plural(rep.Brought, "entry", "entries"), rep.Entries)
					for _, u := range rep.Refused {
						fmt.Fprintf(w, "refused: %s (entry %d): %s [%s]\n", u.Serial, u.Seq, u.Detail, u.Rule)
					}
				}
				if err == nil && len(rep.Refused) > 0 {
					return exitCode(3)
				}
				return err
			})
		},
	}
	folderFlag(c, &dir)
	c.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	return c
}

func stationRenewCommand() *cobra.Command {
	var dir string
	var due bool
	c := &cobra.Command{
		Use: "renew", Short: "Get the station's next certificate, while its window is open", Args: cobra.NoArgs,
		Long: "Get the station's next certificate, while its window is open. A certificate lives a day at most, and openthings station make\n" +
			"renews it by itself. A station that may stand idle for longer has a timer that runs openthings station renew --due every hour.\n" +
			"A certificate that has ended is not renewed: somebody admits the station anew, in the same folder, with openthings station open.",
		RunE: func(c *cobra.Command, _ []string) error {
			return withStation(dir, func(s *station.Station) error {
				if !due || s.Due() {
					if err := s.Renew(c.Context()); err != nil {
						return err
					}
				}
				_, err := fmt.Fprintf(c.OutOrStdout(), "good until %s\n", instant(s.Status().Certificate))
				return err
			})
		},
	}
	folderFlag(c, &dir)
	c.Flags().BoolVar(&due, "due", false, "only when less than a third of its life is left")
	return c
}

func stationStatusCommand() *cobra.Command {
	var dir string
	var asJSON bool
	c := &cobra.Command{
		Use: "status", Short: "Where the station stands, without asking anybody", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return withStation(dir, func(s *station.Station) error {
				st, w := s.Status(), c.OutOrStdout()
				if asJSON {
					return printJSON(w, st)
				}
				fmt.Fprintf(w, "%s %q  open until %s  certificate until %s\n", st.ID, st.Name, instant(st.Expires), instant(st.Certificate))
				if st.Offline {
					fmt.Fprintf(w, "offline: %d of %d units made, %s; to be brought by %s\n", st.Made, st.Quota, console.Plural(st.Entries, "entry", "entries"), instant(st.SyncBy))
				}
				return nil
			})
		},
	}
	folderFlag(c, &dir)
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return c
}

func stationListCommand(r *remote) *cobra.Command {
	var pages paging
	c := &cobra.Command{
		Use: "list", Short: "Line stations, the newest first", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, pages.path("/v1/stations", nil), func(w io.Writer, p api.Page[enroll.StationOut]) error {
				rows := [][]string{{"STATION", "NAME", "MADE", "QUOTA", "BEYOND", "CLOCK", "OFFLINE", "UNTIL", "STATE"}}
				for _, s := range p.Items {
					state := strings.ToUpper(s.State)
					if s.Forked {
						state += ", COPIED"
					}
					rows = append(rows, []string{s.ID, s.Name, fmt.Sprint(s.Used), fmt.Sprint(s.Quota), fmt.Sprint(s.Refused), fmt.Sprint(s.Skewed), yes(s.Offline), instant(s.Expires), state})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(c)
	return c
}

func stationDevicesCommand(r *remote) *cobra.Command {
	var pages paging
	c := &cobra.Command{
		Use: "devices STATION", Short: "Exactly the units that a station made, as they stand now", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, pages.path("/v1/stations/"+url.PathEscape(args[0])+"/devices", nil), func(w io.Writer, p api.Page[enroll.Affected]) error {
				rows := [][]string{{"DEVICE", "SERIAL", "STATE", "SOLUTION"}}
				for _, d := range p.Items {
					rows = append(rows, []string{d.Device, d.Serial, string(d.State), d.Solution})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(c)
	return c
}

func stationRefusalsCommand(r *remote) *cobra.Command {
	var pages paging
	c := &cobra.Command{
		Use: "refusals STATION", Short: "Units that an offline station brought and that were not taken", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, pages.path("/v1/stations/"+url.PathEscape(args[0])+"/refusals", nil), func(w io.Writer, p api.Page[wire.RefusedUnit]) error {
				rows := [][]string{{"ENTRY", "SERIAL", "RULE", "BECAUSE"}}
				for _, u := range p.Items {
					rows = append(rows, []string{fmt.Sprint(u.Seq), u.Serial, u.Rule, u.Detail})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(c)
	return c
}

func stationKillCommand(r *remote) *cobra.Command {
	var reason, units string
	c := &cobra.Command{
		Use: "kill STATION", Short: "End a station at once, and list what it made", Args: cobra.ExactArgs(1),
		Long: "End a station at once: its certificates are revoked, its connections are cut, and nothing that it has not brought yet is taken.\n" +
			"--units suspend locks out every unit that it made, each until it is resumed; --units bar does so for ever.",
		Example: `  openthings station kill sta_… --reason stolen --units suspend`,
		RunE: func(c *cobra.Command, args []string) error {
			return do(c, r, http.MethodPost, "/v1/stations/"+url.PathEscape(args[0])+"/kill", map[string]any{"reason": reason, "units": units}, func(w io.Writer, k enroll.Killed) error {
				fmt.Fprintf(w, "%s is dead. It made %d units:\n", args[0], k.Made)
				for _, id := range k.Devices {
					fmt.Fprintln(w, id)
				}
				return nil
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why")
	c.Flags().StringVar(&units, "units", "", "what becomes of the units that it made: suspend or bar; default nothing")
	cobra.CheckErr(c.MarkFlagRequired("reason"))
	return c
}

// writeFile writes what is meant for one pair of eyes.
func writeFile(w io.Writer, file string, b []byte) error {
	if file == "-" {
		_, err := w.Write(b)
		return err
	}
	return os.WriteFile(file, b, 0o600)
}
