#!/bin/sh
# Installs what tastewave is run and tested with, where it is missing: on Debian and its kin, as root. Others are told
# what to install. `system.sh python` looks only at what .venv needs, `system.sh tests` also at what only tests run: the
# readers in other languages, Prometheus, and a browser.
set -eu

missing="" needs="venv"
need() {
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
if [ "${1:-}" != python ]; then
    needs="Redis 7, Java 17, Maven and venv"
    need redis-server redis-server
    need java default-jre-headless
    need mvn maven
    need setpriv util-linux
fi
"${PYTHON:-python3}" -c "import ensurepip" 2>/dev/null || missing="$missing python3-venv"
if [ "${1:-}" = tests ]; then
    needs="$needs, a JDK, Go, Node.js, Prometheus and Chromium"
    need javac default-jdk-headless
    need go golang-go
    need node nodejs
    need npm npm
    need promtool prometheus
    need chromium chromium
fi
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing$missing ..."
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086 # one word per package
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "tastewave needs $needs; install what is missing: sudo apt-get install$missing" >&2
    exit 1
fi
