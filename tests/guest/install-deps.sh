#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/guest/install-deps.sh [PACKAGE...] - installs the Debian packages that building and testing unum needs.
#
# PACKAGEs: for the one test that needs them.  Does nothing, quickly, when all of them are there.  Root or sudo
# is used for apt-get only, with the machine's own apt configuration.  Exit: 0 all there; 1 with one clear message
# when they cannot be had.
set -eu

build="gcc make binutils libc6-dev pkg-config python3 acpica-tools protobuf-c-compiler
	libzydis-dev libyaml-dev libprotobuf-c-dev libssl-dev zlib1g-dev liblzma-dev libzstd-dev
	liblz4-dev libjansson-dev libfabric-dev libibverbs-dev librdmacm-dev libucx-dev"
tests="libcriterion-dev busybox-static pigz stress-ng rt-tests qemu-system-x86 cpio kmod xz-utils zstd
	spin ibverbs-providers iproute2"

missing=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' $build $tests "$@" 2>/dev/null |
	awk -v all="$build $tests $*" '
		$1 == "ii" { there[$2] = 1 }
		END { n = split(all, p); for (i = 1; i <= n; i++) if (!(p[i] in there)) print p[i] }')
[ -n "$missing" ] || exit 0

missing=$(echo $missing)
if ! command -v apt-get >/dev/null; then
	echo "install-deps: no apt-get here; these Debian 12 packages are needed: $missing" >&2
	exit 1
fi
if [ "$(id -u)" = 0 ]; then
	as_root=
elif command -v sudo >/dev/null; then
	as_root=sudo
else
	echo "install-deps: run as root: apt-get install $missing" >&2
	exit 1
fi

echo "install-deps: installing $missing"
install() {
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
}
# The package lists may be absent or old on a fresh machine: refresh them once, then say why it failed.
if ! install >/dev/null 2>&1; then
	$as_root apt-get update -q || true
	if ! install; then
		echo "install-deps: apt-get could not install: $missing" >&2
		exit 1
	fi
fi
