#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/guest/build.sh OUT - makes OUT/vmlinuz and OUT/initrd from unmodified Debian packages.
#
# What      The kernel is the newest linux-image-cloud-amd64 of the machine's apt sources, downloaded and unpacked,
#           not installed. The initrd is a cpio of Debian binaries of this machine (busybox-static, pigz,
#           stress-ng, hackbench) with just the shared libraries they load, the virtio modules of that same kernel
#           package, our init and the small test programs that OUT/bin already holds.
# Why       The cpio is not compressed: unpacking costs guest CPU time on every boot, loading it costs a host copy.
set -eu

out=$1
here=$(dirname "$0")
modules="virtio_mmio virtio_console virtio_blk virtio-rng"
programs="/usr/bin/pigz /usr/bin/stress-ng /usr/bin/hackbench"
applets="sh [ awk cat cmp cttyhack cut date dd dmesg echo env false free grep head hexdump insmod kill
	ln ls lsmod mkdir mknod mount mv nproc poweroff ps reboot rm sed seq setsid sha256sum sleep sort
	stat sync tail tee test time timeout touch tr true umount uname uptime vi wc"

fail() {
	echo "guest/build: $*" >&2
	exit 1
}

. "$here/kernel.sh"

tree_make() {
	root=$out/root
	rm -rf "$root"
	mkdir -p "$root/bin" "$root/usr/bin" "$root/sbin" "$root/usr/sbin" "$root/dev" "$root/proc" \
		"$root/sys" "$root/tmp" "$root/lib/modules" "$root/lib64" "$root/etc"
	cp /bin/busybox "$root/bin/busybox"
	for applet in $applets; do
		ln -s busybox "$root/bin/$applet"
	done
	for program in $programs; do
		cp "$program" "$root$program"
		ldd "$program" | awk '$2 == "=>" { print $3 } $1 ~ /^\// { print $1 }'
	done | sort -u | while read -r library; do
		mkdir -p "$root$(dirname "$library")"
		cp -L "$library" "$root$library"
	done
	modules_install "$out/kernel" "$root" $modules
	cp "$out/bin/tscpass" "$out/bin/work" "$out/bin/clocks" "$root/bin/"
	cp "$here/init" "$root/init"
	chmod 755 "$root/init"
}

file "$(command -v busybox)" 2>/dev/null | grep -q 'dynamically' && fail "busybox must be busybox-static"
kernel_fetch linux-image-cloud-amd64 "$out"
tree_make
cp "$out"/kernel/boot/vmlinuz-* "$out/vmlinuz.tmp"
mv "$out/vmlinuz.tmp" "$out/vmlinuz"
cpio_make "$out/root" >"$out/initrd.tmp"
mv "$out/initrd.tmp" "$out/initrd"
echo "  GUEST $out/vmlinuz ($(($(stat -c %s "$out/vmlinuz") >> 10)) KiB)," \
	"$out/initrd ($(($(stat -c %s "$out/initrd") >> 10)) KiB)"
