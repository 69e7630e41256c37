#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/lint/layers.sh - who may include whom (docs/architecture.md, "Layers").
#
#   any core/         base, own core, types of its own public headers; of the C library only what needs no system
#                     (purity.sh checks what the object files really call)
#   interconnect      base, own core
#   cluster-config    base, own core, interconnect
#   dsm               base, own core, interconnect
#   vcpu-migrate      base, own core, interconnect
#   hv                base, own core, and the public headers of all the others
#
# A public header is one in include/.  A program (*_main.c) may include the public headers of all components.
# Nobody includes another component's private header, whatever the layer.
set -u

grep -n '^[[:space:]]*#[[:space:]]*include[[:space:]]' -r hv dsm vcpu-migrate interconnect cluster-config include \
	--include='*.[chS]' 2>/dev/null | awk '
	BEGIN {
		may["interconnect"] = "base"
		may["cluster-config"] = "base interconnect"
		may["dsm"] = "base interconnect"
		may["vcpu-migrate"] = "base interconnect"
		may["hv"] = "base interconnect cluster-config dsm vcpu-migrate"
		all = "base interconnect cluster-config dsm vcpu-migrate hv"
		pure = "stdio.h stdbool.h stddef.h stdint.h stdatomic.h stdarg.h string.h limits.h inttypes.h"
	}
	function has(list, word) { return index(" " list " ", " " word " ") > 0 }
	function bad(why) { print place ": includes " what ": " why; wrong++ }
	function exists(path) { if ((getline line < path) < 0) return 0; close(path); return 1 }
	{
		split($0, part, ":")
		file = part[1]
		place = file ":" part[2]
		text = substr($0, length(place) + 2)
		if (!match(text, /["<][^">]*[">]/))
			next
		what = substr(text, RSTART, RLENGTH)
		path = substr(what, 2, length(what) - 2)
		n = split(file, dir, "/")
		comp = dir[1] == "include" ? dir[2] : dir[1]
		core = dir[1] != "include" && dir[2] == "core"
		if (substr(what, 1, 1) == "<") {
			if (core && !has(pure, path))
				bad("a core is pure")
			next
		}
		split(path, to, "/")
		if (comp == "base") {
			if (to[1] != "base")
				bad("base stands alone")
		} else if (core) {
			if (to[1] != "base" && !(to[1] == comp && (to[2] == "core" || exists("include/" path))))
				bad("a core includes base, its own core and its own public headers only")
		} else if (to[1] == comp) {
			if (dir[1] == "include" && !exists("include/" path))
				bad("a public header includes public headers only")
		} else if (!has(all, to[1])) {
			bad("not a component; write the path from the top of the tree")
		} else if (!has(may[comp], to[1]) && file !~ /_main\.c$/) {
			bad(comp " may include " may[comp] " only")
		} else if (to[1] != "base" && !exists("include/" path)) {
			bad("private header of another component")
		}
	}
	END { exit wrong > 0 }'
