# SPDX-License-Identifier: Apache-2.0
"""Nodes that leave a running VM: `unum drain`, then SIGKILL of the slice, and the guest does not notice; `unum join`.

Use     drain.py [--long] [PATTERN...], like tests/system/cases.py; --long: 20 drains.  Logs in build/system/drain-CASE.
What    A Linux guest over three nodes under its torture job (programs that check their own results).  Numbers before anything is
        done, refusals with reasons, a node that comes back and leaves again, and what happens without a drain.
Limits  Engine bt.
"""
import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from moves import LONG, OK, REFUSED, SLOW_S, USAGE, end, linux_checked
from cases import expect, main
from unum import GUEST, TOP, UNUM, Run, number, processes

CASES = []
VM = "drained"
SHARE_MIB = 512


def case(name, limit_s):
    def register(fn):
        CASES.append((name, limit_s, fn))
        return fn
    return register


def topology(name, lent_mib, more=""):
    """Three nodes on this host, each with a share of SHARE_MIB in the VM and lending so much."""
    folder = os.path.join(Run(f"drain-{name}", []).dir)
    path = os.path.join(folder, "topology.yaml")
    shares = "".join(f"      n{k}: {{ vcpus: 1, memory: {SHARE_MIB}MiB }}\n" for k in range(3))
    nodes = "".join(f"  - {{ name: n{k}, address: 127.0.0.1, port: {7800 + k}, cpus: 3, memory: {lent_mib}MiB }}\n" for k in range(3))
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"pool: here\nnodes:\n{nodes}vms:\n  - name: {VM}\n    vcpus: 3\n    memory: {3 * SHARE_MIB}MiB\n"
                f"    engine: bt\n    kernel: {GUEST}/vmlinuz\n    initrd: {GUEST}/initrd\n"
                f"    cmdline: console=ttyS0 quiet unum.job=torture unum.torture_s=8\n    shares:\n{shares}{more}")
    return path


def vm(name, lent_mib, more=""):
    run = Run(f"drain-{name}", [topology(name, lent_mib, more), "--start-agents"])
    run.env = dict(os.environ, XDG_RUNTIME_DIR=run.tmp, TMPDIR=run.tmp)
    os.environ["XDG_RUNTIME_DIR"] = run.tmp
    return run


def order(run, word, *args):
    """(exit status, stdout, stderr) of one `unum drain` or `unum join`."""
    r = subprocess.run([UNUM, word, *args], capture_output=True, text=True, timeout=180, check=False, cwd=TOP, env=run.env,
                       stdin=subprocess.DEVNULL)
    return r.returncode, r.stdout.strip(), r.stderr.strip()


def done(run, word, pattern, *args):
    status, out, err = order(run, word, VM, *args)
    m = re.search(pattern, out.splitlines()[-1] if out else "")
    expect(status == OK and m and not err, f"{word} {' '.join(args)}: status {status}, '{out}' '{err}'", run)
    return m


def refused(run, status, text, word, *args):
    got, out, err = order(run, word, *args)
    expect(got == status and re.search(text, err) and not out, f"{word} {' '.join(args)}: status {got}, '{out}' '{err}', not '{text}'",
           run)


def slice_of(run, node):
    """Its process: the child of the agent of that name."""
    live = processes(run.mark)
    agents = set()
    for pid, name in live:
        if name == "unumd":
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                words = f.read().split(b"\0")
            if node.encode() in words:
                agents.add(pid)
    for pid, name in live:
        if name == "unum-slice":
            with open(f"/proc/{pid}/stat", encoding="ascii") as f:
                if int(f.read().rsplit(")", 1)[1].split()[1]) in agents:
                    return pid
    expect(False, f"no slice of {node} among {live}", run)


def gone(pid):
    until = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < until:
        time.sleep(0.02)


LEFT = r"has left and may go: (\d+) vCPUs and ([\d.]+) MiB moved in ([\d.]+) s \((\d+) pages .* stood still for ([\d.]+) ms"


def drain_round(name, node, limit_s):
    """One machine: drained under load, then the slice is killed; the stop in ms."""
    run = vm(name, 2 * SHARE_MIB).start()
    try:
        expect(run.wait_for("RESULT torture_began", SLOW_S), "Linux does not come up", run)
        m = done(run, "drain", LEFT, node)
        victim = slice_of(run, node)
        os.kill(victim, signal.SIGKILL)
        gone(victim)
        run.wait(limit_s)
        expect(not run.timed_out, f"not done after {limit_s} s", run)
        linux_checked(run)
        expect(number(run.results, "torture_rounds") >= 1, "no work was done", run)
        expect(not run.leftovers(), "something is left behind", run)
        return float(m[5]), int(m[4])
    finally:
        end(run)


def drains(rounds):
    def fn(limit_s):
        times, pages = zip(*(drain_round("kill", f"n{1 + i % 2}", limit_s) for i in range(rounds)))
        return f"{rounds} of {rounds} drains under load and kills unnoticed; memory stood still {min(times):.1f} to {max(times):.1f} ms, " \
               f"{min(pages)} to {max(pages)} pages moved meanwhile"
    return fn


case("kill", 600)(drains(20 if LONG else 1))


@case("join", 600)
def join(limit_s):
    """A node leaves, comes back, takes vCPUs, leaves again and dies; orders that cannot be are refused with numbers or reasons."""
    run = vm("join", 2 * SHARE_MIB).start()
    try:
        expect(run.wait_for("RESULT torture_began", SLOW_S), "Linux does not come up", run)
        refused(run, REFUSED, "cannot leave: the interrupt controller", "drain", VM, "n0")
        refused(run, REFUSED, "no node 'n7'", "drain", VM, "n7")
        refused(run, REFUSED, "has not left", "join", VM, "n2")
        refused(run, USAGE, "no VM", "drain", "nobody", "n1")
        refused(run, USAGE, "usage", "drain", VM)
        m = done(run, "drain", r"could leave: 1 vCPUs would move, and ([\d.]+) MiB .* room for ([\d.]+) MiB", "n2", "--dry-run")
        expect(float(m[1]) == SHARE_MIB and float(m[2]) == 2 * SHARE_MIB, f"dry run says {m[0]}", run)
        done(run, "drain", LEFT, "n2")
        refused(run, REFUSED, "left already", "drain", VM, "n2")
        refused(run, REFUSED, "its 512.0 MiB .* do not fit|left already", "drain", VM, "n2", "--dry-run")
        done(run, "join", "is back", "n2")
        status, out, err = order(run, "migrate", VM, "--vcpu", "1", "--to", "n2")
        expect(status == OK, f"a vCPU does not come: '{out}' '{err}'", run)
        done(run, "drain", LEFT, "n2")
        victim = slice_of(run, "n2")
        os.kill(victim, signal.SIGKILL)
        gone(victim)
        time.sleep(0.3)
        refused(run, REFUSED, "its slice is dead", "join", VM, "n2")
        run.wait(limit_s)
        expect(not run.timed_out, f"not done after {limit_s} s", run)
        linux_checked(run)
        expect(not run.leftovers(), "something is left behind", run)
        return "left, came back, left and died"
    finally:
        end(run)


@case("refused", 300)
def refusals(limit_s):
    """No room, and a disk: refused before anything is done; then the node dies, and that is the end as ever."""
    disk = os.path.join(Run("drain-refused", []).dir, "disk.img")
    with open(disk, "wb") as f:
        f.truncate(1 << 20)
    run = vm("refused", SHARE_MIB, f"    disks: [ {{ node: n1, path: {disk} }} ]\n").start()
    try:
        expect(run.wait_for("RESULT torture_began", SLOW_S), "Linux does not come up", run)
        refused(run, REFUSED, "n1 cannot leave: its disks are on it", "drain", VM, "n1")
        for more in ((), ("--dry-run",)):
            refused(run, REFUSED, "its 512.0 MiB of guest memory do not fit, the others have room for 0.0 MiB", "drain", VM, "n2", *more)
        os.kill(slice_of(run, "n2"), signal.SIGKILL)
        run.wait(limit_s)
        expect(run.status == 4 and re.search("n2", run.errors), "the loss of a node that had not left is not the end", run)
    finally:
        end(run)


if __name__ == "__main__":
    sys.exit(main(CASES))
