#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/system/demo.sh [--shell] - one guest on two nodes, with the job or with a shell; see demo.py.
exec python3 -B "$(dirname "$0")/demo.py" "$@"
