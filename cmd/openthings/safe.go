// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/update"
	"github.com/openthings-platform/openthings/vuln"
)

func vulnSafeCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "safe PRODUCT", Short: "The lowest safe security version of each hardware revision, and why it is not lower", Args: cobra.ExactArgs(1),
		Long: "The lowest safe security version of each hardware revision: nothing published at or above it is known to be exploited. A release\n" +
			"below it is deployed only if a person says why. The answer with --json is what openthings sign release --floors reads offline.",
		Example: `  openthings vuln safe prd_… --json > floors.json`,
		RunE: func(c *cobra.Command, args []string) error {
			return read(c, r, "/v1/products/"+url.PathEscape(args[0])+"/safe-versions", func(w io.Writer, p api.Page[vuln.SafeVersion]) error {
				rows := [][]string{{"HARDWARE", "SAFE FROM", "RELEASE", "CLEAN FROM", "RELEASE", "BECAUSE"}}
				for _, x := range p.Items {
					because := strings.Join(x.Safe.Because, "; ")
					if because == "" {
						because = strings.Join(x.Clean.Because, "; ")
					}
					rows = append(rows, []string{x.HW, fmt.Sprint(x.Safe.SecurityVersion), releaseOfFloor(x.Safe), fmt.Sprint(x.Clean.SecurityVersion), releaseOfFloor(x.Clean), because})
				}
				return table(w, rows)
			})
		},
	}
}

func releaseOfFloor(f vuln.Floor) string {
	switch {
	case f.Release == "":
		return "none yet"
	case !f.Firm:
		return f.Version + " (signed lower: devices may go back)"
	}
	return f.Version
}

// readFloors reads the floors of a file that openthings vuln safe PRODUCT --json wrote.
func readFloors(path string) (map[string]update.SignFloor, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, problem.Invalid("the floors cannot be read").At("--floors").Because(err)
	}
	var p api.Page[vuln.SafeVersion]
	if err := json.Unmarshal(b, &p); err != nil || len(p.Items) == 0 {
		return nil, problem.Invalid("%s holds no floors", path).At("--floors").Because(err).Hint("openthings vuln safe PRODUCT --json writes them")
	}
	out := map[string]update.SignFloor{}
	for _, x := range p.Items {
		if x.HW == "" || x.Safe.SecurityVersion < 0 {
			return nil, problem.Invalid("%s holds no floors", path).At("--floors").Because(errors.New("an entry names no hardware"))
		}
		out[x.HW] = update.SignFloor{SecurityVersion: x.Safe.SecurityVersion, Because: strings.Join(x.Safe.Because, "; ")}
	}
	return out, nil
}
