# SPDX-License-Identifier: Apache-2.0
"""System tests: whole machines from the `unum` command, each with a timeout; the last line counts.

Use     cases.py [PATTERN...]: only the cases whose name has one of the patterns in it; --list names them.
Prints  A line for each case, the tail of its logs when it fails; last "N passed, N failed, N skipped".
        Logs stay in build/system/CASE.
"""
import os
import random
import re
import shutil
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import guest_job
from unum import BUILD, GUEST, PAYLOADS, Run, exit_on_signals, processes

KILL_ROUNDS = 20
KILL_LIMIT_S = 2.0
CASES = []


class Failed(Exception):
    pass


class Skipped(Exception):
    pass


def case(name, limit_s):
    def register(fn):
        CASES.append((name, limit_s, fn))
        return fn
    return register


def expect(holds, text, run=None):
    if not holds:
        raise Failed(text + ("\n" + run.tail() if run else ""))


def local(nodes, vcpus, memory, kernel, initrd=None, cmdline=None, more=()):
    args = ["--local", str(nodes), "--vcpus", str(vcpus), "--memory", memory, "--kernel", kernel]
    args += ["--initrd", initrd] if initrd else []
    args += ["--cmdline", cmdline] if cmdline else []
    return [*args, *more]


# --- payloads ------------------------------------------------------------------------------------------------
def payload_file(name, kind="elf"):
    return os.path.join(PAYLOADS, f"{name}.{kind}")


def payload_run(name, nodes, limit_s, kind="elf", words="", initrd=None, prefix=(), more=()):
    run = Run(f"payload-{name}-{kind}-{nodes}", local(nodes, 4 if nodes < 3 else 6, f"{nodes * 32}MiB",
              payload_file(name, kind), initrd, words, more), prefix=prefix)
    run.run(limit_s)
    expect(not run.timed_out, f"not done after {limit_s} s", run)
    verdicts = [t for _, t in run.lines if t.startswith("PAYLOAD ")]
    expect(verdicts == [f"PAYLOAD {name}: PASS"], f"it said {verdicts or 'nothing'}", run)
    expect(run.status == 0, "it passed, but unum did not end with 0", run)
    left = run.leftovers()
    expect(not left, f"left behind: {left}", run)
    return run


def crossed(run, *keys):
    """Sums of these counters over all slices; all must be above 0 on several nodes."""
    nodes = (run.stats() or {}).get("nodes", [])
    for key in keys:
        expect(len(nodes) == 1 or sum(n.get(key, 0) for n in nodes) > 0, f"no {key} between {len(nodes)} nodes", run)


# Payload: command line, counters that must have moved on several nodes.
PAYLOAD_CASES = {
    "ipi": ("rounds=30", ["ipis_sent_remote"]),
    "lock": ("", ["remote_faults", "pages_sent"]),
    "mmio": ("slots=1", ["mmio_remote"]),
    "cross": ("", ["remote_faults", "pages_sent"]),
    "pagetables": ("", ["remote_faults", "ipis_sent_remote"]),
    "smc": ("", ["remote_faults"]),
    "modes": ("", []),
    "tsc": ("", ["remote_faults"]),
    "timer": ("", []),
    "irq": ("", []),
    "absent": ("", []),
    "regs": ("seconds=1", ["remote_faults"]),
    "ticks": ("seconds=1", ["remote_faults"]),
    "ipis": ("seconds=1", ["ipis_sent_remote"]),
}


def register_payloads():
    def make(name, nodes, words, moved):
        def fn(limit_s):
            crossed(payload_run(name, nodes, limit_s, words=words), *moved)
        return fn

    def make_hello(nodes, kind):
        def fn(limit_s):
            module = payload_file("hello", "pvh")
            cpus = 4 if nodes < 3 else 6
            run = payload_run("hello", nodes, limit_s, kind, f"expect_modules=1 expect_cpus={cpus}", module)
            with open(module, "rb") as f:
                data = f.read()
            said = f"len {len(data)} sum {sum(data) & 0xffffffff} "
            expect(any("module 0 " in t and said in t for _, t in run.lines), f"the module is not '{said}'", run)
        return fn

    for nodes in (1, 2, 3):
        for kind in ("elf", "pvh"):
            case(f"payload-hello-{kind}-{nodes}", 60)(make_hello(nodes, kind))
        for name, (words, moved) in PAYLOAD_CASES.items():
            case(f"payload-{name}-{nodes}", 90)(make(name, nodes, words, moved))


register_payloads()


@case("payload-unprivileged-2", 90)
def unprivileged(limit_s):
    """An ordinary user without any capability, /dev/kvm or userfaultfd runs it all."""
    prefix = ()
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            raise Skipped("no setpriv to drop root's rights with")
        where = os.path.join(BUILD, "system", "payload-lock-elf-2")
        shutil.rmtree(where, ignore_errors=True)
        os.makedirs(os.path.join(where, "tmp"))
        for d in (where, os.path.join(where, "tmp")):
            os.chown(d, 65534, 65534)
        prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs",
                  "--bounding-set=-all", "--inh-caps=-all")
    payload_run("lock", 2, limit_s, prefix=prefix)


@case("crash", 60)
def crash(limit_s):
    """A triple fault on a vCPU of either node: its own status and one message."""
    for cpu in (0, 3):
        run = Run(f"crash-{cpu}", local(2, 4, "64MiB", payload_file("crash"), cmdline=f"cpu={cpu}")).run(limit_s)
        expect(run.status == 3, "not the status of a crashed guest", run)
        expect((run.stats() or {}).get("reason") == "crash", "the statistics do not say crash", run)
        expect(not run.leftovers(), "something is left behind", run)


# --- the Linux guest ----------------------------------------------------------------------------------------------
boot_s = {}


def linux(nodes, vcpus, memory_mib, job, limit_s, more=()):
    run = Run(f"linux-{job}-{nodes}", local(nodes, vcpus, f"{memory_mib}MiB", os.path.join(GUEST, "vmlinuz"),
              os.path.join(GUEST, "initrd"), f"console=ttyS0 quiet unum.job={job}", more))
    run.run(limit_s)
    expect(not run.timed_out, f"not done after {limit_s} s", run)
    return run


def linux_demo(nodes):
    def fn(limit_s):
        memory_mib = 1024 if nodes < 3 else 1026
        vcpus = 4 if nodes < 3 else 3
        run = linux(nodes, vcpus, memory_mib, "demo", limit_s)
        wrong = [what for what, holds in guest_job.checks(run, vcpus, nodes, memory_mib << 10) if not holds]
        expect(not wrong, "does not hold: " + "; ".join(wrong), run)
        expect(not run.leftovers(), "something is left behind", run)
        boot_s[nodes] = (run.results["at_init_uptime_s"], run.seconds)
        note = f"boot {boot_s[nodes][0]:.1f} s, all {run.seconds:.1f} s"
        if nodes == 2 and 1 in boot_s:
            note += f", {run.seconds / boot_s[1][1]:.2f} times the time on one node"
        return note
    return fn


for n in (1, 2, 3):
    case(f"linux-demo-{n}", 300)(linux_demo(n))


@case("linux-devices-2", 300)
def devices(limit_s):
    """Disk, random numbers and virtio console, from vCPUs of both nodes."""
    disk = os.path.join(BUILD, "system", "disk.img")
    with open(disk, "wb") as f:
        f.write(os.urandom(1 << 20))
    with open(disk, "rb") as f:
        before = f.read()
    run = linux(2, 4, 1024, "devices", limit_s, ["--disk", disk])
    import hashlib
    r = run.results
    expect(r.get("vda_sectors") == "2048", "no disk of 1 MiB", run)
    expect(r.get("vda_sha256") == hashlib.sha256(before).hexdigest(), "the disk does not read as its file", run)
    expect(r.get("vda_written_back") == "0", "what was written does not read back", run)
    expect(r.get("rng_bytes") == "256", "no random numbers", run)
    expect(run.status == 0, "the guest did not power off", run)
    with open(disk, "rb") as f:
        after = f.read()
    with open("/usr/bin/stress-ng", "rb") as f:
        written = f.read(65536)
    expect(after[:65536] == written and after[65536:] == before[65536:], "the file does not hold what was written", run)


# --- a bad network --------------------------------------------------------------------------------------------------
CHAOS = ["--chaos", "11"]


def chaos_payload(name):
    """Messages between the nodes late, and overtaking each other: three nodes, on tcp and on shm."""
    def fn(limit_s):
        words, moved = PAYLOAD_CASES[name]
        for fabric in ("tcp", "shm"):
            crossed(payload_run(name, 3, limit_s, words=words, more=[*CHAOS, "--fabric", fabric]), *moved)
    return fn


for payload in ("lock", "ipi", "pagetables"):
    case(f"chaos-{payload}-3", 180)(chaos_payload(payload))


@case("chaos-linux-2", 300)
def chaos_linux(limit_s):
    """A Linux guest boots over two nodes and switches itself off, and does not see that the network is bad."""
    run = linux(2, 2, 512, "poweroff", limit_s, CHAOS)
    expect(run.status == 0, "the guest did not power off", run)
    expect("at_init_uptime_s" in run.results, "it did not boot", run)
    expect(not run.leftovers(), "something is left behind", run)
    return f"{run.seconds:.1f} s"


@case("linux-crash", 300)
def linux_crash(limit_s):
    """A kernel that panics and reboots ends the VM (reboot is an end), with nothing left behind."""
    run = Run("linux-crash-2", local(2, 2, "512MiB", os.path.join(GUEST, "vmlinuz"), os.path.join(GUEST, "initrd"),
              "console=ttyS0 quiet panic=-1 unum.job=crash")).run(limit_s)
    expect(not run.timed_out, "not done", run)
    expect("Kernel panic" in run.text(), "no panic on the console", run)
    expect(not run.leftovers(), "something is left behind", run)


# --- kills ---------------------------------------------------------------------------------------------------------
def kill_round(i, kind, nodes, rng):
    """SIGKILL of one process of a running VM: all end within the limit, with a message that names the node."""
    run = Run(f"kill-{kind}-{i}", local(nodes, 2 * nodes, f"{32 * nodes}MiB", payload_file("spin"))).start()
    try:
        expect(run.wait_for(r"spin: running", 30), "the payload does not run", run)
        time.sleep(rng.random() * 0.3)
        victims = [pid for pid, name in processes(run.mark) if name == kind]
        expect(len(victims) == nodes, f"{len(victims)} processes {kind}, not {nodes}", run)
        killed = time.monotonic()
        os.kill(rng.choice(victims), signal.SIGKILL)
        run.wait(10)
        gone = time.monotonic() - killed
        left = run.leftovers(max(0.0, KILL_LIMIT_S - gone))
        expect(not run.timed_out and gone <= KILL_LIMIT_S, f"unum ended {gone:.2f} s after the kill", run)
        expect(run.status == 4, "not the status of a lost node", run)
        expect(re.search(r"node .?n\d\b", run.errors),
               "the message does not name the node", run)
        expect(not left, f"left behind after {KILL_LIMIT_S} s: {left}", run)
        return gone
    finally:
        if run.status is None:
            run.end()
            run.wait(10)


def kills(kind, nodes):
    def fn(_limit_s):
        rng = random.Random(f"{kind} {nodes}")
        times = [kill_round(i, kind, nodes, rng) for i in range(KILL_ROUNDS)]
        return f"{KILL_ROUNDS} of {KILL_ROUNDS}, slowest {max(times):.2f} s"
    return fn


case("kill-slice-2", 200)(kills("unum-slice", 2))
case("kill-agent-2", 200)(kills("unumd", 2))
case("kill-slice-3", 200)(kills("unum-slice", 3))


@case("leave-2", 60)
def leave(limit_s):
    """SIGTERM of unum itself: its own status, nothing left behind."""
    run = Run("leave", local(2, 4, "64MiB", payload_file("spin"))).start()
    expect(run.wait_for(r"spin: running", 30), "the payload does not run", run)
    run.process.send_signal(signal.SIGTERM)
    run.wait(limit_s)
    expect(run.status == 130, "not the status of a VM that was left", run)
    left = run.leftovers()
    expect(not left, f"left behind: {left}", run)


@case("unum-killed-2", 60)
def unum_killed(_limit_s):
    """SIGKILL of unum itself: agents and slices end, too."""
    run = Run("unum-killed", local(2, 4, "64MiB", payload_file("spin"))).start()
    expect(run.wait_for(r"spin: running", 30), "the payload does not run", run)
    run.process.kill()
    run.wait(10)
    left = run.leftovers(KILL_LIMIT_S)
    for pid, _ in processes(run.mark):
        os.kill(pid, signal.SIGKILL)
    left = [x for x in left if x.startswith("process")]
    expect(not left, f"left behind: {left}", run)


# --- runner --------------------------------------------------------------------------------------------------------
def main(cases=None):
    """Runs those of the cases, (name, seconds, function), that the command line names."""
    exit_on_signals()
    words = [a for a in sys.argv[1:] if not a.startswith("-")]
    chosen = [c for c in cases or CASES if not words or any(w in c[0] for w in words)]
    if "--list" in sys.argv[1:]:
        print("\n".join(name for name, _, _ in cases or CASES))
        return 0
    counts = {"ok": 0, "FAIL": 0, "SKIP": 0}
    for name, limit_s, fn in chosen:
        began = time.monotonic()
        verdict, note = "ok", ""
        try:
            note = fn(limit_s) or ""
        except Failed as e:
            verdict, note = "FAIL", str(e)
        except Skipped as e:
            verdict, note = "SKIP", str(e)
        except Exception as e:  # pylint: disable=broad-except
            verdict, note = "FAIL", f"{type(e).__name__}: {e}"
        counts[verdict] += 1
        print(f"  {verdict:5} {name} ({time.monotonic() - began:.1f} s){': ' + note if note else ''}", flush=True)
    print(f"{counts['ok']} passed, {counts['FAIL']} failed, {counts['SKIP']} skipped")
    return 0 if counts["FAIL"] == 0 and counts["ok"] > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
