#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/stress/run.sh UNUM-STRESS - unum-stress on every built transport, and bounded memory.
#
# What      On every transport mixed work without and with a small cache, and with faults resolved by others.  On two of
#           them few pages and many threads, a node that leaves and dies or comes back, and a
#           region larger than any node from one thread and from all.
set -u
stress=$1
passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT INT TERM

run() { # arguments of unum-stress
	echo "-- unum-stress $*"
	if timeout 300 "$stress" "$@"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "  FAIL  unum-stress $*"
	fi
}

if ! "$stress" --can; then
	echo "  SKIP  this host lends no userfaultfd (or it cannot do what dsm/map_uffd.c needs)"
	echo "0 passed, 0 failed, 1 skipped"
	exit 0
fi
# Every backend of the tree is built; those without their library or device here are skipped.
transports=$("$stress" --transports 2>"$log")
grep SKIP "$log"
skipped=$(grep -c SKIP "$log")
for transport in $transports; do
	run --transport "$transport" --nodes 4 --seconds 6 --seed 1
	run --transport "$transport" --nodes 4 --seconds 4 --seed 2 --cache 128KiB
	run --transport "$transport" --nodes 3 --seconds 3 --seed 3 --faults dispatch
done
for transport in tcp shm; do
	run --transport "$transport" --nodes 2 --threads 4 --seconds 3 --seed 4 --region 256KiB --cache 64KiB
	run --transport "$transport" --nodes 3 --seconds 4 --seed 5 --chaos 11
	run --transport "$transport" --nodes 4 --seconds 3 --seed 6 --drain 2@1
	run --transport "$transport" --nodes 3 --seconds 4 --seed 7 --cache 128KiB --chaos 12 --drain 1@1 --join 2
	run --transport "$transport" --bound one --nodes 4 --share 8MiB --cache 2MiB
	run --transport "$transport" --bound all --nodes 4 --share 4MiB --cache 1MiB
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
