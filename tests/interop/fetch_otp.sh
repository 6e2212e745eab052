#!/bin/sh
# Fetches the releases of Erlang/OTP that newer Debian suites package, each into a folder with the
# libraries it needs: build/otp-27 from trixie, build/otp-29 from sid. Needs root, debootstrap and
# the network; what is there already is kept.
# Prints the folders on standard output, separated by ":"; all else goes to standard error.
set -eu
cd "$(dirname "$0")/../.."
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
suites=${*:-trixie sid}

say() { echo "$*" >&2; }

if [ "$(id -u)" != 0 ]; then
    say "make interop-all runs nodes in folders of their own (chroot): it needs root."
    exit 1
fi
if ! command -v debootstrap >/dev/null; then
    say "installing debootstrap"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q debootstrap >&2 </dev/null
fi

mkdir -p build
roots=
for suite in $suites; do
    link=build/debian-$suite
    if [ ! -e "$link" ]; then
        half=$PWD/build/.debian-$suite
        rm -rf "$half"
        say "fetching erlang-base of Debian $suite (two minutes or so)"
        if ! debootstrap --variant=minbase --include=erlang-base "$suite" "$half" "$mirror" \
            >"build/debootstrap-$suite.log" 2>&1 </dev/null; then
            tail -n 20 "build/debootstrap-$suite.log" "$half/debootstrap/debootstrap.log" >&2 || true
            exit 1
        fi
        rm -rf "$half/var/cache/apt" "$half/var/lib/apt/lists"
        cp /etc/hosts "$half/etc/hosts" # else localhost has no address there
        read -r _ release <"$half/usr/lib/erlang/releases/start_erl.data"
        rm -rf "build/otp-$release"
        mv "$half" "build/otp-$release"
        ln -s "otp-$release" "$link"
    fi
    root=$(readlink -f "$link")
    say "Debian $suite: Erlang/OTP ${root##*-}"
    roots=$roots${roots:+:}$root
done
echo "$roots"
