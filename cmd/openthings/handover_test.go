// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"os"

	"github.com/rogpeppe/go-internal/testscript"
)

// readme FOLDER does in the folder what the sh blocks of its README.md say.
func readme(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: readme FOLDER")
	}
	blocks, err := shellBlocks(ts.ReadFile(args[0] + "/README.md"))
	ts.Check(err)
	if len(blocks) == 0 {
		ts.Fatalf("%s/README.md has no commands", args[0])
	}
	script := "set -eu -o pipefail\ncd " + args[0] + "\n"
	for _, b := range blocks {
		script += b.text
	}
	ts.Check(os.WriteFile(ts.MkAbs("readme.sh"), []byte(script), 0o600))
	ts.Check(ts.Exec("bash", "readme.sh"))
}
