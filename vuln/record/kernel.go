// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// kernelName is the Linux kernel in sbom.SpaceKernel.
const kernelName = "linux"

// kernelRelease is the part of a kernel's version that kernel.org gave it; what follows is the builder's ("-v7l+",
// "-yocto-standard", "+git0+abc").
var kernelRelease = regexp.MustCompile(`^[vV]?[0-9]+(\.[0-9]+)+([-_+]?rc[0-9]+)?`)

func kernelVersion(text string) string {
	if isCommit(text) || strings.Trim(text, "0123456789.") == "" { // most of them
		return text
	}
	if base := kernelRelease.FindString(text); base != "" {
		return base
	}
	return text
}

// Unbuilt tells whether none of the source files of a fault went into a kernel, and why or why not in a sentence. It
// supports a proposal that a person accepts or not. Files and compiled are paths of the kernel's tree; tree holds all
// paths of the tree that was built, nil if nobody listed them.
//
// It says no whenever it cannot be sure: for headers, which no list of compiled files names; for what no compiler
// reads; and for a file that may be another one now: without a list of the tree, one of the same name compiled
// elsewhere; with it, one that the tree does not have.
func Unbuilt(files []string, compiled, tree map[string]bool) (bool, string) {
	if len(files) == 0 {
		return false, "the record names no source files"
	}
	if len(compiled) == 0 {
		return false, "no list of compiled files"
	}
	names := map[string]string{}
	for f := range compiled {
		if old, ok := names[path.Base(f)]; !ok || f < old {
			names[path.Base(f)] = f
		}
	}
	for _, f := range files {
		elsewhere, moved := names[path.Base(f)]
		switch {
		case !fs.ValidPath(f):
			return false, short(f) + " is not a path of the kernel's tree"
		case compiled[f]:
			return false, f + " was compiled"
		case !slices.Contains([]string{".c", ".S", ".rs"}, path.Ext(f)):
			return false, f + " is a file that no list of compiled files would name"
		case tree != nil && !tree[f]:
			return false, f + " is not in this kernel's tree: it may have another name there"
		case tree == nil && moved:
			return false, f + " was not compiled under this name, but " + elsewhere + " was: it may have moved"
		}
	}
	return true, "none of these was compiled: " + strings.Join(files, ", ")
}
