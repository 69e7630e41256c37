#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/system/run.sh [PATTERN...] - whole machines: payloads, the Linux guest, kills; see cases.py.
exec python3 -B "$(dirname "$0")/cases.py" "$@"
