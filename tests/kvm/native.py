# SPDX-License-Identifier: Apache-2.0
"""The kvm engine natively: payload guests that share no page tables, on 1, 2 and 3 slices of this machine's /dev/kvm.

Use     native.py [PATTERN...]; --list names the cases.  Prints like tests/system/cases.py; logs in build/system/CASE.
What    Every payload of tests/payloads/marked.txt, whatever kind of KVM this is; refusals; how a VM ends.
        Cases are skipped, each by name, where /dev/kvm cannot be opened; what goes wrong behind that is a failure.
"""
import fcntl
import functools
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TESTS, "system"))
from cases import KILL_LIMIT_S, Skipped, crossed, expect, local, main, payload_file
from unum import BUILD, Run, processes

KVM_GET_API_VERSION = 0xAE00
NODE_MIB = 32
UNSOUND, NO_KVM, NO_PERMISSION, NO_RIGHTS = 6, 7, 8, 11  # exit status of unum
PAYLOAD_LIMIT_S = 150
PATIENCE = "patience=150"  # thousand million cycles until a payload calls a wait hung: its processors may share few
CASES = []

# Counters that must have moved on several nodes.
MOVED = {
    "ipi": ["ipis_sent_remote"], "lock": ["remote_faults", "pages_sent"], "cross": ["remote_faults", "pages_sent"],
    "mmio": ["mmio_remote"], "smc": ["remote_faults"], "tsc": ["remote_faults"],
}


def no_kvm():
    """Why /dev/kvm cannot be opened as KVM; None when it can."""
    try:
        fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError as e:
        return f"/dev/kvm: {e.strerror}"
    try:
        return None if fcntl.ioctl(fd, KVM_GET_API_VERSION) == 12 else "/dev/kvm: not API version 12"
    except OSError as e:
        return f"/dev/kvm: {e.strerror}"
    finally:
        os.close(fd)


def case(name, limit_s, kvm=True):
    def register(fn):
        def checked(limit):
            why = kvm and no_kvm()
            if why:
                raise Skipped(why)
            return fn(limit)
        CASES.append((name, limit_s, checked))
        return fn
    return register


def kvm_run(name, payload, nodes, vcpus, words="", kind="elf", prefix=(), engine="kvm", more=()):
    return Run(f"kvm-{name}", local(nodes, nodes * vcpus, f"{nodes * NODE_MIB}MiB", payload_file(payload, kind), None, words,
               ["--engine", engine, *more]), prefix=prefix)


def engines(run):
    return [n.get("engine") for n in (run.stats() or {}).get("nodes", [])]


def passed(run, payload, limit_s):
    run.wait(limit_s)
    expect(not run.timed_out, f"not done after {limit_s} s", run)
    verdicts = [t for _, t in run.lines if t.startswith("PAYLOAD ")]
    expect(verdicts == [f"PAYLOAD {payload}: PASS"], f"it said {verdicts or 'nothing'}", run)
    expect(run.status == 0, "it passed, but unum did not end with 0", run)
    left = run.leftovers()
    expect(not left, f"left behind: {left}", run)
    return run


# --- payloads ------------------------------------------------------------------------------------------------------
def marked():
    """(payload, vCPUs on each node, command line, more of it on a software KVM) from the list."""
    with open(os.path.join(TESTS, "payloads", "marked.txt"), encoding="utf-8") as f:
        rows = [line.split(None, 2) for line in f if line.strip() and not line.startswith("#")]
    return [(r[0], int(r[1]), *(r[2] if len(r) > 2 else "").partition(";")[::2]) for r in rows]


@functools.lru_cache
def is_software():
    """Whether this KVM emulates its guests."""
    said = subprocess.run([os.path.join(BUILD, "bin", "unum-slice"), "--host"], stdout=subprocess.PIPE, check=True).stdout
    return json.loads(said)["kvm"]["kind"] == "software"


def has_mark(path):
    """The ELF note of tests/payloads/rt/private.S, by way of the program headers, as a loader finds it."""
    with open(path, "rb") as f:
        elf = f.read()
    wide = elf[4] == 2
    phoff, = struct.unpack_from("<Q" if wide else "<I", elf, 32 if wide else 28)
    phentsize, phnum = struct.unpack_from("<HH", elf, 54 if wide else 42)
    for at in range(phoff, phoff + phnum * phentsize, phentsize):
        if struct.unpack_from("<I", elf, at)[0] != 4:  # PT_NOTE
            continue
        offset, = struct.unpack_from("<Q" if wide else "<I", elf, at + (8 if wide else 4))
        size, = struct.unpack_from("<Q" if wide else "<I", elf, at + (32 if wide else 16))
        if struct.pack("<III", 5, 4, 1) + b"unum\0\0\0\0" + struct.pack("<I", 1) in elf[offset:offset + size]:
            return True
    return False


@case("marks", 10, kvm=False)
def marks(_limit_s):
    """Exactly the payloads of the list have the mark, and those that only end or crash a VM, or measure."""
    sources = {n[:-2] for n in os.listdir(os.path.join(TESTS, "payloads")) if n.endswith(".c")}
    listed = {name for name, *_ in marked()} | {"crash", "spin"} | {n for n in sources if n.startswith("place_")}
    for name in sorted(sources):
        for kind in ("elf", "pvh"):
            expect(has_mark(payload_file(name, kind)) == (name in listed), f"{name}.{kind}: the mark is wrong")


def register_payloads():
    def make(name, nodes, vcpus, words, software_words, kind):
        def fn(limit_s):
            line = " ".join(f"{words} {software_words if is_software() else ''} {PATIENCE}".split())
            run = kvm_run(f"{name}-{kind}-{nodes}", name, nodes, vcpus, line, kind).start()
            passed(run, name, limit_s)
            expect(engines(run) == ["kvm"] * nodes, f"it ran on {engines(run)}", run)
            crossed(run, *MOVED.get(name, []))
        return fn

    for nodes in (1, 2, 3):
        for name, vcpus, *words in marked():
            for kind in ("elf", "pvh") if name == "hello" else ("elf",):
                case(f"{name}-{kind}-{nodes}", PAYLOAD_LIMIT_S)(make(name, nodes, vcpus if nodes < 3 else 1, *words, kind))


register_payloads()


@case("moves", 120)
def moves(limit_s):
    """vCPUs go to and fro between two kvm slices while interrupts are counted: 500 times, none lost or doubled."""
    run = kvm_run("moves", "ipis", 2, 2, f"seconds=12 ipis=20 {PATIENCE}").start()
    door = os.path.join(run.tmp, "unum", "local.sock")
    began = time.monotonic()
    while not os.path.exists(door) and time.monotonic() - began < 20:
        time.sleep(0.05)
    churn = subprocess.run([os.path.join(BUILD, "bin", "unum"), "migrate", "local", "--random", "60", "--count", "500"],
                           env=dict(os.environ, XDG_RUNTIME_DIR=run.tmp), capture_output=True, text=True, timeout=limit_s, check=False)
    passed(run, "ipis", limit_s)
    expect(engines(run) == ["kvm"] * 2, f"it ran on {engines(run)}", run)
    told = json.loads(churn.stdout or "{}")
    expect(churn.returncode == 0 and told.get("moves", 0) >= 100, f"moves: {churn.stdout}{churn.stderr}", run)
    return f"{told['moves']} moves, pause p50 {told['pause_p50_us']} us"


# --- refusals -------------------------------------------------------------------------------------------------------
def walks_are_reads():
    """Intel with EPT and without its accessed and dirty bits: there any guest may span nodes."""
    def parameter(name):
        try:
            with open(f"/sys/module/kvm_intel/parameters/{name}", encoding="ascii") as f:
                return f.read().strip()
        except OSError:
            return None
    return parameter("ept") == "Y" and parameter("eptad") == "N"


def refused(run, status, text, limit_s):
    run.wait(limit_s)
    expect(run.status == status, f"not status {status}", run)
    expect(re.search(text, run.errors), f"the message does not say '{text}'", run)
    expect(not run.lines, "the guest ran", run)
    expect(not run.leftovers(), "something is left behind", run)


@case("unmarked-2", 60)
def unmarked(limit_s):
    """Shared page tables over two nodes: refused by name where they go stale; one node may; auto takes bt."""
    run = kvm_run("unmarked", "pagetables", 2, 2, "rounds=2").start()
    if walks_are_reads():
        passed(run, "pagetables", limit_s)
        return
    refused(run, UNSOUND, "page table", limit_s)
    passed(kvm_run("unmarked-one", "pagetables", 1, 2, "rounds=2").start(), "pagetables", limit_s)
    run = passed(kvm_run("unmarked-auto", "pagetables", 2, 2, "rounds=2", engine="auto").start(), "pagetables", limit_s)
    expect(engines(run) == ["bt", "bt"], f"auto took {engines(run)}", run)


def without_kvm(device):
    """A command prefix: a mount namespace in which /dev/kvm is something else."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        raise Skipped("needs root, to hide /dev/kvm in a mount namespace")
    return ("unshare", "-m", "sh", "-c", f'mount --bind {device} /dev/kvm && exec "$@"', "sh")


def stranger(name):
    """A command prefix: an ordinary user, without root's rights to /dev/kvm."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        raise Skipped("needs root and setpriv, to give up rights")
    where = os.path.join(BUILD, "system", f"kvm-{name}")
    shutil.rmtree(where, ignore_errors=True)
    for d in (where, os.path.join(where, "tmp")):
        os.makedirs(d)
        os.chown(d, 65534, 65534)
    return ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all",
            "--inh-caps=-all")


@case("no-rights", 30)
def no_rights(limit_s):
    """No rights to /dev/kvm: named, and nothing half-started; auto runs on bt."""
    if os.stat("/dev/kvm").st_mode & 0o006 == 0o006:
        raise Skipped("everybody may open /dev/kvm here")
    refused(kvm_run("rights", "hello", 2, 1, prefix=stranger("rights")).start(), NO_PERMISSION, "/dev/kvm.*permission",
            limit_s)
    run = kvm_run("rights-auto", "hello", 2, 1, prefix=stranger("rights-auto"), engine="auto").start()
    passed(run, "hello", limit_s)
    expect(engines(run) == ["bt", "bt"], f"auto took {engines(run)}", run)


@case("not-kvm", 30)
def not_kvm(limit_s):
    """/dev/kvm is there, but it is no KVM."""
    refused(kvm_run("not-kvm", "hello", 2, 1, prefix=without_kvm("/dev/null")).start(), NO_KVM, "/dev/kvm.*not KVM",
            limit_s)


@case("faults-2", 60)
def faults(limit_s):
    """Each fault path by name: it runs the payload, or is refused with the words that lead to the other."""
    ran = 0
    for path, other in (("inline", "dispatch"), ("dispatch", "inline")):
        run = kvm_run(f"faults-{path}", "cross", 2, 1, "rounds=2", more=("--faults", path)).start().wait(limit_s)
        if run.status == NO_RIGHTS:
            refused(run, NO_RIGHTS, f"--faults {other}|userfaultfd|perf", limit_s)
        else:
            passed(run, "cross", limit_s)
            ran += 1
    expect(ran, "neither path works, and auto found one")


# --- ends -------------------------------------------------------------------------------------------------------------
@case("crash-2", 60)
def crash(limit_s):
    """A triple fault on a vCPU of either node: status, registers and code, the end of all."""
    for cpu in (0, 3):
        run = kvm_run(f"crash-{cpu}", "crash", 2, 2, f"cpu={cpu}").start().wait(limit_s)
        expect(run.status == 3, "not the status of a crashed guest", run)
        expect(re.search(r"rip [0-9a-f]{8,}", run.errors), "no registers", run)
        expect(re.search(r"\bud2\b", run.errors), "no disassembly of what crashed it", run)
        expect(not run.leftovers(), "something is left behind", run)


@case("internal-error-2", 60)
def internal_error(limit_s):
    """An instruction that KVM's emulation lacks, met on both nodes: the end of a crashed guest, with that instruction."""
    run = kvm_run("internal-error", "lock", 2, 1, "rounds=20").start()
    if not is_software():
        passed(run, "lock", limit_s)
        return
    run.wait(limit_s)
    expect(run.status == 3, "not the status of a crashed guest", run)
    expect(re.search(r"KVM: internal error \d+ \(emulation failed\)", run.errors), "the reason is not told", run)
    expect(re.search(r"rip [0-9a-f]{8,}", run.errors), "no registers", run)
    expect("cmpxchg16b" in run.errors, "no disassembly", run)
    expect(not run.leftovers(), "something is left behind", run)


def spinning(name, nodes, words="", prefix=()):
    run = kvm_run(name, "spin", nodes, 2, words, prefix=prefix).start()
    expect(run.wait_for(r"spin: running", 30), "the payload does not run", run)
    return run


def finish(run):
    if run.status is None:
        run.end()
        run.wait(10)


@case("stop-2", 60)
def stop(_limit_s):
    """SIGTERM of unum: vCPUs that are deep in KVM_RUN leave it."""
    run = spinning("stop", 2)
    try:
        run.process.send_signal(signal.SIGTERM)
        run.wait(10)
        expect(run.status == 130 and not run.timed_out, "not the status of a VM that was left", run)
        expect(engines(run) == ["kvm", "kvm"], f"it ran on {engines(run)}", run)
        left = run.leftovers()
        expect(not left, f"left behind: {left}", run)
    finally:
        finish(run)


@case("kill-slice-3", 120)
def kill_slice(_limit_s):
    """SIGKILL of a slice, each in turn: all end within the limit, with a message that names the node."""
    slowest = 0.0
    for victim in range(3):
        run = spinning(f"kill-{victim}", 3)
        try:
            slices = sorted(pid for pid, name in processes(run.mark) if name == "unum-slice")
            expect(len(slices) == 3, f"{len(slices)} slices, not 3", run)
            killed = time.monotonic()
            os.kill(slices[victim], signal.SIGKILL)
            run.wait(10)
            gone = time.monotonic() - killed
            slowest = max(slowest, gone)
            expect(not run.timed_out and gone <= KILL_LIMIT_S, f"unum ended {gone:.2f} s after the kill", run)
            expect(run.status == 4, "not the status of a lost node", run)
            expect(re.search(r"node .?n\d\b", run.errors), "the message does not name the node", run)
            left = run.leftovers(max(0.0, KILL_LIMIT_S - gone))
            expect(not left, f"left behind after {KILL_LIMIT_S} s: {left}", run)
        finally:
            finish(run)
    return f"slowest {slowest:.2f} s"


@case("rights-lost", 60)
def rights_lost(limit_s):
    """/dev/kvm goes away under a running VM, which has what it needs and goes on."""
    hidden = os.path.join(BUILD, "system", "kvm-rights-lost", "hidden")
    os.makedirs(os.path.dirname(hidden), exist_ok=True)
    if os.path.exists(hidden):
        os.unlink(hidden)
    # In a namespace of its own: /dev/kvm over itself, so that it can be taken away once the flag is there.
    watcher = ('mount --bind /dev/kvm /dev/kvm && { while [ ! -e "$0" ]; do sleep 0.1; done; '
               'mount --bind /dev/null /dev/kvm; } & exec "$@"')
    without_kvm("/dev/null")
    run = spinning("rights-lost", 2, "seconds=4", ("unshare", "-m", "sh", "-c", watcher, hidden))
    try:
        with open(hidden, "w", encoding="ascii"):
            pass
        passed(run, "spin", limit_s)
    finally:
        finish(run)


if __name__ == "__main__":
    sys.exit(main(CASES))
