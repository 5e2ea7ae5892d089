#!/bin/sh
# Puts a real prometheus and promtool into FOLDER for the tests that run them, out of Debian's package: unpacked, not
# installed. Where there is no apt, those tests skip and say so.
set -eu
if command -v promtool >/dev/null && command -v prometheus >/dev/null; then exit 0; fi
if ! command -v apt-get >/dev/null; then
  echo "no apt-get here: the tests that need a real Prometheus will skip" >&2
  exit 0
fi
mkdir -p "$1"
cd "$1"
if ! apt-get download -qq prometheus 2>/dev/null && ! { apt-get update -qq && apt-get download -qq prometheus; }; then
  echo "Debian's prometheus package could not be had: the tests that need it will skip" >&2
  exit 0
fi
dpkg -x prometheus_*.deb .
rm prometheus_*.deb
