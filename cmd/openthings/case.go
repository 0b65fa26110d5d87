// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/respond"
)

func caseCommand() *cobra.Command {
	c, r := group("case", "Signals, cases and their legal clocks")
	c.Long = "Signals, cases and their legal clocks (Regulation (EU) 2024/2847, Article 14).\n\n" +
		"A signal starts no clock. A person assesses it and decides; only “aware” opens a case and sets T0. What only people may\n" +
		"do is done after openthings login."
	c.AddCommand(caseSignal(r), caseSignals(r), caseDecide(r), caseList(r), caseShow(r), caseEvent(r), caseTargetsCommand(r), anomalyCommand(r))
	c.AddCommand(packCommands(r)...)
	c.AddCommand(drillCommands(r)...)
	return c
}

func caseSignal(r *remote) *cobra.Command {
	var in struct {
		Product    string    `json:"product"`
		Title      string    `json:"title"`
		Detail     string    `json:"detail,omitempty"`
		Ref        string    `json:"ref,omitempty"`
		Exploited  string    `json:"exploited,omitempty"`
		KnownSince time.Time `json:"known_since,omitzero"`
	}
	c := &cobra.Command{
		Use: "signal", Short: "Record a hint that a product may be attacked; it starts no clock", Args: cobra.NoArgs,
		Example: `  openthings case signal --product prd_… --title 'Customer reports a strange login' --exploited unknown`,
		RunE: func(c *cobra.Command, _ []string) error {
			return do(c, r, http.MethodPost, "/v1/signals", in, func(w io.Writer, s respond.Signal) error {
				_, err := fmt.Fprintf(w, "%s: decide by %s\n", s.ID, instant(s.DecideBy))
				return err
			})
		},
	}
	f := c.Flags()
	f.StringVar(&in.Product, "product", "", "the product concerned")
	f.StringVar(&in.Title, "title", "", "one line")
	f.StringVar(&in.Detail, "detail", "", "what was seen, by whom")
	f.StringVar(&in.Ref, "ref", "", "a vulnerability or ticket")
	f.StringVar(&in.Exploited, "exploited", "", "yes, no or unknown: whether the source says that it was exploited")
	f.TimeVar(&in.KnownSince, "known-since", time.Time{}, []string{time.RFC3339}, "since when the source knew")
	cobra.CheckErr(c.MarkFlagRequired("product"))
	cobra.CheckErr(c.MarkFlagRequired("title"))
	return c
}

func caseSignals(r *remote) *cobra.Command {
	var pages paging
	c := &cobra.Command{
		Use: "signals", Short: "Signals, newest first, and what was decided about them", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, pages.path("/v1/signals", nil), func(w io.Writer, p api.Page[respond.Signal]) error {
				rows := [][]string{{"SIGNAL", "CAME IN", "SOURCE", "EXPLOITED", "VERDICT", "DECIDE BY", "TITLE"}}
				for _, s := range p.Items {
					verdict, by := "", ""
					if s.Assessment != nil {
						verdict = string(s.Assessment.Verdict)
					}
					if !s.DecideBy.IsZero() {
						by = instant(s.DecideBy)
					}
					rows = append(rows, []string{s.ID, instant(s.Intake), string(s.Source), s.Exploited, verdict, by, s.Title})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(c)
	return c
}

func caseDecide(r *remote) *cobra.Command {
	var d respond.Declaration
	var evidence, aev, si string
	c := &cobra.Command{
		Use: "decide SIGNAL aware|watch|negative|joined", Short: "Assess a signal and decide (a person only); aware sets T0 and opens the cases", Args: cobra.ExactArgs(2),
		Example: `  openthings case decide sig_… aware --basis 'Logs of two customers show it' --exploited yes --incident no --t0 2026-11-20T08:15:00+01:00 --title 'Lamp: login bypass'
  openthings case decide sig_… negative --reason not-reachable --basis 'The parser is not linked'`,
		RunE: func(c *cobra.Command, args []string) error {
			d.Verdict = respond.Verdict(args[1])
			for _, q := range []struct {
				answer string
				to     **bool
				flag   string
			}{{aev, &d.AEV, "--exploited"}, {si, &d.SI, "--incident"}} {
				switch q.answer {
				case "":
				case "yes", "no":
					*q.to = new(q.answer == "yes")
				default:
					return usageError{fmt.Errorf("%s is yes or no", q.flag)}
				}
			}
			cl, err := r.client()
			if err != nil {
				return err
			}
			var s respond.Signal
			if err := cl.Do(c.Context(), http.MethodGet, "/v1/signals/"+url.PathEscape(args[0]), nil, &s); err != nil {
				return err
			}
			as := s.Assessment
			if as == nil || evidence != "" {
				as = &respond.Assessment{}
				if err := cl.Do(c.Context(), http.MethodPost, "/v1/signals/"+url.PathEscape(args[0])+"/assessment", map[string]string{"evidence": evidence}, as); err != nil {
					return err
				}
			}
			d.Seen = new(len(as.Decisions))
			return do(c, r, http.MethodPost, "/v1/assessments/"+url.PathEscape(as.ID)+"/decision", d, func(w io.Writer, e respond.Ended) error {
				fmt.Fprintf(w, "%s, decided %s by %s\n", e.Verdict, instant(e.At), e.Actor)
				if !e.Again.IsZero() {
					fmt.Fprintln(w, "assess again by", instant(e.Again))
				}
				for _, id := range e.Cases {
					fmt.Fprintln(w, id)
				}
				return nil
			})
		},
	}
	f := c.Flags()
	f.StringVar(&d.Basis, "basis", "", "the evidence for the verdict")
	f.StringVar(&evidence, "evidence", "", "what is new, where the signal was decided about before")
	f.StringVar(&aev, "exploited", "", "aware: yes or no: is there reliable evidence that a malicious actor exploited a vulnerability in the product (Art. 3(42))?")
	f.StringVar(&si, "incident", "", "aware: yes or no: is there a severe incident with an impact on the product's security (Art. 14(5))?")
	f.TimeVar(&d.T0, "t0", time.Time{}, []string{time.RFC3339}, "aware: since when, with an offset")
	f.StringVar(&d.Title, "title", "", "aware: one line for the report")
	f.StringVar(&d.Summary, "summary", "", "aware: what happened")
	f.StringVar(&d.Coordinator, "coordinator", "", "aware: Member State of the coordinator CSIRT; by default the one that was confirmed")
	f.StringSliceVar(&d.MemberStates, "member-state", nil, "aware: where the product was made available; by default as declared")
	f.StringSliceVar(&d.Products, "product", nil, "aware: the products concerned; by default the signal's")
	f.StringVar((*string)(&d.Reason), "reason", "", "negative: not-reachable, not-exploited-here, good-faith-testing, known-before-the-law, not-our-product or other")
	f.TimeVar(&d.KnownSince, "known-since", time.Time{}, []string{time.RFC3339}, "negative, known before the law: since when")
	f.StringVar(&d.Case, "case", "", "joined: the case that the signal belongs to")
	cobra.CheckErr(c.MarkFlagRequired("basis"))
	return c
}

func caseList(r *remote) *cobra.Command {
	var pages paging
	var open bool
	c := &cobra.Command{
		Use: "list", Short: "Cases with their clocks", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			q := url.Values{}
			if open {
				q.Set("open", "true")
			}
			return read(c, r, pages.path("/v1/cases", q), func(w io.Writer, p api.Page[respond.Case]) error {
				rows := [][]string{{"CASE", "KIND", "AWARE", "DUTY", "DUE", "MET", "TITLE"}}
				for _, x := range p.Items {
					for _, d := range x.Clocks {
						due, met := ends(d)
						rows = append(rows, []string{x.ID, strings.ToUpper(string(x.Kind)), instant(x.T0), string(d.Stage), due, met, x.Title})
					}
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	c.Flags().BoolVar(&open, "open", false, "leave out the closed ones")
	pages.flags(c)
	return c
}

// ends says when a clock ends and when its duty was done.
func ends(d respond.Deadline) (due, met string) {
	due, met = "no date yet", "open"
	if !d.Due.IsZero() {
		due = instant(d.Due)
	}
	if !d.Met.IsZero() {
		met = instant(d.Met)
		if d.Late {
			met += " LATE"
		}
	}
	return due, met
}

func caseShow(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "show CASE", Short: "A case: its clocks, and what happened, in order", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/cases/"+url.PathEscape(args[0]), printCase)
		},
	}
}

func printCase(w io.Writer, x respond.Case) error {
	fmt.Fprintf(w, "%s %s: %s\n%s of %s, aware since %s, coordinator %s (%s)\n\n", strings.ToUpper(string(x.Kind)), x.ID, x.Title,
		x.Status, x.ProductName, instant(x.T0), x.Coordinator, x.Zone)
	rows := [][]string{{"DUTY", "WORK BY", "DUE", "PLATFORM COUNTER", "MET"}}
	for _, d := range x.Clocks {
		due, met := ends(d)
		by, counter := "", ""
		if !d.WorkBy.IsZero() {
			by = instant(d.WorkBy)
		}
		if !d.Counter.IsZero() {
			counter = instant(d.Counter)
		}
		rows = append(rows, []string{d.Stage.Name(), by, due, counter, met})
	}
	if err := table(w, rows); err != nil {
		return err
	}
	for _, d := range x.Clocks {
		if d.Undetermined != "" {
			fmt.Fprintf(w, "%s: %s\n", d.Stage.Name(), d.Undetermined)
		}
	}
	fmt.Fprintln(w)
	rows = [][]string{{"#", "RECORDED", "WHAT", "BY", "NOTE"}}
	for _, e := range x.Events {
		rows = append(rows, []string{fmt.Sprint(e.Seq), instant(e.Recorded), string(e.Kind), e.Actor, e.Data.Note})
	}
	return table(w, rows)
}

func caseEvent(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "event CASE KIND [NAME=TEXT | NAME=@FILE | NAME:=JSON]...", Short: "Say what happened in a case (a person only): a measure, a submission, users informed, …", Args: cobra.MinimumNArgs(2),
		Long: "Append an event to a case. Events are never changed or removed. Their kinds and members are those of append-case-event\n" +
			"in the API: measure.available, submission.attempted, submission.accepted, submission.failed, users.informed,\n" +
			"member_states.changed, interim.requested, case.closed and others.",
		Example: `  openthings case event cas_… measure.available at=2026-11-21T10:00:00Z note='Version 1.4.2 is offered'
  openthings case event cas_… submission.attempted stage=early_warning at=2026-11-20T15:04:00+01:00`,
		RunE: func(c *cobra.Command, args []string) error {
			body, err := bodyOf(append([]string{"kind=" + args[1]}, args[2:]...), "", c.InOrStdin())
			if err != nil {
				return err
			}
			return do(c, r, http.MethodPost, "/v1/cases/"+url.PathEscape(args[0])+"/events", json.RawMessage(body), func(w io.Writer, e respond.Event) error {
				_, err := fmt.Fprintf(w, "event %d: %s\n", e.Seq, e.Kind)
				return err
			})
		},
	}
}
