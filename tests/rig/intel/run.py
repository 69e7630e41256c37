#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tests/rig/intel/run.py DIR MIB HZ [--limit S] - starts the emulated Intel host from DIR/disk.img and judges what it did.

What    Bochs, with its display in a pseudo-terminal that nobody looks at; the host's serial port is DIR/serial.log. Its lines
        go to stdout with the seconds since the start. When nothing new came for a while, a line says that it still runs.
Judges  The lines "RIG ..." of the host, "JOB ..." of the guest and the statistics of unum: see verdict().
Stuck   At the limit Bochs is interrupted and its debugger tells registers and stack: DIR/debug.log.
Exit    0 all of it holds, 1 something does not, 2 wrong use. The last line is "rig-intel: PASS" or "rig-intel: FAIL".
Owns    One process, bochs-bin, ended on the way out.
"""
import argparse
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

HERE = os.path.dirname(os.path.abspath(__file__))
QUIET_S = 30


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("dir")
    p.add_argument("mib", type=int, help="the host's memory")
    p.add_argument("hz", type=int, help="emulated instructions in an emulated second; also its TSC")
    p.add_argument("--limit", type=float, default=1200, help="seconds (1200)")
    return p.parse_args()


def bochs_start(a):
    with open(os.path.join(HERE, "bochsrc.in"), encoding="ascii") as f:
        text = f.read().replace("@MIB@", str(a.mib)).replace("@IPS@", str(a.hz)).replace("@DIR@", os.path.abspath(a.dir))
    rc = {"bochsrc": text, "bochs.start": "continue\n"}
    for name, content in rc.items():
        with open(os.path.join(a.dir, name), "w", encoding="ascii") as f:
            f.write(content)
    for name in ("serial.log", "bochs.log", "disk.img.lock"):
        if os.path.exists(os.path.join(a.dir, name)):
            os.unlink(os.path.join(a.dir, name))
    pid, terminal = pty.fork()
    if pid == 0:
        try:  # its session is new, and gets one share of the CPUs among those of all others
            with open("/proc/self/autogroup", "w", encoding="ascii") as f:
                f.write("-10")
        except OSError:
            pass
        os.environ["TERM"] = "xterm"
        os.execvp("bochs-bin", ["bochs-bin", "-q", "-f", os.path.join(a.dir, "bochsrc"), "-rc", os.path.join(a.dir, "bochs.start")])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 132, 0, 0))
    return pid, terminal


def terminal_read(terminal, wait_s):
    """What Bochs wrote to its terminal; None when it has ended."""
    ready, _, _ = select.select([terminal], [], [], wait_s)
    if not ready:
        return b""
    try:
        return os.read(terminal, 65536) or None
    except OSError:
        return None


def terminal_log(terminal, log, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        log.write(terminal_read(terminal, 0.2) or b"")


class Serial:
    """The host's serial port, by lines."""
    def __init__(self, path):
        self.path, self.at, self.part = path, 0, b""

    def lines(self):
        try:
            with open(self.path, "rb") as f:
                f.seek(self.at)
                new = f.read()
        except OSError:
            return []
        self.at += len(new)
        *whole, self.part = (self.part + new).split(b"\n")
        return [line.decode("ascii", "replace").strip() for line in whole]


def watch(a, pid, terminal):
    """Shows the host's lines until it has ended; returns them, and whether it ended by itself."""
    began = spoke = time.monotonic()
    serial, seen = Serial(os.path.join(a.dir, "serial.log")), []
    alive = True
    while alive:
        alive = terminal_read(terminal, 0.2) is not None
        now = time.monotonic()
        for line in serial.lines():
            seen.append(line)
            print(f"{now - began:6.0f} s  {line}", flush=True)
            spoke = now
        if now - spoke > QUIET_S:
            print(f"{now - began:6.0f} s  (the host computes; limit {a.limit:.0f} s)", flush=True)
            spoke = now
        if alive and now - began > a.limit:
            print(f"rig-intel: not done after {a.limit:.0f} s", flush=True)
            debug(a, pid, terminal)
            return seen, False
    return seen, True


def debug(a, pid, terminal):
    """Where it stands: the debugger's view, several times."""
    with open(os.path.join(a.dir, "debug.log"), "wb") as log:
        os.kill(pid, signal.SIGINT)
        terminal_log(terminal, log, 3)
        for command in ["r", "print-stack 32"] + ["s"] * 20:  # no empty one: it would repeat "continue"
            os.write(terminal, command.encode() + b"\n")
            terminal_log(terminal, log, 0.5)
    print(f"rig-intel: the debugger's view is in {a.dir}/debug.log", flush=True)


def bochs_end(pid):
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def fields(line):
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


def verdict(lines):
    """Every claim with what shows it: (text, holds)."""
    rig = [fields(x) for x in lines if x.startswith("RIG ")]
    jobs = [fields(x) for x in lines if x.startswith("JOB ")]
    get = lambda rows, key: next((r[key] for r in rows if key in r), "")
    workers = [j for j in jobs if "worker" in j]
    engines = re.findall(r"node (\S+): \d+ vCPUs, \d+ MiB, engine (\w+)", "\n".join(lines))
    remote = [[int(n) for n in m] for m in re.findall(r"remote faults\s+read (\d+), write (\d+), upgrade (\d+)", "\n".join(lines))]
    faults = re.findall(r"unum: engine kvm, (\w+) faults", "\n".join(lines))
    sums = {w["sum"] for w in workers} | {get(jobs, "sum_expected")}
    return [
        (f"host: {get(rig, 'cpu')}, Linux {get(rig, 'kernel')}, VMX, EPT {get(rig, 'ept')}, eptad {get(rig, 'eptad')}",
         get(rig, "ept") == "Y" and get(rig, "eptad") == "N" and get(rig, "device") == "/dev/kvm"),
        (f"engines of the slices: {engines}, {' and '.join(set(faults))} faults", len(engines) == 2 and all(e == "kvm" for _, e in engines)),
        (f"guest: Linux {get(jobs, 'kernel')}, {get(jobs, 'cpus')} CPUs", get(jobs, "cpus") == "2"),
        (f"CPUs that wrote, on NUMA nodes: {[(w['cpu'], w['node']) for w in workers]}", {w["node"] for w in workers} == {"0", "1"}),
        (f"sum over {get(jobs, 'pages')} pages, {get(jobs, 'rounds')} rounds, on every CPU: {sorted(sums)}",
         len(workers) == 2 and len(sums) == 1 and all(w["wrong_rounds"] == "0" for w in workers)),
        (f"counter {get(jobs, 'counter')} of {get(jobs, 'counter_expected')}", get(jobs, "counter") == get(jobs, "counter_expected") != ""),
        (f"remote faults (read, write, upgrade) by node: {remote}", len(remote) == 2 and all(sum(r) for r in remote)),
        ("the guest said pass, and switched itself off", get(jobs, "verdict") == "pass" and get(rig, "two_status") == "0"),
    ]


def main():
    a = options()
    if not os.path.exists(os.path.join(a.dir, "disk.img")):
        sys.exit(f"rig-intel: no {a.dir}/disk.img: make rig-intel makes it")
    for s in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(s, lambda number, _frame: sys.exit(128 + number))
    print(f"rig-intel: 3 to 4 minutes with a CPU for itself; gives up after {a.limit:.0f} s", flush=True)
    began = time.monotonic()
    pid, terminal = bochs_start(a)
    try:
        lines, ended = watch(a, pid, terminal)
    finally:
        bochs_end(pid)
    claims = verdict(lines)
    for text, holds in claims:
        print(f"rig-intel: {'ok  ' if holds else 'NOT '} {text}")
    good = ended and all(holds for _, holds in claims)
    print(f"rig-intel: {'PASS' if good else 'FAIL'} after {time.monotonic() - began:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
