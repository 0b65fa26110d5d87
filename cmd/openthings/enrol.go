// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/app"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/problem"
)

func trustedCACommand() *cobra.Command {
	c, r := group("trusted-ca", "Manufacturer CAs whose devices register themselves on their first connect")
	list := &cobra.Command{
		Use: "list", Short: "Trusted CAs, the newest first", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/trusted-cas", func(w io.Writer, p api.Page[enroll.TrustedCA]) error {
				rows := [][]string{{"CA", "NAME", "STATE", "BROUGHT", "QUOTA", "REFUSED", "SUBJECT"}}
				for _, a := range p.Items {
					rows = append(rows, []string{a.ID, a.Name, string(a.State), fmt.Sprint(a.Used), fmt.Sprint(a.Quota), fmt.Sprint(a.Refused), a.Subject})
				}
				return table(w, rows)
			})
		},
	}
	show := &cobra.Command{
		Use: "show CA", Short: "A trusted CA with its revocation lists", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, caPath(args[0], ""), sayCA)
		},
	}
	crl := &cobra.Command{
		Use: "crl CA FILE", Short: "Import a revocation list; devices that it names are suspended at once", Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			f, err := os.Open(args[1])
			if err != nil {
				return problem.Invalid("the list cannot be read").Because(err)
			}
			defer f.Close()
			return do(c, r, http.MethodPost, caPath(args[0], "/crl"), io.Reader(f), func(w io.Writer, l enroll.RevocationList) error {
				_, err := fmt.Fprintf(w, "list %s with %s, good until %s\n", l.Number, console.Plural(l.Entries, "entry", "entries"), instant(l.NextUpdate))
				return err
			})
		},
	}
	prove := &cobra.Command{
		Use: "prove CA FILE", Short: "Prove possession of the CA's key: a certificate that it signed with the code as common name", Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := readInput("FILE", args[1])
			if err != nil {
				return err
			}
			return do(c, r, http.MethodPost, caPath(args[0], "/prove"), map[string]any{"proof": string(b)}, sayCA)
		},
	}
	var reason string
	limit := &cobra.Command{
		Use: "quota CA DEVICES", Short: "Set how many devices it may bring, those that it has brought included", Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			n, err := strconv.ParseInt(args[1], 10, 64)
			if err != nil {
				return usageError{fmt.Errorf("%q is no number of devices", args[1])}
			}
			return do(c, r, http.MethodPost, caPath(args[0], "/quota"), map[string]any{"quota": n, "reason": reason}, sayCA)
		},
	}
	limit.Flags().StringVar(&reason, "reason", "", "why; kept in the log")
	limit.MarkFlagRequired("reason")
	c.AddCommand(trustedCAAddCommand(r), list, show, prove, limit, trustedCAPreviewCommand(r), trustedCAAcceptCommand(), crl)
	for _, m := range []struct{ word, short string }{
		{"suspend", "Let it bring nobody new for now; its devices stay"}, {"resume", "Let it bring devices again"},
		{"retire", "Let it bring nobody new for ever; its devices stay"}, {"revoke", "Refuse everything that it brought, at once and for ever"},
	} {
		c.AddCommand(reasonCommand(m.word+" CA", m.short, func(c *cobra.Command, id, reason string) error {
			return do(c, r, http.MethodPost, caPath(id, "/"+m.word), map[string]any{"reason": reason}, sayCA)
		}))
	}
	return c
}

func caPath(id, more string) string { return "/v1/trusted-cas/" + url.PathEscape(id) + more }

func sayCA(w io.Writer, a enroll.TrustedCAOut) error {
	fmt.Fprintf(w, "%s %s: %s, brought %d of %d\n", a.ID, a.Name, a.State, a.Used, a.Quota)
	if a.Code != "" {
		fmt.Fprintf(w, "Sign a certificate with the common name %s by the CA, then: openthings trusted-ca prove %s FILE\n", a.Code, a.ID)
	}
	if a.Others {
		fmt.Fprintln(w, "Another tenant trusts the same key, so only preauthorised serial numbers get in.")
	}
	for _, l := range a.Lists {
		fmt.Fprintf(w, "revocation list %s of %s: %s, good until %s\n", l.Number, l.Issuer, console.Plural(l.Entries, "entry", "entries"), instant(l.NextUpdate))
	}
	return nil
}

// mappingFlags are the mapping of a trusted CA.
type mappingFlags struct {
	m      enroll.Mapping
	models []string
}

func (f *mappingFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.m.Serial.Field, "serial", "subject.serialNumber", "field with the serial number: subject.serialNumber, subject.CN, san.uri, san.dns, san.hardware-serial …")
	c.Flags().StringVar(&f.m.Serial.Pattern, "serial-pattern", "", "regular expression for the whole field; its group is the serial number")
	c.Flags().StringVar(&f.m.Revision, "revision", "", "hardware revision of every device")
	c.Flags().StringVar(&f.m.Model.Field, "model", "", "field whose word names the hardware revision")
	c.Flags().StringArrayVar(&f.models, "map", nil, "WORD=REVISION, once for each word")
}

func (f *mappingFlags) mapping() (enroll.Mapping, error) {
	for _, s := range f.models {
		word, rev, ok := strings.Cut(s, "=")
		if !ok {
			return f.m, usageError{fmt.Errorf("%q is not WORD=REVISION", s)}
		}
		if f.m.Revisions == nil {
			f.m.Revisions = map[string]string{}
		}
		f.m.Revisions[word] = rev
	}
	return f.m, nil
}

func trustedCAAddCommand(r *remote) *cobra.Command {
	var f mappingFlags
	var p enroll.CAPolicy
	var name string
	var quota int64
	c := &cobra.Command{
		Use: "add FILE", Short: "Upload a CA (PEM: the CA, then authorities below it); it counts once its key is proven", Args: cobra.ExactArgs(1),
		Example: `  openthings trusted-ca add maker.pem --name 'Maker' --revision rev_… --quota 5000
  openthings trusted-ca add maker.pem --name 'Maker' --model subject.OU --map lamp-b=rev_… --quota 5000 --crl-required`,
		RunE: func(c *cobra.Command, args []string) error {
			b, err := readInput("FILE", args[0])
			if err != nil {
				return err
			}
			if p.Mapping, err = f.mapping(); err != nil {
				return err
			}
			return do(c, r, http.MethodPost, "/v1/trusted-cas", map[string]any{"name": name, "certificates": string(b), "quota": quota, "policy": p}, sayCA)
		},
	}
	f.add(c)
	c.Flags().StringVar(&name, "name", "", "what people call it")
	c.Flags().Int64Var(&quota, "quota", 1000, "how many devices it may bring")
	c.Flags().StringVar(&p.Solution, "solution", "", "devices go straight into it; without one they wait in the lobby")
	c.Flags().StringSliceVar(&p.Keys, "keys", nil, "keys its devices may have: ecdsa-p256, ecdsa-p384, ed25519, rsa")
	c.Flags().BoolVar(&p.Listed, "listed", false, "only preauthorised serial numbers")
	c.Flags().BoolVar(&p.Shared, "shared", false, "it signs for other manufacturers too")
	c.Flags().BoolVar(&p.CRL.Required, "crl-required", false, "nobody gets in without a fresh revocation list")
	c.Flags().StringVar(&p.CRL.URL, "crl-url", "", "where the revocation list is fetched; without one it is uploaded")
	return c
}

func trustedCAPreviewCommand(r *remote) *cobra.Command {
	var f mappingFlags
	c := &cobra.Command{
		Use: "preview FILE", Short: "What a mapping reads out of a sample certificate; changes nothing", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := readInput("FILE", args[0])
			if err != nil {
				return err
			}
			m, err := f.mapping()
			if err != nil {
				return err
			}
			return do(c, r, http.MethodPost, "/v1/trusted-cas/preview", map[string]any{"mapping": m, "certificate": string(b)}, func(w io.Writer, m enroll.Mapped) error {
				_, err := fmt.Fprintf(w, "serial number %s, hardware revision %s\n", m.Serial, m.Revision)
				return err
			})
		},
	}
	f.add(c)
	return c
}

func trustedCAAcceptCommand() *cobra.Command {
	var o onHost
	c := &cobra.Command{
		Use: "accept CA", Short: "Accept a CA without a proof, as the administrator of the platform's machine", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return ask(c, &o, "accept", app.CARequest{ID: args[0]}, sayCA)
		},
	}
	o.flags(c)
	return c
}

// reasonCommand is a command on one thing that has to say why.
func reasonCommand(use, short string, do func(c *cobra.Command, id, reason string) error) *cobra.Command {
	var reason string
	c := &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
		if reason == "" {
			return usageError{errors.New("say why with --reason")}
		}
		return do(c, args[0], reason)
	}}
	c.Flags().StringVar(&reason, "reason", "", "why; kept in the log")
	return c
}

func enrolTokenCommand() *cobra.Command {
	c, r := group("enrol-token", "Enrolment tokens, exchanged for a device's own certificate")
	var pages paging
	list := &cobra.Command{
		Use: "list", Short: "Enrolment tokens", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, pages.path("/v1/enrol-tokens", nil), func(w io.Writer, p api.Page[enroll.Token]) error {
				rows := [][]string{{"TOKEN", "NAME", "KIND", "USED", "QUOTA", "REFUSED", "UNTIL", "REVOKED"}}
				for _, t := range p.Items {
					rows = append(rows, []string{t.ID, t.Name, t.Kind, fmt.Sprint(t.Used), fmt.Sprint(t.Quota), fmt.Sprint(t.Refused), instant(t.Expires), yes(!t.Revoked.IsZero())})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(list)
	var in struct {
		name, revision, pattern, solution, claim string
		quota                                    int64
		listed                                   bool
		life                                     time.Duration
	}
	create := &cobra.Command{
		Use: "create", Short: "Make a token; its text is printed this once", Args: cobra.NoArgs,
		Example: `  openthings enrol-token create --name 'lot 7' --revision rev_… --quota 100 --pattern 'LMP-\d{5}'
  openthings enrol-token create --name 'lot 8' --revision rev_… --quota 100 --listed --claim-certificate claim.pem`,
		RunE: func(c *cobra.Command, _ []string) error {
			body := map[string]any{"name": in.name, "revision": in.revision, "quota": in.quota, "pattern": in.pattern, "solution": in.solution, "listed": in.listed,
				"expires": time.Now().Add(in.life).UTC().Format(time.RFC3339)}
			if in.claim != "" {
				b, err := readInput("--claim-certificate", in.claim)
				if err != nil {
					return err
				}
				body["certificate"] = string(b)
			}
			return do(c, r, http.MethodPost, "/v1/enrol-tokens", body, func(w io.Writer, t enroll.CreatedToken) error {
				_, err := fmt.Fprintln(w, strings.TrimSpace(t.ID+" "+t.Text))
				return err
			})
		},
	}
	fl := create.Flags()
	fl.StringVar(&in.name, "name", "", "what people call it")
	fl.StringVar(&in.revision, "revision", "", "hardware revision of the devices")
	fl.StringVar(&in.pattern, "pattern", "", "regular expression that the whole serial number must match")
	fl.StringVar(&in.solution, "solution", "", "devices go straight into it; without one they wait in the lobby")
	fl.Int64Var(&in.quota, "quota", 1, "how often it may be used")
	fl.BoolVar(&in.listed, "listed", false, "only preauthorised serial numbers")
	fl.DurationVar(&in.life, "life", 24*time.Hour, "how long it counts")
	fl.StringVar(&in.claim, "claim-certificate", "", "file with a certificate that takes the place of the text, and a request by its key whose common name is the tenant; demands --listed")
	c.AddCommand(create, list, reasonCommand("revoke TOKEN", "End a token at once", func(c *cobra.Command, id, reason string) error {
		return do(c, r, http.MethodPost, "/v1/enrol-tokens/"+url.PathEscape(id)+"/revoke", map[string]any{"reason": reason}, func(w io.Writer, t enroll.Token) error {
			_, err := fmt.Fprintf(w, "%s is revoked; it was used %d times\n", t.ID, t.Used)
			return err
		})
	}))
	return c
}

func clonesCommand() *cobra.Command {
	c, r := group("clones", "Suspected clones: what was seen twice, and who decides")
	var pages paging
	var all bool
	list := &cobra.Command{
		Use: "list", Short: "Suspicions that nobody has decided yet", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			q := url.Values{}
			if all {
				q.Set("all", "true")
			}
			return read(c, r, pages.path("/v1/clones", q), func(w io.Writer, p api.Page[enroll.Clone]) error {
				rows := [][]string{{"CLONE", "WHAT", "SEEN", "LAST", "STATE", "DEVICES"}}
				for _, x := range p.Items {
					rows = append(rows, []string{x.ID, x.What, fmt.Sprint(x.Seen), instant(x.Last), x.State, strings.Join(x.Devices, " ")})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(list)
	list.Flags().BoolVar(&all, "all", false, "those that were decided too")
	show := &cobra.Command{
		Use: "show CLONE", Short: "What was seen where", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/clones/"+url.PathEscape(args[0]), sayClone)
		},
	}
	var genuine string
	decide := reasonCommand("decide CLONE", "Say which device is genuine, that none is, or that it was a false alarm", func(c *cobra.Command, id, reason string) error {
		if genuine == "" {
			return usageError{errors.New("say --genuine DEVICE, none or false-alarm")}
		}
		return do(c, r, http.MethodPost, "/v1/clones/"+url.PathEscape(id)+"/decide", map[string]any{"genuine": genuine, "reason": reason}, sayClone)
	})
	decide.Long = "Say which device is genuine, that none is, or that it was a false alarm.\n\n" +
		"--genuine DEVICE: it goes on if only this suspicion had suspended it, and the others are barred for ever.\n" +
		"--genuine none: all of them are barred for ever.\n" +
		"--genuine false-alarm: all of them go on, unless something else has suspended them too.\n\n" +
		"A device that was suspended loses its LDevIDs whichever is said, since a copy may hold them: one that goes on enrols anew with\n" +
		"its birth certificate."
	decide.Flags().StringVar(&genuine, "genuine", "", "id of the genuine device, none, or false-alarm")
	c.AddCommand(list, show, decide)
	return c
}

func sayClone(w io.Writer, x enroll.Clone) error {
	fmt.Fprintf(w, "%s: %s seen twice, %s", x.ID, x.What, x.State)
	if x.Verdict != "" {
		fmt.Fprintf(w, " (%s: %s)", x.Verdict, x.Reason)
	}
	fmt.Fprintln(w)
	rows := [][]string{{"AT", "PLACE", "DOOR", "DEVICE", "SERIAL", "WHAT"}}
	for _, s := range x.Sightings {
		rows = append(rows, []string{instant(s.At), s.Place, s.Door, s.Device, s.Serial, s.Detail})
	}
	return table(w, rows)
}
