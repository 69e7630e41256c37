#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tests/rig/roce.py [--seconds S] [--linux] [--bin DIR] [WORD...] - the RDMA backends over soft-RoCE.

What    Three emulated hosts (tests/rig/host.py) on a network of their own, each with an RDMA device rxe0 on it.  First
        the conformance suite, both ends in one process: verbs on host 1, ofi on host 2.
        Then unum-stress with a node on each of two hosts, over verbs, ofi and ucx, and on all three over verbs.  Its
        oracle is in memory that the hosts share (a device of QEMU), so a wrong byte anywhere is seen.  In the middle
        of each, host 1's cable is pulled for CUT_S seconds.  Last, guests (bt) with a vCPU on each of two hosts, by
        agents and topology file, over verbs: payloads, and with --linux Debian's kernel.
WORD    Only the cases whose name has one of these words: conform-BACKEND, stress-BACKEND, stress3-verbs, vm-PAYLOAD,
        linux-verbs; linux-tcp, for comparison, only by its whole name.
Output  A line per case, `N violations` per stress, the Linux guest's console; at last `N passed, N failed, N skipped`.
Exit    0 when nothing failed.
Owns    A folder under build/rig/runs while it runs: the network's sockets, the shared memory, the monitors.
"""
import argparse
import collections
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import host as rig
import roce_host

HERE = os.path.dirname(os.path.abspath(__file__))
RUNS = os.path.join(roce_host.BUILD, "rig", "runs")
MEMORY_MIB = {1: 1280, 2: 1280, 3: 704}  # by host: the conformance suite is 64 peers at once
SHARED_BYTES = 8 * roce_host.STRESS_BYTES  # a power of two: each stress, and each try of it, has its own
CUT_S = 2  # the control stream gives a silent peer 5 s, and notices the end of a cut after up to one
BOOT_S = 60

Case = collections.namedtuple("Case", "name kind what hosts limit_s", defaults=[3600])  # limit_s: of a stress
CASES = [
    Case("conform-verbs", "conform", "verbs", (1,)),
    Case("conform-ofi", "conform", "ofi", (2,)),  # not ucx: see docs/testing.md
    *(Case(f"stress-{backend}", "stress", backend, (1, 2)) for backend in roce_host.DEVICES),
    Case("stress3-verbs", "stress", "verbs", (1, 2, 3), 60),
    *(Case(f"vm-{payload}", "vm", payload, (1, 2)) for payload in roce_host.VMS),
    Case("linux-verbs", "vm", "verbs", (1, 2)),
    Case("linux-tcp", "vm", "tcp", (1, 2)),
]
# The Linux guest's whole user space: both CPUs read the same file, at the same time, and say which they are.
GUEST_INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
exec >/dev/console 2>&1
echo "RESULT cpus $($b grep -c ^processor /proc/cpuinfo)"
echo "RESULT numa_nodes $($b ls -d /sys/devices/system/node/node[0-9]* | $b wc -l)"
for cpu in 0 1; do
    $b taskset -c $cpu $b sh -c "$b head -c 65536 $b | $b sha256sum | $b cut -c1-64
        $b cut -d' ' -f39 /proc/self/stat" >/cpu_$cpu &
done
wait
for cpu in 0 1; do
    echo "RESULT cpu_$cpu" $($b cat /cpu_$cpu)
done
$b poweroff -f
"""


def options():
    p = argparse.ArgumentParser(prog="tests/rig/roce.py", formatter_class=argparse.RawDescriptionHelpFormatter,
                                description=__doc__)
    p.add_argument("--seconds", type=float, default=20, metavar="S", help="of each stress (20)")
    p.add_argument("--linux", action="store_true", help="boot the Linux guest across two hosts too, which takes minutes")
    p.add_argument("--slower", type=int, default=20, metavar="N", help="how much slower that guest's clock is (20)")
    p.add_argument("--bin", default="build", metavar="DIR", help="where the programs were built (build)")
    p.add_argument("--nice", help="as tests/rig/host.py --nice")
    p.add_argument("--inside", type=int, metavar="N", help=argparse.SUPPRESS)
    p.add_argument("--hosts", type=int, help=argparse.SUPPRESS)
    p.add_argument("--folder", help=argparse.SUPPRESS)
    p.add_argument("--tsc-khz", type=int, help=argparse.SUPPRESS)
    p.add_argument("--sum", help=argparse.SUPPRESS)
    p.add_argument("word", nargs="*", metavar="WORD")
    return p.parse_args()


def wanted(a, case):
    if case.name.startswith("linux"):
        return case.name in a.word or (a.linux and case.name == "linux-verbs" and not a.word)
    return not a.word or any(w in case.name for w in a.word)


def guest_make(folder):
    """The Linux guest's initrd; returns the checksum that both its CPUs are to find."""
    root = os.path.join(folder, "root")
    for name in "bin", "dev", "proc", "sys":
        os.makedirs(os.path.join(root, name))
    shutil.copy("/bin/busybox", os.path.join(root, "bin"))
    with open(os.path.join(root, "init"), "w", encoding="ascii") as f:
        f.write(GUEST_INIT)
    os.chmod(os.path.join(root, "init"), 0o755)
    subprocess.run(["sh", "-ec", '. "$0"; cpio_make "$1" >"$2"', os.path.join(HERE, "..", "guest", "kernel.sh"), root,
                    os.path.join(folder, "initrd")], check=True)
    with open("/bin/busybox", "rb") as f:
        return hashlib.sha256(f.read(65536)).hexdigest()


def say(text):
    """Lines of several threads, each in one piece."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Host:
    """One emulated host, and what it has told.  Host 1 has the hub that the others' cables lead to."""

    def __init__(self, a, number, folder):
        self.number, self.results, self.began = number, {}, threading.Event()
        self.stress, self.seconds = None, 0  # what the event is about
        self.monitor = os.path.join(folder, f"monitor{number}")
        wires = [os.path.join(folder, f"wire{n}") for n in (range(2, a.hosts + 1) if number == 1 else [number])]
        args = [os.path.join(HERE, "host.py"), "run", "--mac", str(number), "--memory", f"{MEMORY_MIB[number]}M",
                "--shared", os.path.join(folder, "memory"), "--monitor", self.monitor, "--timeout",
                str(len(a.cases) * (roce_host.CONFORM_S + a.seconds) + roce_host.LINUX_S)]
        args += ["--hub"] * (number == 1)
        for wire in wires:
            args += ["--net", f"stream,server={'on' if number == 1 else 'off'},addr.type=unix,addr.path={wire}"]
        args += ["--nice", a.nice] if a.nice else []
        args += ["python3", "-B", os.path.abspath(__file__), "--inside", str(number), "--hosts", str(a.hosts),
                 "--folder", folder, "--bin", a.bin, "--seconds", str(a.seconds), "--slower", str(a.slower), "--tsc-khz",
                 str(a.tsc_khz), "--sum", a.sum, *[case.name for case in a.cases]]
        self.process = subprocess.Popen(args, stdout=subprocess.PIPE, text=True, errors="replace")
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        until = time.monotonic() + BOOT_S
        while number == 1 and not all(map(os.path.exists, wires)) and time.monotonic() < until:
            time.sleep(0.05)

    def read(self):
        for line in self.process.stdout:
            if not line.startswith("@"):
                say(f"host {self.number}: {line.rstrip()}")
                continue
            told = json.loads(line[1:])
            if told["what"] == "stress":
                self.stress, self.seconds = told["name"], told["seconds"]
                self.began.set()
                continue
            self.results[told["name"]] = told["ok"]
            say(f"  {'ok' if told['ok'] else 'FAIL'} {told['name']} (host {self.number}) {told['text']}" +
                ("" if told["ok"] else "\n" + told["out"]))

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
        self.reader.join(5)


def cable_pull(host):
    """Out of the host's card, and in again, by the monitor of its QEMU (QMP)."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(30)
        s.connect(host.monitor)
        f = s.makefile("rw", encoding="utf-8")
        f.readline()

        def ask(command, **arguments):
            f.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            f.flush()
            while "return" not in (answer := json.loads(f.readline())):
                if "error" in answer:
                    raise OSError(f"monitor: {answer}")

        ask("qmp_capabilities")
        ask("set_link", name="card0", up=False)
        began = time.monotonic()
        time.sleep(CUT_S)
        ask("set_link", name="card0", up=True)
        say(f"  ..  {host.stress}: the cable was out for {time.monotonic() - began:.1f} s")


def cables(host):
    """Pulls the host's cable in the middle of each stress."""
    while host.process.poll() is None:
        if host.began.wait(0.5):
            host.began.clear()
            time.sleep(host.seconds / 2 + 3)  # nodes have to meet first
            cable_pull(host)


def passed(case, hosts):
    """A stress is for every host to report, all else for one of them."""
    told = [h.results[case.name] for h in hosts if case.name in h.results]
    return len(told) == (len(case.hosts) if case.kind == "stress" else 1) and all(told)


def main():
    a = options()
    a.cases = [case for case in CASES if (case.name in a.word if a.inside else wanted(a, case))]
    if a.inside:
        return roce_host.inside(a, a.cases)
    for number in signal.SIGTERM, signal.SIGHUP, signal.SIGINT:  # so that the hosts end too
        signal.signal(number, lambda n, _frame: sys.exit(128 + n))
    os.makedirs(RUNS, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="roce-", dir=RUNS)
    hosts = []
    try:
        a.hosts = max((max(case.hosts) for case in a.cases), default=2)
        a.tsc_khz, a.sum = rig.tsc_khz(), guest_make(folder)
        with open(os.path.join(folder, "memory"), "wb") as f:
            f.truncate(SHARED_BYTES)
        subprocess.run([f"{a.bin}/bin/unum", "keygen", os.path.join(folder, "key")], stdout=subprocess.DEVNULL, check=True)
        for number in range(1, a.hosts + 1):
            hosts.append(Host(a, number, folder))
        try:
            cables(hosts[0])
        except OSError as e:
            print(f"roce: {e}")
        for host in hosts:
            host.process.wait()
    finally:
        for host in hosts:
            host.end()
        shutil.rmtree(folder, ignore_errors=True)
    good = sum(passed(case, hosts) for case in a.cases)
    print(f"{good} passed, {len(a.cases) - good} failed, 0 skipped")
    return 0 if a.cases and good == len(a.cases) else 1


if __name__ == "__main__":
    sys.exit(main())
