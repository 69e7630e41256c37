#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/conform/run.sh short|long FABRIC_CONFORM DSM_NODES - the suites that every backend and mapping must pass.
#
# short     The suites of tcp and shm, and a few runs of the memory over them.
# long      The suites of the backends that are plugins, and more and longer runs of the memory over all.
# Counts    Each case of a suite, each run of the memory.  userfaultfd may be forbidden here: those runs are skipped.
# verbs     Without a device, the fake libibverbs (tests/mock) stands in: "verbs (mock)".
set -u
length=$1 fabric=$2 nodes=$3
passed=0 failed=0 skipped=0
out=$(mktemp)
trap 'rm -f "$out"' EXIT INT TERM

suite() { # backend
	timeout 120 env ${library:+"LD_LIBRARY_PATH=$library"} "$fabric" "$1" >"$out" 2>&1
	status=$?
	cat "$out"
	passed=$((passed + $(grep -c '^  ok ' "$out")))
	skipped=$((skipped + $(grep -c '^  SKIP ' "$out")))
	[ $status = 0 ] || failed=$((failed + 1))
}

memory() { # mapping, backend, and the rest of dsm_nodes' arguments
	case " $forbidden " in
	*" $1 "*)
		skipped=$((skipped + 1))
		return
		;;
	esac
	if timeout 120 env ${library:+"LD_LIBRARY_PATH=$library"} "$nodes" "$@"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "  FAIL  dsm_nodes $*"
	fi
}

mappings="tlb uffd uffd-copy dispatch dispatch-copy"
forbidden=
for mapping in $mappings; do
	if ! timeout 20 "$nodes" probe "$mapping"; then
		forbidden="$forbidden $mapping"
		echo "  SKIP  dsm_nodes $mapping: this host lends no userfaultfd for it"
	fi
done
first=
for backend in $("$fabric" list); do
	library=
	case $length/$backend in
	short/tcp | short/shm) suites=yes ;;
	short/*) continue ;;
	*/tcp | */shm) suites= ;;
	*) suites=yes ;;
	esac
	timeout 20 "$fabric" "$backend" no-case >"$out" 2>&1
	if [ $? = 77 ]; then # no library or no device: the program says so
		grep SKIP "$out"
		skipped=$((skipped + 1))
		[ "$backend" = verbs ] || continue
		library=$(dirname "$fabric")/../mock
	fi
	first=${first:-$backend}
	[ -n "$suites" ] && suite "$backend"
	for mapping in $mappings; do
		if [ "$length" = short ]; then
			# The backend makes no difference to how a page is mapped: each mapping on one, two of them on all.
			case $mapping in
			tlb | uffd) ;;
			*)
				[ "$backend" = "$first" ] || continue
				memory "$mapping" "$backend" 2 2 2000 1
				memory "$mapping" "$backend" 3 2 500 2 0 16
				continue
				;;
			esac
			memory "$mapping" "$backend" 2 2 5000 1
			memory "$mapping" "$backend" 3 2 3000 2
			memory "$mapping" "$backend" 2 2 2000 3 0 16
			continue
		fi
		# Long: every mapping over the first backend, two over the others; unum-stress goes over all of them, too.
		case $backend/$mapping in
		"$first"/*) seeds="1 2" ;;
		shm/tlb | shm/uffd) seeds=1 ;;
		*/tlb | */uffd) seeds= ;;
		*) continue ;;
		esac
		for seed in $seeds; do
			memory "$mapping" "$backend" 2 2 20000 "$seed"
			memory "$mapping" "$backend" 3 2 10000 "$seed"
			memory "$mapping" "$backend" 5 1 4000 "$seed"
			memory "$mapping" "$backend" 3 2 5000 "$seed" 0 16
			memory "$mapping" "$backend" 2 2 500 "$seed" 100000
		done
		[ -n "$seeds" ] && continue
		memory "$mapping" "$backend" 3 2 5000 1
		memory "$mapping" "$backend" 3 2 3000 2 0 16
	done
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
