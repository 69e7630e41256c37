#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""disk.py BOOT VMLINUZ INITRD MIB CMDLINE OUT - makes the disk that boot.S (BOOT: its 512 bytes) starts Linux from.

The kernel is unpacked here, not by the emulated CPU: its ELF segments lie on the disk as they will lie in memory, at the
addresses of their headers (so: nokaslr), beside a ready boot_params page (e820 for MIB of RAM), command line and initrd."""
import struct
import subprocess
import sys

SECTOR = 512
CYLINDER = 16 * 63 * SECTOR
BOOT_PARAMS, CMDLINE = 0x90000, 0x91000
INITRD = 0x10000000
UNPACKERS = {b"\x28\xb5\x2f\xfd": ["zstd", "-dcq"], b"\xfd7zX": ["xz", "-dc", "--single-stream"], b"\x1f\x8b": ["gzip", "-dcq"]}


def kernel_unpack(image):
    setup_sectors = image[0x1f1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * SECTOR + offset
    payload = image[start:start + length - 4]  # the last four bytes are the unpacked size
    for magic, command in UNPACKERS.items():
        if payload.startswith(magic):
            return subprocess.run(command, input=payload, stdout=subprocess.PIPE, check=True).stdout
    sys.exit("disk.py: a kernel packed in a way that is not known here")


def kernel_segments(elf):
    if elf[:4] != b"\x7fELF":
        sys.exit("disk.py: the unpacked kernel is no ELF file")
    phoff, = struct.unpack_from("<Q", elf, 0x20)
    phentsize, phnum = struct.unpack_from("<HH", elf, 0x36)
    for i in range(phnum):
        kind, _, offset, _, paddr, filesz, _ = struct.unpack_from("<IIQQQQQ", elf, phoff + i * phentsize)
        if kind == 1 and filesz:
            yield paddr, elf[offset:offset + filesz]


def boot_params(image, initrd, mib):
    page = bytearray(4096)
    end = 0x202 + image[0x201]
    page[0x1f1:end] = image[0x1f1:end]
    page[0x210] = 0xff  # type_of_loader: none with a number
    struct.pack_into("<II", page, 0x218, INITRD, len(initrd))
    struct.pack_into("<I", page, 0x228, CMDLINE)
    ram, reserved = 1, 2
    # The BIOS leaves its ACPI tables in the last 64 KiB of RAM; they may lie in a reserved piece.
    e820 = [(0, 0x9f000, ram), (0x9f000, 0x61000, reserved), (0x100000, (mib - 2) << 20, ram), ((mib - 1) << 20, 1 << 20, reserved)]
    page[0x1e8] = len(e820)
    for i, entry in enumerate(e820):
        struct.pack_into("<QQI", page, 0x2d0 + i * 20, *entry)
    return page


def main():
    boot, vmlinuz, initrd, mib, cmdline, out = sys.argv[1:]
    image, initrd = open(vmlinuz, "rb").read(), open(initrd, "rb").read()
    pieces = [(BOOT_PARAMS, boot_params(image, initrd, int(mib))), (CMDLINE, cmdline.encode() + b"\0")]
    elf = kernel_unpack(image)
    pieces += kernel_segments(elf)
    pieces.append((INITRD, initrd))
    table, body, lba = b"", b"", 2
    for address, data in pieces:
        sectors = -(-len(data) // SECTOR)
        table += struct.pack("<IIQ", lba, sectors, address)
        body += bytes(data).ljust(sectors * SECTOR, b"\0")
        lba += sectors
    table += struct.pack("<IIQ", 0, 0, struct.unpack_from("<Q", elf, 0x18)[0])
    disk = open(boot, "rb").read() + table.ljust(SECTOR, b"\0") + body
    with open(out, "wb") as f:
        f.write(disk.ljust(-(-len(disk) // CYLINDER) * CYLINDER, b"\0"))


main()
