// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"io"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/command"
	"github.com/openthings-platform/openthings/wire"
)

// deviceNotices is openthings device notices.
func deviceNotices(r *remote) *cobra.Command {
	var pages paging
	c := &cobra.Command{
		Use: "notices DEVICE", Short: "The notices to the users on a device, and what became of each", Args: oneDevice,
		RunE: func(c *cobra.Command, args []string) error {
			path := "/v1/devices/" + url.PathEscape(args[0]) + "/notices"
			return read(c, r, pages.path(path, nil), func(w io.Writer, p api.Page[command.DeviceNotice]) error {
				rows := [][]string{{"NOTICE", "STATE", "SENT", "STORED", "SHOWN", "ACKNOWLEDGED", "TITLE"}}
				for _, n := range p.Items {
					title := n.Reason
					if content, err := wire.ParseNotice(n.Content); err == nil && title == "" {
						title = content.In("en").Title
					}
					rows = append(rows, []string{n.Notice, n.State, instant(n.Asked), since(n.Stored), since(n.Shown), since(n.Acknowledged), title})
				}
				return pages.table(w, rows, p.Next)
			})
		},
	}
	pages.flags(c)
	return c
}

// since is a moment that may not have come.
func since(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return instant(*t)
}
