// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/telemetry"
)

// securityCommand is openthings device security.
func securityCommand(r *remote) *cobra.Command {
	var pages paging
	c := &cobra.Command{
		Use: "security DEVICE", Short: "A device's security events, and whether their chain is whole", Args: oneDevice,
		Long: "Lists logins, changes of settings, updates and tampering in the order in which the device chained them, the last first, and\n" +
			"says whether any is missing, altered or there in two versions. With --json it prints the events; the state of the chain is at\n" +
			"GET /v1/devices/{id}/security-chain.",
		RunE: func(c *cobra.Command, args []string) error {
			device := "/v1/devices/" + url.PathEscape(args[0])
			return read(c, r, pages.path(device+"/security-events", nil), func(w io.Writer, p api.Page[telemetry.SecurityEvent]) error {
				rows := [][]string{{"NO", "EVENT", "AT", "WORDS", "DATA"}}
				for _, e := range p.Items {
					rows = append(rows, []string{fmt.Sprint(e.Seq), e.Kind, instant(e.At), e.Detail, string(e.Data)})
				}
				if err := pages.table(w, rows, p.Next); err != nil {
					return err
				}
				cl, err := r.client()
				if err != nil {
					return err
				}
				var raw json.RawMessage
				if err := cl.Do(c.Context(), http.MethodGet, device+"/security-chain", nil, &raw); err != nil {
					return err
				}
				var chain telemetry.Chain
				if err := json.Unmarshal(raw, &chain); err != nil {
					return err
				}
				return printChain(w, chain)
			})
		},
	}
	pages.flags(c)
	return c
}

func printChain(w io.Writer, c telemetry.Chain) error {
	switch {
	case c.Since == nil:
		_, err := fmt.Fprintln(w, "the device has told of no security event")
		return err
	case c.Whole:
		fmt.Fprintf(w, "the chain is whole since %s: %d events", instant(*c.Since), c.Head)
	default:
		fmt.Fprint(w, "THE CHAIN IS BROKEN")
	}
	if c.Signed > 0 {
		fmt.Fprintf(w, "; signed by the device up to %d", c.Signed)
	}
	fmt.Fprintln(w)
	for _, b := range c.Breaks {
		healed := ""
		if b.Healed != nil {
			healed = ", arrived " + instant(*b.Healed)
		}
		if _, err := fmt.Fprintf(w, "%s at %d to %d, found %s%s\n", b.Kind, b.From, b.To, instant(b.At), healed); err != nil {
			return err
		}
	}
	return nil
}
