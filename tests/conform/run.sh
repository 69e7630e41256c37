#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Runs the conformance suites over every built backend: run.sh short|long FABRIC_CONFORM DSM_NODES
# userfaultfd may be forbidden here; then the uffd runs are skipped by name.
set -u
length=$1 fabric=$2 nodes=$3
failed=0 ran=0 skipped=0

one() {
	if timeout 120 "$@"; then
		ran=$((ran + 1))
	else
		echo "FAILED: $*"
		failed=$((failed + 1))
	fi
}

mappings="tlb uffd"
if ! timeout 20 "$nodes" probe-uffd; then
	echo "skipped: dsm_nodes uffd: this host lends no userfaultfd (or lacks UFFDIO_CONTINUE_MODE_WP)"
	skipped=1
	mappings=tlb
fi
for backend in $("$fabric" list); do
	one "$fabric" "$backend"
	for mapping in $mappings; do
		if [ "$length" = short ]; then
			one "$nodes" "$mapping" "$backend" 2 2 5000 1
			one "$nodes" "$mapping" "$backend" 3 2 3000 2
			one "$nodes" "$mapping" "$backend" 2 2 2000 3 0 16
		else
			for seed in 1 2 3; do
				one "$nodes" "$mapping" "$backend" 2 2 20000 "$seed"
				one "$nodes" "$mapping" "$backend" 3 2 10000 "$seed"
				one "$nodes" "$mapping" "$backend" 5 1 4000 "$seed"
				one "$nodes" "$mapping" "$backend" 3 2 5000 "$seed" 0 16
				one "$nodes" "$mapping" "$backend" 2 2 500 "$seed" 100000
			done
		fi
	done
done
echo "conform: $ran ran, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
