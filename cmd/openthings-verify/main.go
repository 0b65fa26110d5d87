// SPDX-License-Identifier: Apache-2.0

// Command openthings-verify checks an evidence bundle with no server and no network.
package main

import (
	"os"

	"github.com/openthings-platform/openthings/evidence/verify"
)

func main() {
	os.Exit(verify.Run("openthings-verify", os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
