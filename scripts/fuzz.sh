#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-only
# Runs every fuzz target of the tree for the given time each, and names those that failed at the end.
set -u
time=${1:-20s}
failed=""
for file in $(grep -rl --include='*_test.go' '^func Fuzz' . | sort); do
	dir=$(dirname "$file")
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		echo "$dir $target"
		(cd "$dir" && go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" .) || # a folder may be a module of its own
			 failed="$failed $dir:$target"
	done
done
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
