#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-only
# Builds a release: each program for each platform, its bill of materials, SHA256SUMS over all of it, and a detached
# Ed25519 signature over SHA256SUMS. The same version and day of the same source give the same bytes, on any machine that
# has the same Go.
#   scripts/release.sh VERSION DAY KEY OUT      such as 1.4.0 2027-03-01 release.key release-1.4.0
# KEY is a private Ed25519 key in PEM (openssl genpkey -algorithm ed25519); it belongs on a machine without a network:
# without a KEY ("-") everything but the signature is made, and SHA256SUMS is carried to it.
# PROGRAMS and TARGETS narrow what is built; SELF is an openthings of this source that runs here, built if it is not given.
set -eu
[ $# -eq 4 ] || { echo "usage: scripts/release.sh VERSION DAY KEY OUT" >&2; exit 2; }
version=$1 day=$2 key=$3
mkdir -p "$4"
out=$(cd "$4" && pwd)
[ -z "$(ls -A "$out")" ] || { echo "release: $out is not empty" >&2; exit 1; }
case $key in -) ;; *) key=$(cd "$(dirname "$key")" && pwd)/$(basename "$key") ;; esac
cd "$(dirname "$0")/.."
programs=${PROGRAMS:-openthings openthings-agent openthings-verify}
targets=${TARGETS:-linux/amd64 linux/arm64}
self=${SELF:-}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# What the build must not depend on: settings of the machine, the state of the checkout, a C compiler.
export CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOWORK=off GOAMD64=v1 GOARM64=v8.0 GOTOOLCHAIN=local
build() { # build OUT PACKAGE
	go build -trimpath -ldflags "-s -w -buildid= -X $stamp.version=$version -X $stamp.published=$day" -o "$1" "$2"
}
stamp=$(go list -m)/conform/self
case " $programs " in *" openthings "*) scripts/firmware.sh ;; esac # the demo's images are inside, and must be of this Go
if [ -z "$self" ]; then
	self=$scratch/openthings
	build "$self" ./cmd/openthings
fi
"$self" self support --version "$version" --published "$day" >/dev/null # refuses what is no version or no day
for target in $targets; do
	for p in $programs; do
		file=$p-$version-$(echo "$target" | tr / -)
		GOOS=${target%/*} GOARCH=${target#*/} build "$out/$file" "./cmd/$p"
		"$self" self sbom --program "$out/$file" --version "$version" --published "$day" >"$out/$file.cdx.json"
	done
done
cp LICENSE SECURITY.md "$out/"
"$self" self eox --version "$version" --published "$day" >"$out/openeox.json"
(cd "$out" && LC_ALL=C && export LC_ALL && sha256sum -- * >"$scratch/SHA256SUMS" && mv "$scratch/SHA256SUMS" .)
[ "$key" = - ] || openssl pkeyutl -sign -rawin -inkey "$key" -in "$out/SHA256SUMS" -out "$out/SHA256SUMS.sig"
ls "$out"
