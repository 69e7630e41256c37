#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/rig/image.sh OUT - makes what an emulated host boots: OUT/vmlinux, OUT/initrd, OUT/kernel (with modules).
#
# What      Debian's stock kernel (linux-image-amd64), downloaded and unpacked, not installed; an initrd of busybox,
#           the modules that reach this machine's root over 9p, and tests/rig/init.
# Why       vmlinux, not vmlinuz: a kernel unpacked here, once, saves each emulated start some seconds.
set -eu

out=$1
here=$(dirname "$0")
meta=linux-image-amd64
modules="virtio_pci 9pnet_virtio 9p overlay virtio_console"
# Hosts without screens, sound and radio: most of the package's bytes.
unwanted="drivers/gpu drivers/media drivers/net/wireless drivers/net/ethernet drivers/scsi drivers/iio drivers/staging
	drivers/hid drivers/usb drivers/input drivers/mtd drivers/isdn drivers/video sound net/bluetooth net/mac80211"

fail() {
	echo "rig/image: $*" >&2
	exit 1
}

. "$here/../guest/kernel.sh"

# A bzImage carries the kernel compressed: where is in its header (boot protocol 2.08, payload_offset, payload_length).
kernel_unpack() {
	python3 - "$1" "$2" <<'END'
import lzma, struct, sys
image = open(sys.argv[1], "rb").read()
sectors = image[0x1f1] or 4
offset, length = struct.unpack_from("<II", image, 0x248)
start = (sectors + 1) * 512 + offset
with open(sys.argv[2], "wb") as out:  # the last four bytes are the length, for those who unpack in place
    out.write(lzma.decompress(image[start : start + length - 4]))
END
}

mkdir -p "$out"
for folder in $unwanted; do
	echo "./lib/modules/*/kernel/$folder"
done >"$out/unwanted"
kernel_fetch $meta "$out" -X "$out/unwanted" ./boot ./lib/modules
version=$(basename "$out"/kernel/lib/modules/*)
depmod -b "$out/kernel" "$version" 2>/dev/null || fail "depmod failed for $version"

root=$out/root
rm -rf "$root"
mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/sys"
cp /bin/busybox "$root/bin/busybox"
modules_install "$out/kernel" "$root" $modules
cp "$here/init" "$root/init"
chmod 755 "$root/init"

kernel_unpack "$out/kernel/boot/vmlinuz-$version" "$out/vmlinux.tmp"
mv "$out/vmlinux.tmp" "$out/vmlinux"
cpio_make "$root" >"$out/initrd.tmp"
mv "$out/initrd.tmp" "$out/initrd"
echo "  RIG   $version: $out/vmlinux ($(($(stat -c %s "$out/vmlinux") >> 10)) KiB)," \
	"$out/initrd ($(($(stat -c %s "$out/initrd") >> 10)) KiB)"
