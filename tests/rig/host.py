#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tests/rig/host.py run [options] COMMAND... - one emulated AMD host, in which COMMAND runs; its status is COMMAND's.

What    QEMU emulates a processor with SVM and nested paging; in it runs Debian's stock kernel with kvm-amd loaded.
        The host's root is this machine's, read-only over 9p, with a layer of its own on top that ends with it: all
        paths are the same, COMMAND runs as root in the folder this was called from.  /run/rig/out in the host is the
        folder --out here: what is to be kept goes there.
Output  COMMAND's stdout and stderr to stdout; the rig's own lines, "rig: ...", to stderr.
Exit    COMMAND's status; 124 when it was not done in time; 125 when the host did not come up or ended without one.
Owns    A folder under build/rig/runs for the time of the run: job, status, console.  Nothing else is left behind.
Limits  One host.  More than one, joined by --net, is what --net is for: each is one call of this program.  More than
        two: one of them has the --hub.
"""
import argparse
import ctypes
import mmap
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RIG = os.path.join(TOP, "build", "rig")
IMAGE = os.path.join(RIG, "amd")
BOOT_LIMIT_S = 180
# QEMU 7.2 lets a guest's XSETBV pass by KVM, which then knows nothing of the guest's XCR0: no XSAVE, so no AVX.  A
# kernel that unpacks itself (--kernel bzImage) would turn 5-level paging on, and then nested tables have five levels: not that.
CPU = "max,la57=off,xsave=off,avx=off"
CMDLINE = ("console=ttyS0 quiet panic=-1 mitigations=off nokaslr audit=0 nowatchdog no_timer_check random.trust_cpu=on "
           "tsc=reliable cryptomgr.notests")


def options():
    raw = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(prog="tests/rig/host.py", formatter_class=raw, description=__doc__)
    p = top.add_subparsers(required=True).add_parser("run", formatter_class=raw, description=__doc__,
                                                     epilog="example: tests/rig/host.py run build/bin/unum doctor")
    p.add_argument("--cpus", type=int, default=1, help="of the emulated host (1: a wakeup across emulated CPUs costs ms)")
    p.add_argument("--memory", default="2G", help="of the emulated host (2G)")
    p.add_argument("--timeout", type=float, default=300, metavar="S", help="for COMMAND, from boot on (300)")
    p.add_argument("--cpu", default=CPU, help=f"QEMU's model ({CPU})")
    p.add_argument("--kernel", default=os.path.join(IMAGE, "vmlinux"), help="bzImage or vmlinux")
    p.add_argument("--initrd", default=os.path.join(IMAGE, "initrd"), help="made by tests/rig/image.sh")
    p.add_argument("--modules", default=os.path.join(IMAGE, "kernel", "lib", "modules"), help="of that kernel")
    p.add_argument("--append", default="", help="more words for the host's kernel")
    p.add_argument("--kvm", default="", metavar="ARGS", help="module parameters of kvm-amd, e.g. npt=0")
    p.add_argument("--net", action="append", default=[], metavar="NETDEV",
                   help="a network card on this QEMU netdev, e.g. stream,server=on,addr.type=unix,addr.path=...")
    p.add_argument("--hub", action="store_true", help="one card, on a hub that all --net lead to")
    p.add_argument("--mac", type=int, default=1, metavar="N", help="last byte of its network cards' addresses (1)")
    p.add_argument("--shared", metavar="FILE", help="memory that all hosts with this FILE share, of a power of two of bytes: a "
                   "PCI device 1af4:1110, whose resource2 can be mapped")
    p.add_argument("--monitor", metavar="SOCKET", help="where QEMU's monitor (QMP) listens")
    p.add_argument("--nice", type=int, metavar="N", help="-20 to 19: its share of a busy machine (see autogroups in sched(7))")
    p.add_argument("--out", metavar="DIR", help="what the host writes to /run/rig/out (default: lost)")
    p.add_argument("--keep", action="store_true", help="keep the folder of the run: the host's console is in there")
    p.add_argument("--verbose", action="store_true", help="the host's console to stderr")
    p.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="one word is given to the shell as it is")
    a = top.parse_args()
    if not a.command:
        p.error("a COMMAND is needed")
    return a


def say(text):
    print(f"rig: {text}", file=sys.stderr, flush=True)


def tsc_khz():
    """This machine's TSC rate, which emulated CPUs tick at too.  The host cannot be left to measure it while others
    keep this machine busy: its clock was seen three times too fast."""
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as code:
        code.write(bytes.fromhex("0f31 48c1e220 4809d0 c3"))  # rdtsc; shl rdx, 32; or rax, rdx; ret
        pin = ctypes.c_char.from_buffer(code)
        rdtsc = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(pin))

        def sample():
            """(ns, ticks) of one moment: the pair that took the shortest time of many."""
            tries = [(time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW), rdtsc(),
                      time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)) for _ in range(50)]
            before, ticks, after = min(tries, key=lambda t: t[2] - t[0])
            return (before + after) // 2, ticks

        ns0, ticks0 = sample()
        time.sleep(0.1)
        ns1, ticks1 = sample()
        del pin, rdtsc
        return (ticks1 - ticks0) * 1000000 // (ns1 - ns0)


def job_write(a, folder):
    """The script that the host runs, and where its modules are."""
    command = a.command[0] if len(a.command) == 1 else shlex.join(a.command)
    keep = {k: os.environ[k] for k in ("B", "SAN", "V", "UNUM_LOG") if k in os.environ}
    lines = [f"export {k}={shlex.quote(v)}" for k, v in keep.items()]
    lines += [f"modprobe kvm-amd {a.kvm}", f"cd {shlex.quote(os.getcwd())} || exit 125", command]
    with open(os.path.join(folder, "job"), "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")
    with open(os.path.join(folder, "modules"), "w", encoding="utf-8") as f:
        f.write(os.path.abspath(a.modules))


def qemu(a, folder):
    """The command line of the emulator."""
    def share(tag, path, more=""):
        return ["-virtfs", f"local,id={tag},path={path},mount_tag={tag},security_model=none,multidevs=remap{more}"]

    # Atomics on memory that another QEMU has too must be atomic: they are where there might be another CPU.
    smp = f"{a.cpus},maxcpus={a.cpus + 1}" if a.shared else str(a.cpus)
    thread = "multi" if a.cpus > 1 or a.shared else "single"
    args = ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64"]  # should this program be killed, it ends too
    args += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35",
            "-accel", f"tcg,thread={thread},tb-size=512", "-cpu", a.cpu, "-smp", smp, "-m", a.memory,
            "-kernel", a.kernel, "-initrd", a.initrd, "-append", f"{CMDLINE} tsc_early_khz={tsc_khz()} {a.append}".strip(),
            "-serial", "file:" + os.path.join(folder, "console"),
            "-device", "virtio-serial-pci", "-chardev", "stdio,id=job,signal=off", "-device",
            "virtserialport,chardev=job,name=job", "-object", "rng-random,id=rng,filename=/dev/urandom",
            "-device", "virtio-rng-pci,rng=rng"]
    args += share("root", "/", ",readonly=on") + share("rig", folder)
    for i, net in enumerate(a.net):
        kind, _, rest = net.partition(",")
        args += ["-netdev", f"{kind},id=net{i},{rest}"]
        args += ["-netdev", f"hubport,id=leg{i},hubid=0,netdev=net{i}"] if a.hub else []
    if a.hub:
        args += ["-netdev", "hubport,id=hub,hubid=0"]
    for i, net in enumerate(["hub"] if a.hub else [f"net{i}" for i in range(len(a.net))]):
        args += ["-device", f"virtio-net-pci,id=card{i},netdev={net},mac=52:54:00:00:{i:02x}:{a.mac:02x},romfile="]
    if a.shared:
        args += ["-object", f"memory-backend-file,id=shared,share=on,mem-path={a.shared},size={os.path.getsize(a.shared)}",
                 "-device", "ivshmem-plain,memdev=shared"]
    if a.monitor:
        args += ["-qmp", f"unix:{a.monitor},server=on,wait=off"]
    return args


def read(folder, name):
    """A file of the run; None before the host wrote it."""
    try:
        with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as f:
            return f.read().strip() or None
    except OSError:
        return None


def copy(stream):
    """The job's output, as it comes."""
    while data := stream.read1(65536):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def end(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def nice(pid, value):
    try:
        with open(f"/proc/{pid}/autogroup", "w", encoding="ascii") as f:
            f.write(str(value))
    except OSError as e:  # no rights to more than others get, or a kernel without such groups
        say(f"no priority of its own: {e.strerror}")


def watch(process, a, folder):
    """Waits for the job; returns its status."""
    began = time.monotonic()
    limit, booted = began + BOOT_LIMIT_S, None
    while process.poll() is None:
        if booted is None and (up := read(folder, "booted")):
            booted = time.monotonic()
            limit = booted + a.timeout
            say(f"host is up after {booted - began:.1f} s ({up} s of its own)")
        if time.monotonic() > limit:
            say(f"not done {a.timeout:.0f} s after boot" if booted else f"host not up after {BOOT_LIMIT_S} s")
            return 124 if booted else 125
        time.sleep(0.05)
    status = read(folder, "status")
    if status is None:
        say("the host ended without a status; the end of its console:")
        print("\n".join((read(folder, "console") or "").splitlines()[-20:]), file=sys.stderr)
        return 125
    say(f"status {status} after {time.monotonic() - (booted or began):.1f} s")
    return int(status)


def main():
    a = options()
    for s in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(s, lambda number, _frame: sys.exit(128 + number))
    if not os.path.exists(a.kernel) or not os.path.exists(a.initrd):
        say(f"no {a.kernel} or no {a.initrd}; `make rig-image` makes them")
        return 125
    os.makedirs(os.path.join(RIG, "runs"), exist_ok=True)
    folder = tempfile.mkdtemp(prefix="", dir=os.path.join(RIG, "runs"))
    process = None
    try:
        job_write(a, folder)
        if a.out:
            os.makedirs(a.out, exist_ok=True)
        os.mkdir(os.path.join(folder, "out"))
        # A session of its own: what the terminal sends is for this program to act on.
        # Its input stays open: a port whose other side is closed takes no output either.
        process = subprocess.Popen(qemu(a, folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   start_new_session=True)
        if a.nice is not None:
            nice(process.pid, a.nice)
        copier = threading.Thread(target=copy, args=(process.stdout,), daemon=True)
        copier.start()
        return watch(process, a, folder)
    finally:
        if process:
            end(process)
            copier.join(5)
        if a.verbose:
            print(read(folder, "console"), file=sys.stderr)
        if a.out:
            shutil.copytree(os.path.join(folder, "out"), a.out, dirs_exist_ok=True)
        if a.keep:
            say(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
