#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/rig/intel/image.sh OUT META BIN GUEST PAYLOADS STEPS MIB HZ - makes OUT/disk.img; the emulated Intel host starts from it.
#
# What      Debian's stock kernel META for the host (downloaded, not installed) and an initrd: busybox, the KVM modules, the
#           programs in BIN with their libraries, the guest's unmodified kernel GUEST/vmlinuz, a guest initrd that is OUT/job
#           alone, the bare guest PAYLOADS/lock.elf, and the shell script STEPS.
# HZ        Of the host's TSC, see run.py.
# Why       One disk with a small initrd: every byte passes through an emulated CPU.
set -eu

out=$1 meta=$2 bin=$3 guest=$4 payloads=$5 steps=$6 memory_mib=$7 hz=$8
here=$(dirname "$0")
# Known or harmful: the calibration loops, address randomisation (disk.py puts the kernel where it was linked for),
# self-tests, MWAIT and deep idle states of an emulated CPU.
cmdline="console=ttyS0,115200 quiet nokaslr mitigations=off audit=0 nowatchdog no_timer_check tsc=reliable
	tsc_early_khz=$((hz / 1000)) cryptomgr.notests random.trust_cpu=on panic=-1 idle=halt"

fail() {
	echo "rig/intel: $*" >&2
	exit 1
}

. "$here/../../guest/kernel.sh"

root=$out/root
host=$out/$meta
mkdir -p "$host"
if ! ls -d "$host"/kernel/lib/modules/* >/dev/null 2>&1; then
	kernel_fetch "$meta" "$host" --wildcards './boot/vmlinuz-*' './lib/modules/*/kernel/arch/x86/kvm/*' \
		'./lib/modules/*/kernel/virt/*'
fi
rm -rf "$root" "$out/guest"
mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/sys" "$root/unum" "$out/guest"
cp /bin/busybox "$root/bin/busybox"
modules_install "$host/kernel" "$root" kvm-intel
for program in unum unumd unum-slice; do
	cp "$bin/$program" "$root/unum/"
	strip "$root/unum/$program"
	ldd "$bin/$program" | awk '$2 == "=>" { print $3 } $1 ~ /^\// { print $1 }'
done | sort -u | while read -r library; do
	mkdir -p "$root$(dirname "$library")"
	cp -L "$library" "$root$library"
done
cp "$guest/vmlinuz" "$root/unum/vmlinuz"
cp "$out/job" "$out/guest/init"
cpio_make "$out/guest" >"$root/unum/initrd"
cp "$payloads/lock.elf" "$root/unum/"
cp "$steps" "$root/steps"
cp "$here/init" "$root/init"
chmod 755 "$root/init"
cpio_make "$root" >"$out/initrd"

gcc -c -nostdlib "$here/boot.S" -o "$out/boot.o"
ld -Ttext 0x7c00 --oformat binary -e start -o "$out/boot.bin" "$out/boot.o"
python3 "$here/disk.py" "$out/boot.bin" "$host"/kernel/boot/vmlinuz-* "$out/initrd" $memory_mib "$(echo $cmdline)" "$out/disk.img"
echo "  RIG   $(basename "$host"/kernel/lib/modules/*): $out/disk.img ($(($(stat -c %s "$out/disk.img") >> 20)) MiB)"
