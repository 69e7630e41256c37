#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/stress/slip.sh BUILD-DIR SLIP PROGRAM OBJECT... - links PROGRAM with a memory that is wrong on purpose.
#
# What      Takes SLIP from tests/stress/slips.txt or tests/mutants/mutants.txt (files of dsm/core), applies it to a copy,
#           compiles that one file and links the objects with it and with everything else as it was built.
# Needs     $CC, $LDLIBS.   Exit  0 done; 1 there is no such slip, or it does not change its file or compile.
set -eu
out=$1 slip=$2 program=$3
shift 3
line=$(cat tests/stress/slips.txt tests/mutants/mutants.txt | grep "^$slip[[:space:]]*|") || {
	echo "no slip $slip" >&2
	exit 1
}
file=$(echo "$line" | cut -d'|' -f2 | tr -d '[:space:]')
expr=$(echo "$line" | cut -d'|' -f3- | sed 's/^ //')
case $file in */*) ;; *) file=dsm/core/$file ;; esac
lib=$(dirname "$file" | tr / -).a
work=$program.slip
rm -rf "$work"
mkdir -p "$work/lib"

# Beside its headers, which it includes by path from the top.
sed "$expr" "$file" >"$work/slip.c"
if cmp -s "$file" "$work/slip.c"; then
	echo "$slip changes nothing in $file" >&2
	exit 1
fi
cp "$out"/lib/*.a "$work/lib/"
object=$work/$(basename "$file" .c).o
$CC -std=gnu11 -O2 -g -w -D_GNU_SOURCE -Iinclude -I. -pthread -c "$work/slip.c" -o "$object"
ar r "$work/lib/$lib" "$object"
$CC -pthread -o "$program" "$@" -Wl,--start-group "$work"/lib/*.a -Wl,--end-group $LDLIBS
rm -rf "$work"
