#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-only
# Builds the demo's two firmware images. They are real programs with pinned dependencies of their own, so that the bills
# of materials which the demo reads from their build information are those of real builds.
set -eu
cd "$(dirname "$0")/.."
mkdir -p demo/assets
for dir in demo/firmware/v*; do
	version=${dir##*/v}
	(cd "$dir" && CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -trimpath -ldflags "-s -w -buildid=" -o "../../assets/lamp-$version" .)
done
