#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-only
# Installs what the named group needs from Debian, if it is absent: as root, through sudo, or says in one sentence what is missing.
#   scripts/deps.sh build   npm, which fetches the browser libraries
#   scripts/deps.sh test    the above, a C compiler for the race detector, and the real peers of the tests
set -eu

missing=""
need() { # need PACKAGE COMMANDS-OR-FILES: one of them is enough
	for c in $2; do
		if command -v "$c" >/dev/null 2>&1 || [ -e "$c" ]; then return; fi
	done
	missing="$missing $1"
}

need make make
need npm npm
if [ "${1:-build}" = test ]; then
	need gcc gcc
	need libc6-dev /usr/include/stdio.h
	need postgresql "/usr/lib/postgresql/*/bin/postgres"
	need mosquitto "mosquitto /usr/sbin/mosquitto"
	need mosquitto-clients mosquitto_pub
	need libcoap3-bin coap-client-openssl
	need strace strace
	need chromium chromium
	need nodejs node
	need prometheus prometheus
	need rpm rpm
	need curl curl
	need jq jq
	need openssl openssl
	need swtpm swtpm
	need swtpm-tools swtpm_setup
	need gnutls-bin certtool
	need gnupg gpg
	need unzip unzip
	need softhsm2 softhsm2-util
	need rsyslog "rsyslogd /usr/sbin/rsyslogd"
	need rsyslog-openssl "/usr/lib/*/rsyslog/lmnsd_ossl.so"
	need ca-certificates /usr/sbin/update-ca-certificates
fi
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
	run=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
	run="sudo"
else
	echo "These Debian packages are absent and can be installed by root only:$missing" >&2
	exit 1
fi
echo "installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# No service is started by the packages: the tests start their own on free loopback ports.
if [ ! -e /usr/sbin/policy-rc.d ]; then
	printf '#!/bin/sh\nexit 101\n' | $run tee /usr/sbin/policy-rc.d >/dev/null
	$run chmod 755 /usr/sbin/policy-rc.d
	trap '$run rm -f /usr/sbin/policy-rc.d' EXIT
fi
$run apt-get update -qq
# shellcheck disable=SC2086
$run apt-get install -y -qq --no-install-recommends $missing >&2
