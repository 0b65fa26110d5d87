// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/app"
	"github.com/openthings-platform/openthings/notify"
)

func notifyCommand() *cobra.Command {
	c, r := group("notify", "Who is told by webhook, mail, pager and syslog, and whether it arrived")
	list := &cobra.Command{
		Use: "list", Short: "Who is told", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/notifications/endpoints", func(w io.Writer, p api.Page[notify.Endpoint]) error {
				rows := [][]string{{"ENDPOINT", "NAME", "KIND", "ADDRESS", "TOPICS", "FAULTS", "FAULT"}}
				for _, e := range p.Items {
					fault := e.Fault
					if e.Off != "" {
						fault = "OFF: " + e.Off
					}
					rows = append(rows, []string{e.ID, e.Name, string(e.Kind), e.Address, strings.Join(e.Topics, " "), fmt.Sprint(e.Faults), fault})
				}
				return table(w, rows)
			})
		},
	}
	topics := &cobra.Command{
		Use: "topics", Short: "What can be told", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/notifications/topics", func(w io.Writer, p api.Page[notify.Topic]) error {
				rows := [][]string{{"TOPIC", "TOLD WHEN"}}
				for _, t := range p.Items {
					rows = append(rows, []string{t.Name, t.Text})
				}
				return table(w, rows)
			})
		},
	}
	var name, kind, header, keyFile, caFile string
	var wants []string
	add := &cobra.Command{
		Use: "add ADDRESS", Short: "Tell a webhook, a mail address, a pager or a syslog receiver; a webhook's secret is printed once", Args: cobra.ExactArgs(1),
		Long: "Tell a webhook, a mail address, a pager or a syslog receiver; a webhook's secret is printed once.\n\n" +
			"A pager is an address that takes PagerDuty's Events API v2. A syslog receiver takes RFC 5424 over TLS. Keys are read from files, so that no list of processes shows them.",
		Example: `  openthings notify add https://hooks.example/openthings --name on-call --topic 'alarm.*'
  openthings notify add psirt@maker.example --name PSIRT --topic '*'
  openthings notify add https://events.pagerduty.com/v2/enqueue --kind pager --key-file routing.key --name pager --topic oncall.call
  openthings notify add siem.example:6514 --kind syslog --ca-file siem-ca.pem --name SIEM --topic '*'
  openthings notify add https://api.atlassian.com/automation/webhooks/jira/a/b/c --header X-Automation-Webhook-Token --key-file jira.key --name Jira --topic case.deadline`,
		RunE: func(c *cobra.Command, args []string) error {
			if kind == "" {
				kind = string(notify.Mail)
				if strings.Contains(args[0], "://") {
					kind = string(notify.Webhook)
				}
			}
			key, err := fileText(keyFile)
			if err != nil {
				return err
			}
			ca, err := fileText(caFile)
			if err != nil {
				return err
			}
			in := map[string]any{"name": name, "kind": kind, "address": args[0], "topics": wants, "header": header, "credential": key, "authority": ca}
			return do(c, r, http.MethodPost, "/v1/notifications/endpoints", in, func(w io.Writer, e notify.EndpointSecret) error {
				_, err := fmt.Fprintln(w, strings.TrimSpace(e.ID+" "+e.Secret))
				return err
			})
		},
	}
	add.Flags().StringVar(&name, "name", "", "what people call it")
	add.Flags().StringVar(&kind, "kind", "", "webhook, mail, pager or syslog; default: webhook for an address with ://, else mail")
	add.Flags().StringVar(&header, "header", "", "name of a header that each request of a webhook carries; its value is in --key-file")
	add.Flags().StringVar(&keyFile, "key-file", "", "file with the routing key of a pager, or the value of --header")
	add.Flags().StringVar(&caFile, "ca-file", "", "file with the CA certificates (PEM) that a syslog receiver's is checked against; default: those of the machine")
	add.Flags().StringSliceVar(&wants, "topic", []string{"*"}, "what it is told of; may be repeated")
	cobra.CheckErr(add.MarkFlagRequired("name"))
	var state string
	var pages paging
	deliveries := &cobra.Command{
		Use: "deliveries", Short: "What was told to whom and whether it arrived, the newest first", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, pages.path("/v1/notifications/deliveries", url.Values{"state": {state}}), func(w io.Writer, p api.Page[notify.Delivery]) error {
				rows := [][]string{{"DELIVERY", "WHEN", "TOPIC", "WHAT", "ENDPOINT", "STATE", "ATTEMPTS", "ANSWER"}}
				for _, d := range p.Items {
					rows = append(rows, []string{d.ID, instant(d.At), d.Topic, d.Title, d.Endpoint, string(d.State), fmt.Sprint(d.Attempts), d.Answer})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	deliveries.Flags().StringVar(&state, "state", "", "open, done, failed or moot")
	pages.flags(deliveries)
	c.AddCommand(list, topics, add, deliveries)
	for _, a := range []struct{ use, short, path, action string }{
		{"test ENDPOINT", "Send a test", "/v1/notifications/endpoints/", "/test"},
		{"resume ENDPOINT", "Try again now what waits", "/v1/notifications/endpoints/", "/resume"},
		{"remove ENDPOINT", "Tell it nothing more", "/v1/notifications/endpoints/", "/remove"},
		{"again DELIVERY", "Try a failed delivery again", "/v1/notifications/deliveries/", "/again"},
	} {
		c.AddCommand(&cobra.Command{Use: a.use, Short: a.short, Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
			cl, err := r.client()
			if err != nil {
				return err
			}
			return cl.Do(c.Context(), http.MethodPost, a.path+url.PathEscape(args[0])+a.action, nil, nil)
		}})
	}
	return c
}

// fileText is what a small file says, without the white space around it; no name, no text.
func fileText(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	b, err := os.ReadFile(name)
	return strings.TrimSpace(string(b)), err
}

// mailFlags name the server that mail leaves by.
func mailFlags(f *pflag.FlagSet, cfg *app.Config) {
	f.StringVar(&cfg.Mail.Server, "mail", env("OPENTHINGS_MAIL", ""), "mail server: smtps://user@mail.example:465, or smtp://mail.example:587 with STARTTLS; default: none ($OPENTHINGS_MAIL)")
	f.StringVar(&cfg.Mail.From, "mail-from", env("OPENTHINGS_MAIL_FROM", ""), "sender of mail ($OPENTHINGS_MAIL_FROM)")
	f.StringVar(&cfg.Mail.PasswordFile, "mail-password-file", env("OPENTHINGS_MAIL_PASSWORD_FILE", ""), "file with the password of the mail server's user ($OPENTHINGS_MAIL_PASSWORD_FILE)")
	f.StringVar(&cfg.Mail.CAFile, "mail-ca", "", "CA of the mail server (PEM); default: those of the machine")
}
