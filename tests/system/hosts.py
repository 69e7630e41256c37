# SPDX-License-Identifier: Apache-2.0
"""What this very host can do, and what is refused on it: `unum doctor`, the choice of an engine, /dev/kvm out of reach.

Use     hosts.py [PATTERN...], like cases.py.
Limits  Cases that take /dev/kvm away need root (a mount namespace, or another user); they leave the device alone.
"""
import json
import os
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cases import Skipped, expect, local, main, payload_file
from unum import BUILD, GUEST, TOP, UNUM, Run

CASES = []
NOBODY = 65534


def case(name, limit_s):
    def register(fn):
        CASES.append((name, limit_s, fn))
        return fn
    return register


# --- doctor --------------------------------------------------------------------------------------------------------
def doctor(*args, prefix=()):
    return subprocess.run([*prefix, UNUM, "doctor", *args], capture_output=True, text=True, timeout=60, check=False, cwd=TOP)


def this_host(prefix=()):
    r = doctor("--json", prefix=prefix)
    expect(r.returncode in (0, 6), f"doctor ended with {r.returncode}: {r.stderr}")
    return json.loads(r.stdout)["hosts"][0]


def number(x):
    return isinstance(x, int) and not isinstance(x, bool)


# Path, what must hold there.
FIELDS = {
    "version": lambda v: v == 1,
    "node": lambda v: v is None,
    "host": lambda v: v == os.uname().nodename,
    "release": lambda v: v == os.uname().release,
    "cpu.online": lambda v: v == os.sysconf("SC_NPROCESSORS_ONLN"),
    "cpu.x86_64_v2": lambda v: v is True,
    "cpu.features": lambda v: isinstance(v, str),
    "bt.ok": lambda v: v is True,
    "kvm.usable.ok": lambda v: v in (True, False),
    "kvm.kind": lambda v: v in ("none", "vmx", "svm", "software"),
    "kvm.eptad": lambda v: v in ("unknown", "off", "on"),
    "kvm.shared.ok": lambda v: v in (True, False),
    "kvm.inline.ok": lambda v: v in (True, False),
    "kvm.dispatch.ok": lambda v: v in (True, False),
    "kvm.vcpus_max": number,
    "rights.userfaultfd.ok": lambda v: v in (True, False),
    "rights.perf.ok": lambda v: v in (True, False),
    "tsc.khz": lambda v: number(v) and v > 100000,
    "tsc.invariant": lambda v: v in (True, False),
    "memory.total_kib": lambda v: abs(v - os.sysconf("SC_PHYS_PAGES") * 4) < 1 << 20,
    "memory.free_kib": lambda v: number(v) and v > 0,
    "clock.error_us": number,
    "fabric.backends": lambda v: "tcp" in v,
    "fabric.interfaces": lambda v: {i["name"] for i in v} <= set(os.listdir("/sys/class/net")),
    "verdict.one.engine": lambda v: v in ("bt", "kvm"),
    "verdict.several.engine": lambda v: v in ("bt", "kvm"),
    "verdict.several_private.engine": lambda v: v in ("bt", "kvm"),
    "findings": lambda v: len(v) > 5 and all(f["level"] in ("ok", "note", "problem") and f["text"] for f in v),
}


@case("doctor-json", 60)
def doctor_json(_limit_s):
    """Valid JSON with every field that is promised, and figures that are this host's."""
    host = this_host()
    for path, holds in FIELDS.items():
        value = host
        for key in path.split("."):
            expect(isinstance(value, dict) and key in value, f"there is no {path}")
            value = value[key]
        expect(holds(value), f"{path} is {value!r}")
    for span, v in host["verdict"].items():
        expect((v["engine"] == "kvm") == (v["why"] == ""), f"{span}: {v}")
        expect(v["engine"] != "kvm" or v["faults"] in ("none", "inline", "dispatch"), f"{span}: {v}")


@case("doctor-words", 60)
def doctor_words(_limit_s):
    """For people: a line for each finding, a command behind every fix, the verdicts last."""
    host, r = this_host(), doctor()
    expect(r.returncode == 0 and not r.stderr, f"status {r.returncode}, {r.stderr}")
    lines = r.stdout.rstrip("\n").split("\n")
    expect(lines[0] == f"this host: {host['host']} (Linux {host['release']})", lines[0])
    for line in lines[1:-3]:
        expect(line.startswith(("  ok       ", "  note     ", "  problem  ", "           fix: ")), f"what is this: {line}")
    for line, words, span in zip(lines[-3:], ("one node", "several nodes", "several nodes, no shared page tables"),
                                 ("one", "several", "several_private")):
        expect(line.startswith(f"{words}: engine {host['verdict'][span]['engine']}"), f"what is this: {line}")


# --- fabric --------------------------------------------------------------------------------------------------------
def fabric(*args):
    return subprocess.run([UNUM, "fabric", *args], capture_output=True, text=True, timeout=120, check=False, cwd=TOP)


@case("fabric-words", 60)
def fabric_words(_limit_s):
    """This host: what it has is said, and every backend is tried."""
    r = fabric()
    expect(r.returncode == 0, f"status {r.returncode}, {r.stderr}")
    for word in ("tcp: works", "shm: works", "verbs: ", "ofi: ", "ucx: "):
        expect(word in r.stdout, f"it does not say {word}: {r.stdout}")
    host = json.loads(fabric("--json").stdout)["hosts"][0]
    expect([t["name"] for t in host["tried"]] == host["fabric"]["backends"], f"not every backend was tried: {host['tried']}")
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
        expect(host["fabric"]["host"].startswith(f.read().strip()), "it is not this host")


@case("fabric-measured-3", 120)
def fabric_measured(_limit_s):
    """Three agents on this host, each pair joined by shared memory and by tcp, with figures that can be."""
    where = os.path.join(BUILD, "system", "fabric-measured-3")
    os.makedirs(where, exist_ok=True)
    key, path = os.path.join(where, "pool.key"), os.path.join(where, "lab.yaml")
    if os.path.exists(key):
        os.unlink(key)
    subprocess.run([UNUM, "keygen", key], check=True, timeout=10)
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [s.getsockname()[1] for s in socks]
    for s in socks:
        s.close()
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"pool: lab\nkey: {key}\nnodes:\n")
        for i, port in enumerate(ports):
            f.write(f"  - {{ name: n{i}, address: 127.0.0.1, port: {port}, cpus: 1, memory: 64MiB }}\n")
        f.write("vms: []\n")
    agents = [subprocess.Popen([os.path.join(BUILD, "bin", "unumd"), "--listen", f"127.0.0.1:{port}", "--key", key],
                               stderr=subprocess.DEVNULL) for port in ports]
    try:
        for port in ports:
            wait_for_port(port)
        r = fabric(path, "--json")
    finally:
        for a in agents:
            a.terminate()
            a.wait(10)
    expect(r.returncode == 0, f"status {r.returncode}: {r.stdout} {r.stderr}")
    told = json.loads(r.stdout)
    expect([(p["from"], p["to"]) for p in told["pairs"]] == [("n0", "n1"), ("n0", "n2"), ("n1", "n2")], "not each pair")
    for p in told["pairs"]:
        expect([m["backend"] for m in p["measured"]] == ["shm", "tcp"], f"not joined by shm and tcp: {p}")
        for m in p["measured"]:
            expect(m["trouble"] == "" and m["round_trips"] > 1 and m["bytes_per_s"] > 1e6 and
                   100 < m["min_ns"] <= m["p50_ns"] <= m["p99_ns"] < 5e9, f"figures that cannot be: {m}")
    shm, tcp = (sorted(p["measured"][i]["min_ns"] for p in told["pairs"])[1] for i in (0, 1))
    expect(shm < tcp, f"shm takes {shm} ns, tcp {tcp} ns")
    return f"shm {shm / 1000:.1f} us, tcp {tcp / 1000:.1f} us"


def wait_for_port(port):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    expect(False, f"nobody listens at port {port}")


# --- choice --------------------------------------------------------------------------------------------------------
def nothing_started(run, status, *texts):
    expect(run.status == status, f"not status {status}", run)
    for t in (*texts, "unum: nothing was started"):
        expect(t in run.errors, f"it does not say '{t}'", run)
    expect("memory ready" not in run.errors, "a slice was started", run)
    expect(not run.lines, "there is something on the console", run)
    left = run.leftovers()
    expect(not left, f"left behind: {left}", run)


@case("engine-auto-2", 60)
def auto_says_so(limit_s):
    """A VM that does not name its engine: what it gets on two nodes is told, and why it is not kvm."""
    verdict = this_host()["verdict"]["several"]
    run = Run("engine-auto-2", local(2, 2, "64MiB", payload_file("absent"))).run(limit_s)
    expect(run.status == 0, "it did not run", run)
    engines = {n["engine"] for n in run.stats()["nodes"]}
    if "unum: engine bt, not kvm: " in run.errors:
        expect(engines == {"bt"}, f"it ran on {engines}", run)
        expect("engine bt, not kvm: node n0: " in run.errors, "the node is not named", run)
        return verdict["why"]
    expect(engines == {"kvm"} and "unum: engine kvm, " in run.errors, f"it ran on {engines} without a word", run)
    return "kvm"


@case("engine-bt-2", 60)
def bt_named(limit_s):
    """Who names bt gets it without a look at the host."""
    run = Run("engine-bt-2", local(2, 2, "64MiB", payload_file("absent"), more=["--engine", "bt"])).run(limit_s)
    expect(run.status == 0 and "unum: engine" not in run.errors, "bt was not simply taken", run)


@case("engine-unsound-2", 60)
def unsound(limit_s):
    """Linux shares page tables between its CPUs: where nested walks are no reads, two nodes are refused with what mends it."""
    host = this_host()
    if not host["kvm"]["usable"]["ok"]:
        raise Skipped("no KVM here: " + host["kvm"]["usable"]["why"])
    if host["verdict"]["several"]["kvm"]:
        raise Skipped("KVM of this host is sound over several nodes")
    v = host["verdict"]["several"]
    run = Run("engine-unsound-2", local(2, 2, "256MiB", os.path.join(GUEST, "vmlinuz"), more=["--engine", "kvm"])).run(limit_s)
    for n in ("n0", "n1"):
        nothing_started(run, 6 if v["refusal"] == "unsound" else 11,
                        f"node '{n}': engine kvm: {v['why']}" + (f"; fix: {v['fix']}" if v["fix"] else ""))
    return v["why"]


# --- /dev/kvm out of reach -----------------------------------------------------------------------------------------
def as_root():
    if os.geteuid() != 0:
        raise Skipped("only root can take /dev/kvm away")


# A /dev of a few devices, in a mount namespace of its own.  $KVM: what stands in for /dev/kvm, empty: nothing.
SMALL_DEV = """
set -e
mount -t tmpfs dev "$DEV"
for n in null zero full random urandom; do : > "$DEV/$n"; mount --bind "/dev/$n" "$DEV/$n"; done
if [ -n "$KVM" ]; then : > "$DEV/kvm"; mount --bind "$KVM" "$DEV/kvm"; fi
mount --move "$DEV" /dev
exec "$@"
"""


def small_dev(kvm=""):
    as_root()
    where = os.path.join(BUILD, "system", "dev")
    os.makedirs(where, exist_ok=True)
    prefix = ("env", f"DEV={where}", f"KVM={kvm}", "unshare", "--mount", "sh", "-c", SMALL_DEV, "sh")
    r = subprocess.run([*prefix, "true"], capture_output=True, text=True, timeout=20, check=False)
    if r.returncode:
        raise Skipped("no mount namespace: " + r.stderr.strip())
    return prefix


def other_user():
    as_root()
    return ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs", "--bounding-set=-all",
            "--inh-caps=-all")


def out_of_reach(name, limit_s, prefix, status, word, *texts):
    """Named, kvm is refused; not named, bt runs and the reason is told; doctor knows it too."""
    host = this_host(prefix)
    expect(host["verdict"]["one"]["refusal"] == word, f"doctor says {host['verdict']['one']}")
    for nodes in (1, 2):
        run = Run(f"{name}-{nodes}", local(nodes, 2, "64MiB", payload_file("absent"), more=["--engine", "kvm"]), prefix=prefix)
        nothing_started(run.run(limit_s), status, "node 'n0': engine kvm: ", *texts)
    run = Run(f"{name}-auto", local(1, 1, "64MiB", payload_file("absent")), prefix=prefix).run(limit_s)
    expect(run.status == 0, "bt did not run", run)
    for t in ("unum: engine bt, not kvm: node n0: ", *texts):
        expect(t in run.errors, f"it does not say '{t}'", run)
    return host["kvm"]["usable"]["why"]


@case("kvm-not-there", 60)
def not_there(limit_s):
    return out_of_reach("kvm-not-there", limit_s, small_dev(), 7, "no-kvm", "/dev/kvm is not there")


@case("kvm-no-permission", 60)
def no_permission(limit_s):
    if not os.path.exists("/dev/kvm"):
        raise Skipped("no /dev/kvm here")
    if os.stat("/dev/kvm").st_mode & 0o006 == 0o006:
        raise Skipped("everybody may open /dev/kvm here")
    return out_of_reach("kvm-no-permission", limit_s, other_user(), 8, "no-permission", "no permission",
                        "fix: usermod -aG kvm USER")


@case("kvm-something-else", 60)
def something_else(limit_s):
    """A device of that name that is no KVM."""
    return out_of_reach("kvm-something-else", limit_s, small_dev("/dev/null"), 7, "no-kvm", "/dev/kvm is something else")


if __name__ == "__main__":
    sys.exit(main(CASES))
