// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/app"
	"github.com/openthings-platform/openthings/notify"
)

func notifyCommand() *cobra.Command {
	c, r := group("notify", "Who is told of alarms by webhook and mail, and whether it arrived")
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
	var name string
	var wants []string
	add := &cobra.Command{
		Use: "add ADDRESS", Short: "Tell a webhook or a mail address; a webhook's secret is printed once", Args: cobra.ExactArgs(1),
		Example: `  openthings notify add https://hooks.example/openthings --name on-call --topic 'alarm.*'
  openthings notify add psirt@maker.example --name PSIRT --topic '*'`,
		RunE: func(c *cobra.Command, args []string) error {
			kind := notify.Mail
			if strings.Contains(args[0], "://") {
				kind = notify.Webhook
			}
			in := map[string]any{"name": name, "kind": kind, "address": args[0], "topics": wants}
			return do(c, r, http.MethodPost, "/v1/notifications/endpoints", in, func(w io.Writer, e notify.EndpointSecret) error {
				_, err := fmt.Fprintln(w, strings.TrimSpace(e.ID+" "+e.Secret))
				return err
			})
		},
	}
	add.Flags().StringVar(&name, "name", "", "what people call it")
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
	deliveries.Flags().StringVar(&state, "state", "", "open, done or failed")
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

// mailFlags name the server that mail leaves by.
func mailFlags(f *pflag.FlagSet, cfg *app.Config) {
	f.StringVar(&cfg.Mail.Server, "mail", env("OPENTHINGS_MAIL", ""), "mail server: smtps://user@mail.example:465, or smtp://mail.example:587 with STARTTLS; default: none ($OPENTHINGS_MAIL)")
	f.StringVar(&cfg.Mail.From, "mail-from", env("OPENTHINGS_MAIL_FROM", ""), "sender of mail ($OPENTHINGS_MAIL_FROM)")
	f.StringVar(&cfg.Mail.PasswordFile, "mail-password-file", env("OPENTHINGS_MAIL_PASSWORD_FILE", ""), "file with the password of the mail server's user ($OPENTHINGS_MAIL_PASSWORD_FILE)")
	f.StringVar(&cfg.Mail.CAFile, "mail-ca", "", "CA of the mail server (PEM); default: those of the machine")
}
