#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/lint/sizes.sh - files of at most 600 lines, functions of at most 80; exceptions in sizes.allow.
#
# A function runs from a line "{" to a line "}" in column one (the kernel's brace style).
set -u

find hv dsm vcpu-migrate interconnect cluster-config include tests -name '*.[chS]' 2>/dev/null | sort |
	xargs awk -v allow=tests/lint/sizes.allow '
	BEGIN {
		while ((getline line < allow) > 0) {
			n = split(line, f, " ")
			if (n < 2 || line ~ /^#/)
				continue
			limit[n == 3 ? f[1] " " f[2] : f[1]] = f[n]
		}
	}
	function check(what, lines, standard, where) {
		if (what in limit) {
			used[what] = 1
			if (lines > limit[what])
				bad(where ": " what " has grown to " lines " lines, " limit[what] " were allowed")
			else if (lines <= standard)
				bad(allow ": " what " has " lines " lines: take it off the list")
		} else if (lines > standard) {
			bad(where ": " what " has " lines " lines, more than " standard)
		}
	}
	function bad(text) { print text; wrong++ }
	function file_end() { if (file != "") check(file, lines, 600, file) }
	FNR == 1 { file_end(); file = FILENAME; name = "" }
	{ lines = FNR }
	/^[A-Za-z_].*\(/ && !/;[[:space:]]*$/ { name = $0; sub(/\(.*/, "", name); sub(/.*[ *]/, "", name); said = FNR }
	/^\{/ { start = FNR }
	/^\}[[:space:]]*$/ && start { check(file " " name, FNR - start + 1, 80, file ":" said); start = 0 }
	END {
		file_end()
		for (w in limit)
			if (!(w in used))
				bad(allow ": there is no " w)
		exit wrong > 0
	}'
