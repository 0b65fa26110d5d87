// SPDX-License-Identifier: AGPL-3.0-only

package record

import "regexp"

// kernelName is the Linux kernel in sbom.SpaceKernel.
const kernelName = "linux"

// kernelRelease is the part of a kernel's version that kernel.org gave it; what follows is the builder's ("-v7l+",
// "-yocto-standard", "+git0+abc").
var kernelRelease = regexp.MustCompile(`^[vV]?[0-9]+(\.[0-9]+)+([-_+]?rc[0-9]+)?`)

func kernelVersion(text string) string {
	if base := kernelRelease.FindString(text); base != "" && !isCommit(text) {
		return base
	}
	return text
}
