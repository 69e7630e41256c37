#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/lint/spdx.sh - every source file says its licence in its first three lines.
set -u

wrong=0
for f in $(find . \( -name .git -o -name 'build' -o -name 'build-*' -o -name __pycache__ \) -prune -o -type f \( \
	-name '*.[chS]' -o -name '*.sh' -o -name '*.py' -o -name '*.mk' -o -name '*.ld' -o -name '*.asl' -o \
	-name '*.proto' -o -name '*.yaml' -o -name '*.pml' -o -name '*.allow' -o -name Makefile -o -path ./.ci/run -o \
	-path ./tests/guest/init \) -print); do
	# Inputs of tests are not sources.
	case $f in */golden/* | */corpus/* | */corpora/*) continue ;; esac
	read -r line <"$f" || line=
	case $line in *SPDX-License-Identifier:\ Apache-2.0*) continue ;; esac
	head -n 3 "$f" | grep -q 'SPDX-License-Identifier: Apache-2.0' && continue
	echo "$f: no SPDX-License-Identifier: Apache-2.0 in the first three lines"
	wrong=1
done
exit $wrong
