// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/alarm"
	"github.com/openthings-platform/openthings/api"
)

func alarmCommand() *cobra.Command {
	c, r := group("alarm", "Alarms, and the rules that raise them")
	var state, device, severity, note string
	var pages paging
	list := &cobra.Command{
		Use: "list", Short: "Alarms, the newest first", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			q := url.Values{}
			for name, v := range map[string]string{"state": state, "device": device, "severity": severity} {
				if v != "" {
					q.Set(name, v)
				}
			}
			return read(c, r, pages.path("/v1/alarms", q), func(w io.Writer, p api.Page[alarm.Alarm]) error {
				rows := [][]string{{"ALARM", "SEVERITY", "NAME", "DEVICE", "SINCE", "STATE", "WHAT"}}
				for _, a := range p.Items {
					rows = append(rows, []string{a.ID, string(a.Severity), a.Name, a.Device, instant(a.Since), a.State(), a.Value})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	list.Flags().StringVar(&state, "state", "", "open or closed")
	list.Flags().StringVar(&device, "device", "", "of one device")
	list.Flags().StringVar(&severity, "severity", "", "critical, warning or info")
	pages.flags(list)
	c.AddCommand(list, alarmRuleCommand(r))
	for _, a := range []struct{ name, short string }{{"acknowledge", "Say that you have seen an alarm"}, {"close", "End an alarm; if its condition still holds a new one comes"}} {
		act := &cobra.Command{Use: a.name + " ALARM", Short: a.short, Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
			return do(c, r, http.MethodPost, "/v1/alarms/"+url.PathEscape(args[0])+"/"+a.name, map[string]any{"note": note}, func(w io.Writer, x alarm.Alarm) error {
				_, err := fmt.Fprintf(w, "%s is %s\n", x.Name, x.State())
				return err
			})
		}}
		act.Flags().StringVar(&note, "note", "", "what you found")
		c.AddCommand(act)
	}
	return c
}

func alarmRuleCommand(r *remote) *cobra.Command {
	c := parent("rule", "Rules that raise alarms")
	c.AddCommand(&cobra.Command{
		Use: "list", Short: "What is watched", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return read(c, r, "/v1/alarm-rules", func(w io.Writer, p api.Page[alarm.Rule]) error {
				rows := [][]string{{"RULE", "SEVERITY", "NAME", "RAISES WHEN", "ON", "OFF"}}
				for _, x := range p.Items {
					rows = append(rows, []string{x.ID, string(x.Severity), x.Name, x.Sentence(), x.Filter, yes(x.Off)})
				}
				return table(w, rows)
			})
		},
	})
	var b alarm.RuleBody
	var clear float64
	make := &cobra.Command{
		Use: "make NAME", Short: "Make a rule", Args: cobra.ExactArgs(1),
		Example: `  openthings alarm rule make 'Too hot' --kind threshold --stream env --field temp --op '>' --value 80 --clear 75 --for 60 --severity critical
  openthings alarm rule make Silent --kind absence --window 3600
  openthings alarm rule make 'Break-in' --kind events --event login-failed --count 5 --window 600 --severity critical --signal`,
		RunE: func(c *cobra.Command, args []string) error {
			b.Name = args[0]
			if c.Flags().Changed("clear") {
				b.Clear = &clear
			}
			return do(c, r, http.MethodPost, "/v1/alarm-rules", b, func(w io.Writer, x alarm.Rule) error {
				_, err := fmt.Fprintf(w, "%s %s\n", x.ID, x.Sentence())
				return err
			})
		},
	}
	f := make.Flags()
	f.StringVar((*string)(&b.Kind), "kind", "threshold", "threshold, change, absence or events")
	f.StringVar((*string)(&b.Severity), "severity", "warning", "critical, warning or info")
	f.StringVar(&b.Filter, "filter", "", "which devices, in the filter language; default all")
	f.StringVar(&b.Stream, "stream", "", "stream of the value; of silence: the one that is missed")
	f.StringVar(&b.Field, "field", "", "the value")
	f.StringVar(&b.Event, "event", "", "type of the events")
	f.StringVar(&b.Op, "op", ">", ">, >=, < or <=")
	f.Float64Var(&b.Value, "value", 0, "the limit; of a change: by how much in a minute")
	f.Float64Var(&clear, "clear", 0, "value at which the alarm is over again; default the limit")
	f.Int64Var(&b.For, "for", 0, "seconds that it must hold")
	f.Int64Var(&b.Window, "window", 0, "seconds of silence, or within which events are counted")
	f.Int64Var(&b.Count, "count", 1, "how many events")
	f.BoolVar(&b.Signal, "signal", false, "an alarm opens a signal, which a person must assess")
	c.AddCommand(make, &cobra.Command{
		Use: "remove RULE", Short: "Remove a rule; its open alarms end", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := r.client()
			if err != nil {
				return err
			}
			return cl.Do(c.Context(), http.MethodPost, "/v1/alarm-rules/"+url.PathEscape(args[0])+"/remove", nil, nil)
		},
	})
	return c
}
