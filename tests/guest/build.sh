#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/guest/build.sh OUT - makes OUT/vmlinuz and OUT/initrd from unmodified Debian packages.
#
# What      The kernel is the newest linux-image-cloud-amd64 of the machine's apt sources, downloaded and unpacked,
#           not installed. The initrd is a cpio of Debian binaries of this machine (busybox-static, pigz, stress-ng)
#           with just the shared libraries they load, the virtio modules of that same kernel package, our init and two
#           small test programs that OUT/bin already holds.
# Why       The cpio is not compressed: unpacking costs guest CPU time on every boot, loading it costs a host copy.
set -eu

out=$1
here=$(dirname "$0")
modules="virtio_mmio virtio_console virtio_blk virtio-rng"
programs="/usr/bin/pigz /usr/bin/stress-ng"
applets="sh [ awk cat cmp cttyhack cut date dd dmesg echo env false free grep head hexdump insmod kill
	ln ls lsmod mkdir mknod mount mv nproc poweroff ps reboot rm sed seq setsid sha256sum sleep sort
	stat sync tail tee test time timeout touch tr true umount uname uptime vi wc"

fail() {
	echo "guest/build: $*" >&2
	exit 1
}

kernel_fetch() {
	# apt-cache answers from the package lists; a machine that never had any needs them once.
	package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
		awk '$1 == "Depends:" && $2 ~ /^linux-image-[0-9]/ { print $2; exit }')
	if [ -z "$package" ]; then
		if [ "$(id -u)" = 0 ]; then apt-get update -q; else sudo apt-get update -q; fi
		package=$(apt-cache depends linux-image-cloud-amd64 |
			awk '$1 == "Depends:" && $2 ~ /^linux-image-[0-9]/ { print $2; exit }')
	fi
	[ -n "$package" ] || fail "apt knows no linux-image-cloud-amd64"
	mkdir -p "$out/deb"
	if ! ls "$out/deb/${package}_"*.deb >/dev/null 2>&1; then
		echo "  FETCH $package"
		(cd "$out/deb" && apt-get download -q -o APT::Sandbox::User=root "$package" >/dev/null) ||
			fail "apt-get could not download $package (apt-get update may be needed)"
	fi
	rm -rf "$out/kernel.tmp" "$out/kernel"
	dpkg-deb -x "$out/deb/${package}_"*.deb "$out/kernel.tmp"
	mv "$out/kernel.tmp" "$out/kernel"
}

# Prints the files of a module and of everything it needs, dependencies first.
module_files() {
	local name file dep
	name=$(echo "$1" | tr _- '??')
	file=$(find "$out/kernel/lib/modules" -name "$name.ko*" | head -1)
	[ -n "$file" ] || fail "the kernel package has no module $1"
	for dep in $(modinfo -F depends "$file" | tr , ' '); do
		module_files "$dep"
	done
	echo "$file"
}

module_copy() {
	case $1 in
	*.xz) xz -dc "$1" >"$2" ;;
	*.zst) zstd -qdc "$1" >"$2" ;;
	*) cp "$1" "$2" ;;
	esac
}

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
	for module in $modules; do
		module_files "$module"
	done | awk '!seen[$0]++' | while read -r file; do
		name=$(basename "$file" | sed 's/\.ko.*/.ko/')
		module_copy "$file" "$root/lib/modules/$name"
		echo "/lib/modules/$name" >>"$root/lib/modules/order"
	done
	cp "$out/bin/tscpass" "$out/bin/work" "$root/bin/"
	cp "$here/init" "$root/init"
	chmod 755 "$root/init"
	find "$root" -exec touch -h -d @0 {} +
}

file "$(command -v busybox)" 2>/dev/null | grep -q 'dynamically' && fail "busybox must be busybox-static"
kernel_fetch
tree_make
cp "$out"/kernel/boot/vmlinuz-* "$out/vmlinuz.tmp"
mv "$out/vmlinuz.tmp" "$out/vmlinuz"
(cd "$out/root" && find . | sort | cpio --quiet --reproducible -o -H newc -R 0:0) >"$out/initrd.tmp"
mv "$out/initrd.tmp" "$out/initrd"
echo "  GUEST $out/vmlinuz ($(($(stat -c %s "$out/vmlinuz") >> 10)) KiB)," \
	"$out/initrd ($(($(stat -c %s "$out/initrd") >> 10)) KiB)"
