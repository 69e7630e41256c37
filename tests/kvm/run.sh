#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/kvm/run.sh [PATTERN...] - the kvm engine on this machine's /dev/kvm; see native.py.
exec python3 -B "$(dirname "$0")/native.py" "$@"
