#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-only
# Fetches the browser libraries that package-lock.json pins by integrity hash, and puts what the console embeds into
# console/assets/vendor/. Does nothing when they are there already. axe-core stays in node_modules, for tests.
set -eu
cd "$(dirname "$0")/.."
vendor=console/assets/vendor
stamp=$vendor/.lock
if [ -f "$stamp" ] && cmp -s package-lock.json "$stamp" && [ -f node_modules/axe-core/axe.min.js ]; then
	exit 0
fi
command -v npm >/dev/null || { echo "assets: npm is absent; install it with: apt-get install npm" >&2; exit 1; }
npm ci --no-audit --no-fund --loglevel=error
mkdir -p "$vendor"
cp node_modules/htmx.org/dist/htmx.min.js node_modules/htmx.org/dist/ext/hx-sse.min.js \
	node_modules/uplot/dist/uPlot.iife.min.js node_modules/uplot/dist/uPlot.min.css "$vendor/"
cp node_modules/htmx.org/LICENSE "$vendor/htmx.LICENSE.txt"
cp node_modules/uplot/LICENSE "$vendor/uPlot.LICENSE.txt"
cp package-lock.json "$stamp"
