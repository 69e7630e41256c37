# SPDX-License-Identifier: Apache-2.0
#
# tests/guest/kernel.sh - sourced: kernels and their modules from Debian's packages, for guests and emulated hosts.
#
# What      kernel_fetch META OUT [TAR-OPTION...]: OUT/kernel is the newest kernel that META depends on.
#           module_files KERNEL MODULE: its file and those it needs, in the order to load them.
#           modules_install KERNEL ROOT MODULE...: these and what they need, unpacked, ROOT/lib/modules/order.
# Needs     apt-get for downloads into OUT/deb; a function fail.

kernel_package() {
	apt-cache depends "$1" 2>/dev/null |
		awk '$1 == "Depends:" && $2 ~ /^linux-image-[0-9]/ { print $2; exit }'
}

kernel_fetch() {
	local meta=$1 out=$2 package
	shift 2
	# apt-cache answers from the package lists; a machine that never had any needs them once.
	package=$(kernel_package "$meta")
	if [ -z "$package" ]; then
		if [ "$(id -u)" = 0 ]; then apt-get update -q; else sudo apt-get update -q; fi
		package=$(kernel_package "$meta")
	fi
	[ -n "$package" ] || fail "apt knows no $meta"
	mkdir -p "$out/deb"
	if ! ls "$out/deb/${package}_"*.deb >/dev/null 2>&1; then
		echo "  FETCH $package"
		(cd "$out/deb" && apt-get download -q -o APT::Sandbox::User=root "$package" >/dev/null) ||
			fail "apt-get could not download $package (apt-get update may be needed)"
	fi
	rm -rf "$out/kernel.tmp" "$out/kernel"
	mkdir -p "$out/kernel.tmp"
	dpkg-deb --fsys-tarfile "$out/deb/${package}_"*.deb | tar -x -C "$out/kernel.tmp" "$@"
	mv "$out/kernel.tmp" "$out/kernel"
}

module_files() {
	local kernel=$1 name file dep
	name=$(echo "$2" | tr _- '??')
	file=$(find "$kernel/lib/modules" -name "$name.ko*" | head -1)
	[ -n "$file" ] || fail "the kernel package has no module $2"
	for dep in $(modinfo -F depends "$file" | tr , ' '); do
		module_files "$kernel" "$dep"
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

modules_install() {
	local kernel=$1 root=$2 module file name
	shift 2
	mkdir -p "$root/lib/modules"
	for module in "$@"; do
		module_files "$kernel" "$module"
	done | awk '!seen[$0]++' | while read -r file; do
		name=$(basename "$file" | sed 's/\.ko.*/.ko/')
		module_copy "$file" "$root/lib/modules/$name"
		echo "/lib/modules/$name" >>"$root/lib/modules/order"
	done
}

# A file of names and bytes that depends on its content alone.
cpio_make() {
	find "$1" -exec touch -h -d @0 {} +
	(cd "$1" && find . | sort | cpio --quiet --reproducible -o -H newc -R 0:0)
}
