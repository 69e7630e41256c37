#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/lint/purity.sh - what the built libraries need and hold.
#
#   cores     need nothing from outside but memory and string functions, ASSERT and their own library
#   all       hold no mutable globals; excepted are base (its log has a level and a name) and what purity.allow names
#
# Libraries that are not built are not looked at; `make check` builds them first.
set -u

lib=${B:-build${SAN:+-$SAN}}/lib
wrong=0

allowed='^(memcpy|memmove|memset|memcmp|strlen|strcmp|strncmp|strnlen|strchr|strrchr|memchr|snprintf|vsnprintf'
allowed="$allowed|__(u?div|u?mod|u?divmod|popcount|clz|ctz|mul|ashl|ashr|lshr)[dt]i[234]"
allowed="$allowed|assert_failed|__stack_chk_fail|__(mem|str|v?snprintf)[a-z]*_chk|__[a-z]*san_.*|_GLOBAL_OFFSET_TABLE_)\$"

for a in "$lib"/*-core.a; do
	[ -e "$a" ] || continue
	needs=$(nm -A "$a" | awk -v allowed="$allowed" '
		{ name = $NF; type = $(NF - 1) }
		type ~ /^[TRDBVWC]$/ { have[name] = 1 }
		type == "U" { split($1, part, ":"); need[name] = part[2] }
		END { for (n in need) if (!(n in have) && n !~ allowed) print need[n] " needs " n }')
	if [ -n "$needs" ]; then
		echo "$needs" | sed "s|^|$a: |; s|\$|: a core does no I/O, clock, thread or heap|"
		wrong=1
	fi
done

[ -n "${SAN:-}" ] && exit $wrong # sanitizers add data of their own
for a in "$lib"/*.a; do
	[ -e "$a" ] || continue
	[ "$(basename "$a")" = include-base.a ] && continue
	globals=$(objdump -t "$a" 2>/dev/null | awk '
		/^[^ ]+\.o:/ { object = $1 }
		$1 ~ /^[0-9a-f]+$/ && / O / && ($0 ~ /[ \t]\.(data|bss|tdata|tbss)(\.[A-Za-z_]+[.0-9A-Za-z_]*)?\t/ || / \*COM\*\t/) &&
			$0 !~ /\.data\.rel\.ro/ { print object " " $NF }')
	globals=$(echo "$globals" | grep -v -x -F -f tests/lint/purity.allow | grep .)
	if [ -n "$globals" ]; then
		echo "$globals" | sed "s|^|$a: |; s|\$|: mutable global|"
		wrong=1
	fi
done
exit $wrong
