#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/payloads/qemu.sh OUT - runs the payloads under QEMU's own CPU emulation: the reference for our engines.
#
# Each line below: payload, file kind, machine, command line, further options.  What QEMU 7.2 gets wrong is named
# there and left out:
#   smc          one thread: with several, code that another CPU changes may stay stale for ever
#   pagetables   reserved=0: the error code of a reserved bit lacks P
#   modes        strict=0: no reserved-bit checks, no #XM, no segment limits, doubled IDT index in error codes
#   absent       absent memory reads as 0 and absent MSRs as 0, so it does not run at all
set -u

out=${1:-build/payloads}
passed=0
failed=0

run() { # name kind machine cmdline qemu-options...
	name=$1 file=$out/$1.$2 machine=$3 words=$4
	shift 4
	log=$(timeout 120 qemu-system-x86_64 -M "$machine" -cpu max,la57=off -smp 4 -m 256M -nodefaults -display none \
		-no-reboot -serial stdio -kernel "$file" -append "$words" "$@" </dev/null 2>&1)
	if echo "$log" | grep -q "^PAYLOAD $name: PASS"; then
		passed=$((passed + 1))
		echo "  ok    $name ($machine)"
	else
		failed=$((failed + 1))
		echo "  FAIL  $name ($machine)"
		echo "$log" | tail -5
	fi
}

virtio="-global virtio-mmio.force-legacy=false -device virtio-serial-device -device virtio-rng-device"
run hello elf pc "some words expect_modules=1 expect_cpus=4" -initrd "$out/hello.elf"
run hello pvh pc "some words expect_modules=1 expect_cpus=4" -initrd "$out/hello.elf"
run ipi elf pc ""
run lock elf pc ""
run cross elf pc ""
run pagetables elf pc "reserved=0"
run modes elf pc "strict=0"
run tsc elf pc "rounds=100"
run timer elf pc ""
run irq elf pc ""
run regs elf pc "seconds=1"
run ticks elf pc "seconds=1"
run ipis elf pc "seconds=1"
run spin elf pc "seconds=1"
run smc elf pc "rounds=100" -accel tcg,thread=single
run mmio pvh microvm,acpi=on "slots=2" $virtio
echo "  SKIP  absent: QEMU answers 0"
echo "$passed passed, $failed failed, 1 skipped"
[ "$failed" = 0 ]
