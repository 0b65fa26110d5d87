// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/respond/inform"
)

// informCommand is about telling users: contacts, campaigns and their proof.
func informCommand() *cobra.Command {
	c, r := group("inform", "Who is told about products, what users are told, and the proof of it")
	c.AddCommand(contactsCommand(r), addContactCommand(r), importContactsCommand(r), eraseContactCommand(r),
		campaignsCommand(r), draftCampaignCommand(r), previewCommand(r), sendCommand(r), campaignProofCommand(r), deliveriesCommand(r), bouncedCommand(r))
	return c
}

func contactsCommand(r *remote) *cobra.Command {
	var pages paging
	var product string
	c := &cobra.Command{
		Use: "contacts", Short: "Who is told about products, the newest first", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			q := url.Values{}
			if product != "" {
				q.Set("product", product)
			}
			return read(c, r, pages.path("/v1/contacts", q), func(w io.Writer, p api.Page[inform.Contact]) error {
				rows := [][]string{{"CONTACT", "NAME", "ROLE", "CHANNEL", "ADDRESS", "LANGUAGE", "PRODUCTS"}}
				for _, x := range p.Items {
					var has []string
					for _, h := range x.Products {
						has = append(has, strings.TrimSuffix(h.Product+"/"+h.Revision, "/"))
					}
					rows = append(rows, []string{x.ID, x.Name, x.Role, x.Channel, x.Address, x.Language, strings.Join(has, " ")})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(c)
	c.Flags().StringVar(&product, "product", "", "only who has this product")
	return c
}

func addContactCommand(r *remote) *cobra.Command {
	var name, role, lang string
	var products []string
	c := &cobra.Command{
		Use: "add ADDRESS", Short: "Add a contact; the secret of a webhook is printed once", Args: cobra.ExactArgs(1),
		Example: `  openthings inform add anna@buyer.example --name "Anna Berg" --role customer --lang de --product $PRODUCT
  openthings inform add https://erp.dealer.example/hook --name Dealer --role distributor --lang fr --product $PRODUCT/$REVISION`,
		RunE: func(c *cobra.Command, args []string) error {
			in := inform.Contact{Role: role, Channel: inform.Mail, Language: lang, Person: inform.Person{Name: name, Address: args[0]}}
			if strings.Contains(args[0], "://") {
				in.Channel = inform.Webhook
			}
			for _, p := range products {
				id, revision, _ := strings.Cut(p, "/")
				in.Products = append(in.Products, inform.Holding{Product: id, Revision: revision})
			}
			return do(c, r, http.MethodPost, "/v1/contacts", in, func(w io.Writer, x inform.Contact) error {
				_, err := fmt.Fprintln(w, strings.TrimSpace(x.ID+" "+x.Secret))
				return err
			})
		},
	}
	f := c.Flags()
	f.StringVar(&name, "name", "", "who it is")
	f.StringVar(&role, "role", "customer", strings.Join(inform.Roles, ", "))
	f.StringVar(&lang, "lang", "en", "language of two letters")
	f.StringSliceVar(&products, "product", nil, "PRODUCT or PRODUCT/REVISION that they have; may be repeated")
	cobra.CheckErr(c.MarkFlagRequired("name"))
	cobra.CheckErr(c.MarkFlagRequired("product"))
	return c
}

func importContactsCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "import FILE", Short: "Add contacts from a CSV file, all of them or none", Args: cobra.ExactArgs(1),
		Long: "Add contacts from a CSV file, all of them or none. Its first line is name,role,channel,address,language,product,revision;\n" +
			"a contact with several products has several lines.",
		Example: `  openthings inform import customers.csv`,
		RunE: func(c *cobra.Command, args []string) error {
			b, err := readInput("FILE", args[0])
			if err != nil {
				return err
			}
			return do(c, r, http.MethodPost, "/v1/contacts/import", io.Reader(bytes.NewReader(b)), func(w io.Writer, n inform.Imported) error {
				_, err := fmt.Fprintf(w, "%d added, %d changed\n", n.Added, n.Changed)
				return err
			}, "Content-Type", "text/csv")
		},
	}
}

func eraseContactCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "erase CONTACT", Short: "Destroy a contact's name and address for ever; what it was told stays on record under a keyed hash", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := r.client()
			if err != nil {
				return err
			}
			return cl.Do(c.Context(), http.MethodDelete, "/v1/contacts/"+url.PathEscape(args[0]), nil, nil)
		},
	}
}

func campaignsCommand(r *remote) *cobra.Command {
	var pages paging
	c := &cobra.Command{
		Use: "list", Short: "What users are told and were told, the newest first", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, pages.path("/v1/campaigns", nil), func(w io.Writer, p api.Page[inform.Campaign]) error {
				rows := [][]string{{"CAMPAIGN", "STATE", "KIND", "PRODUCT", "SENT", "SUBJECT"}}
				for _, x := range p.Items {
					sent := "-"
					if !x.Sent.IsZero() {
						sent = instant(x.Sent)
					}
					rows = append(rows, []string{x.ID, x.State, x.Kind, x.ProductName, sent, x.Subject})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(c)
	return c
}

func draftCampaignCommand(r *remote) *cobra.Command {
	var w inform.Words
	var texts []string
	c := &cobra.Command{
		Use: "draft", Short: "Draft what users are told; a person sends it", Args: cobra.NoArgs,
		Long: "Draft what users are told; a person sends it. The first line of a text's file is its title.",
		Example: `  openthings inform draft --product $PRODUCT --subject "Leaking battery" --text en=battery.en.txt --text de=battery.de.txt
  openthings inform draft --kind case --case $CASE --product $PRODUCT --vulnerability CVE-2026-1234 --audience impacted --subject "CVE-2026-1234" --text en=notice.txt --devices`,
		RunE: func(c *cobra.Command, _ []string) error {
			w.Texts = map[string]inform.Text{}
			for i, t := range texts {
				lang, file, ok := strings.Cut(t, "=")
				if !ok {
					return usageError{errors.New("--text is LANGUAGE=FILE")}
				}
				b, err := readInput("--text", file)
				if err != nil {
					return err
				}
				title, text, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(string(b), "\r\n", "\n")), "\n")
				w.Texts[lang] = inform.Text{Title: title, Text: strings.TrimSpace(text)}
				if i == 0 && w.Language == "" {
					w.Language = lang
				}
			}
			return do(c, r, http.MethodPost, "/v1/campaigns", w, func(out io.Writer, x inform.Campaign) error {
				_, err := fmt.Fprintln(out, x.ID)
				return err
			})
		},
	}
	f := c.Flags()
	f.StringVar(&w.Kind, "kind", inform.KindOther, "case, support, cessation, advisory or other")
	f.StringVar(&w.Severity, "severity", "", "how devices show it: info, warning or critical; default warning")
	f.StringVar(&w.Product, "product", "", "the product; default: users of every product")
	f.StringVar(&w.Case, "case", "", "the case whose users are told")
	f.StringVar(&w.Vulnerability, "vulnerability", "", "says who is impacted, and which advisory goes with it")
	f.StringVar(&w.Subject, "subject", "", "for your own lists")
	f.StringVar(&w.Audience, "audience", inform.All, "impacted or all")
	f.StringSliceVar(&w.Revisions, "revision", nil, "only who has this hardware revision; may be repeated")
	f.BoolVar(&w.Devices, "devices", false, "connected devices of the audience show it too")
	f.StringVar(&w.Language, "lang", "", "what contacts get in whose own language there is no text; default: that of the first --text")
	f.StringArrayVar(&texts, "text", nil, "LANGUAGE=FILE; may be repeated")
	f.StringVar(&w.URL, "url", "", "where more can be read")
	cobra.CheckErr(c.MarkFlagRequired("subject"))
	cobra.CheckErr(c.MarkFlagRequired("text"))
	return c
}

func previewCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "preview CAMPAIGN", Short: "Who would be told if it were sent now", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/campaigns/"+url.PathEscape(args[0])+"/preview", func(w io.Writer, p inform.Preview) error {
				fmt.Fprintf(w, "%d contacts, %d devices\n", p.Contacts, p.Devices)
				for _, m := range p.Missing {
					fmt.Fprintln(w, m)
				}
				return counts(w, map[string]map[string]int64{"role": p.Roles, "channel": p.Channels, "language": p.Languages})
			})
		},
	}
}

func sendCommand(r *remote) *cobra.Command {
	var version int64
	c := &cobra.Command{
		Use: "send CAMPAIGN", Short: "Send a draft, once; a person who signed in with openthings login does", Args: cobra.ExactArgs(1),
		Long: "Send a draft, once. From then on what it says and whom it is for are frozen. Only a person can: sign in with openthings login.",
		RunE: func(c *cobra.Command, args []string) error {
			path := "/v1/campaigns/" + url.PathEscape(args[0])
			if version == 0 {
				cl, err := r.client()
				if err != nil {
					return err
				}
				var now inform.Campaign
				if err := cl.Do(c.Context(), http.MethodGet, path, nil, &now); err != nil {
					return err
				}
				version = now.Version
			}
			return do(c, r, http.MethodPost, path+"/send", map[string]any{"version": version}, func(w io.Writer, x inform.Campaign) error {
				_, err := fmt.Fprintln(w, x.ID, x.State, instant(x.Sent))
				return err
			})
		},
	}
	c.Flags().Int64Var(&version, "version", 0, "of the draft that you read; it is refused if somebody changed it since. Default: as it is now")
	return c
}

// counts prints numbers by what they count.
func counts(w io.Writer, by map[string]map[string]int64) error {
	rows := [][]string{{"BY", "", "CONTACTS"}}
	for _, what := range slices.Sorted(maps.Keys(by)) {
		for _, word := range slices.Sorted(maps.Keys(by[what])) {
			rows = append(rows, []string{what, word, fmt.Sprint(by[what][word])})
		}
	}
	return table(w, rows)
}

func campaignProofCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "proof CAMPAIGN", Short: "When, how, to whom and in which language users were told", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/campaigns/"+url.PathEscape(args[0])+"/proof", func(w io.Writer, p inform.Proof) error {
				fmt.Fprintf(w, "%s, sent %s to %d contacts; %d of %d devices keep it, %d acknowledged\n", p.Campaign.Subject, instant(p.Campaign.Sent), p.Recipients, p.Devices.Stored, p.Devices.Devices, p.Devices.Acknowledged)
				for _, t := range p.Texts {
					fmt.Fprintf(w, "text %s, SHA-256 %s\n", t.Language, t.SHA256)
				}
				for _, d := range p.Campaign.Documents {
					fmt.Fprintf(w, "%s %s, SHA-256 %s\n", d.Kind, d.Name, d.SHA256)
				}
				return counts(w, map[string]map[string]int64{"state": p.States, "role": p.Roles, "channel": p.Channels, "language": p.Languages})
			})
		},
	}
}

func deliveriesCommand(r *remote) *cobra.Command {
	var pages paging
	var state string
	c := &cobra.Command{
		Use: "deliveries CAMPAIGN", Short: "What became of each delivery; it names nobody", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			q := url.Values{}
			if state != "" {
				q.Set("state", state)
			}
			return read(c, r, pages.path("/v1/campaigns/"+url.PathEscape(args[0])+"/deliveries", q), func(w io.Writer, p api.Page[inform.Delivery]) error {
				rows := [][]string{{"DELIVERY", "CONTACT", "STATE", "LANGUAGE", "CHANNEL", "ANSWER"}}
				for _, x := range p.Items {
					rows = append(rows, []string{x.ID, x.Contact, string(x.State), x.Language, x.Channel, x.Answer})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(c)
	c.Flags().StringVar(&state, "state", "", "waiting, handed-over, read, bounced or failed")
	return c
}

func bouncedCommand(r *remote) *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "bounced CAMPAIGN DELIVERY", Short: "Record that a delivery came back", Args: cobra.ExactArgs(2),
		Long: "Record that a delivery came back. DELIVERY is the part of the mail's Message-ID before the @.",
		RunE: func(c *cobra.Command, args []string) error {
			path := "/v1/campaigns/" + url.PathEscape(args[0]) + "/deliveries/" + url.PathEscape(args[1]) + "/bounce"
			return do(c, r, http.MethodPost, path, map[string]any{"reason": reason}, func(w io.Writer, d inform.Delivery) error {
				_, err := fmt.Fprintln(w, d.ID, d.State)
				return err
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, without the address")
	cobra.CheckErr(c.MarkFlagRequired("reason"))
	return c
}
