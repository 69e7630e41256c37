#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/lint/headers.sh - every header compiles alone: it includes what it needs.
set -u

gen=${B:-build${SAN:+-$SAN}}/gen
flags=$(pkg-config --cflags zydis libprotobuf-c openssl 2>/dev/null)
find include hv dsm vcpu-migrate interconnect cluster-config -name '*.h' -print0 2>/dev/null |
	xargs -0 -n 1 -P 4 gcc -std=gnu11 -D_GNU_SOURCE -Iinclude -I. -I"$gen" $flags -fsyntax-only -Wall -Wno-unused-function -x c
