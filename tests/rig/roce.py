#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tests/rig/roce.py [--seconds S] [--bin DIR] [WORD...] - the RDMA backends over soft-RoCE, between two emulated hosts.

What    Two hosts (tests/rig/host.py), joined by a network of their own, each with an RDMA device rxe0 on it.  First the
        conformance suite, both ends in one process: verbs on host 1, ofi on host 2.
        Then unum-stress with a node on each host, over verbs, ofi and ucx.  Its oracle is in memory that both
        hosts have (a device of QEMU), so a wrong byte anywhere is seen.  In the middle of each, host 1's cable is
        pulled for CUT_S seconds.  Last, payload guests (bt) with a vCPU on each host, by agents and topology file.
WORD    Only the cases whose name has one of these words; the names are conform-BACKEND, stress-BACKEND, vm-PAYLOAD.
Output  A line per case, `N violations` per stress, at last `N passed, N failed, N skipped`.
Exit    0 when nothing failed.
Owns    A folder under build/rig/runs while it runs: the network's socket, the shared memory, the monitors.
"""
import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.join(os.path.dirname(os.path.dirname(HERE)), "build")
RUNS = os.path.join(BUILD, "rig", "runs")
PAYLOADS = os.path.join(BUILD, "payloads")
SHARED_BYTES = 32 << 20
STRESS_BYTES = 8 << 20  # of it, for each stress
CUT_S = 2  # the control stream gives a silent peer 5 s, and notices the end of a cut after up to one
PORT = 7000
BACKENDS = {"verbs": "rxe0", "ofi": "verbs;ofi_rxm", "ucx": "rxe0:1"}
CONFORM = {1: "verbs", 2: "ofi"}  # not ucx: see docs/testing.md
CONFORM_S = 150
VMS = {"hello": "", "lock": "rounds=20 wide=0", "cross": "rounds=2"}  # payload: its command line
VM_S = 120
BOOT_S = 60


def options():
    p = argparse.ArgumentParser(prog="tests/rig/roce.py", formatter_class=argparse.RawDescriptionHelpFormatter,
                                description=__doc__)
    p.add_argument("--seconds", type=float, default=20, metavar="S", help="of each stress (20)")
    p.add_argument("--bin", default="build", metavar="DIR", help="where the programs were built (build)")
    p.add_argument("--nice", help="as tests/rig/host.py --nice")
    p.add_argument("--inside", type=int, metavar="N", help=argparse.SUPPRESS)
    p.add_argument("--folder", help=argparse.SUPPRESS)
    p.add_argument("word", nargs="*", metavar="WORD")
    return p.parse_args()


def wanted(a, name):
    return not a.word or any(w in name for w in a.word)


# --- in a host -------------------------------------------------------------------------------------------------------


def tell(what, **more):
    """A line for the program outside."""
    print("@" + json.dumps({"what": what, **more}), flush=True)


def sh(line):
    subprocess.run(line, shell=True, check=True)


def network_up(me):
    for module in "virtio_net", "crc32_generic", "rdma_rxe", "rdma_ucm", "ib_uverbs":  # rxe does not ask for its CRC
        sh(f"modprobe {module}")
    # After a cut the kernel looks for its neighbour again, and gives each question that went astray a second.
    for family in "ipv4", "ipv6":
        with open(f"/proc/sys/net/{family}/neigh/eth0/retrans_time_ms", "w", encoding="ascii") as f:
            f.write("250")
    sh(f"ip addr add 10.77.0.{me}/24 dev eth0 && ip link set eth0 mtu 4200 up && rdma link add rxe0 type rxe netdev eth0")


def meet(me):
    """A connection to the other host, to go on together."""
    until = time.monotonic() + BOOT_S
    if me == 1:
        server = socket.create_server(("10.77.0.1", PORT))
        server.settimeout(BOOT_S)
        return server.accept()[0]
    while True:
        try:
            return socket.create_connection(("10.77.0.1", PORT), 5)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def together(s, limit_s):
    s.settimeout(limit_s)
    s.sendall(b"x")
    if s.recv(1) != b"x":
        raise OSError("the other host is gone")


def run(args, limit_s):
    """(status, output) of a program."""
    try:
        r = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit_s, check=False)
        return r.returncode, r.stdout
    except subprocess.TimeoutExpired as e:
        return 124, (e.stdout or b"").decode(errors="replace") + f"\nnot done in {limit_s} s"


def conform(a, backend):
    status, out = run([f"{a.bin}/tests/conform/fabric_conform", f"{backend}={BACKENDS[backend]}"], CONFORM_S)
    cases = len(re.findall(r"^  ok ", out, re.M))
    tell("result", name=f"conform-{backend}", ok=status == 0 and cases > 0, text=f"{cases} cases", out=out)


def shared_memory(part):
    """A file of the size of one part, for a stress: they start from zeroes."""
    for device in os.listdir("/sys/bus/pci/devices"):
        path = f"/sys/bus/pci/devices/{device}"
        with open(f"{path}/device", encoding="ascii") as f:
            if f.read().strip() == "0x1110":
                return f"{path}/resource2", part * STRESS_BYTES
    raise OSError("no memory is shared with the other host")


def carrier_changes():
    with open("/sys/class/net/eth0/carrier_changes", encoding="ascii") as f:
        return int(f.read())


def stress(a, me, part, backend):
    path, offset = shared_memory(part)
    before = carrier_changes()
    tell("stress", name=f"stress-{backend}")
    status, out = run([f"{a.bin}/bin/unum-stress", "--transport", backend, "--device", BACKENDS[backend], "--nodes", "2",
                       "--only", str(me - 1), "--shared", f"{path}+{offset}", "--listen", f"10.77.0.{me}:0", "--region",
                       "256KiB", "--seconds", str(a.seconds)], a.seconds + 90)
    pulled = me == 2 or carrier_changes() - before >= 2  # it is host 1's
    found = re.search(r'"remote_faults":(\d+).*"violations":(\d+)', out)
    text = f"{found[2]} violations, {found[1]} remote faults" if found else ""
    # Node 0 reports for both.
    ok = status == 0 and pulled and bool(found) == (me == 1)
    tell("result", name=f"stress-{backend}", ok=ok, text=text + ("" if pulled else "; the cable was not pulled"), out=out)


TOPOLOGY = """pool: roce
key: {key}
nodes:
  - {{ name: h1, address: 10.77.0.1, cpus: 1, memory: 192MiB, fabric: {{ backend: verbs, device: rxe0 }} }}
  - {{ name: h2, address: 10.77.0.2, cpus: 1, memory: 192MiB, fabric: {{ backend: verbs, device: rxe0 }} }}
vms:
  - name: vm
    vcpus: 2
    memory: 384MiB
    engine: bt
    kernel: {kernel}
    cmdline: "{words}"
"""


def vms(a, me, other, names):
    """An agent on each host; host 1 runs the guests."""
    key = os.path.join(a.folder, "key")
    limit_s = len(names) * VM_S + 60
    agent = subprocess.Popen([f"{a.bin}/bin/unumd", "--listen", f"10.77.0.{me}:7701", "--key", key, "--name", f"h{me}"])
    try:
        together(other, limit_s)
        for name in names if me == 1 else ():
            with open("/tmp/roce.yaml", "w", encoding="ascii") as f:
                f.write(TOPOLOGY.format(key=key, kernel=f"{PAYLOADS}/{name}.elf", words=VMS[name]))
            began = time.monotonic()
            status, out = run([f"{a.bin}/bin/unum", "run", "/tmp/roce.yaml", "--stats-json", "/tmp/roce.json"], VM_S)
            ok, text = status == 0 and f"PAYLOAD {name}: PASS" in out, f"{time.monotonic() - began:.1f} s"
            if ok:
                with open("/tmp/roce.json", encoding="utf-8") as f:
                    text += ", pages over verbs " + "+".join(str(n["pages_sent"]) for n in json.load(f)["nodes"])
            tell("result", name=f"vm-{name}", ok=ok, text=text, out=f"status {status}\n{out}")
        together(other, limit_s)
    finally:
        agent.terminate()
        agent.wait()


def inside(a):
    me = a.inside
    # docs/running.md, soft-RoCE: UCX wants an IPv6 address.  Its 40 MiB of receive buffers a node are too much in here.
    os.environ.update(UCX_IB_GID_INDEX="0", UCX_RC_VERBS_RX_QUEUE_LEN="512",
                      UCX_UD_VERBS_RX_QUEUE_LEN="512")
    network_up(me)
    other = meet(me)
    if wanted(a, f"conform-{CONFORM[me]}"):
        conform(a, CONFORM[me])
    for part, backend in enumerate(BACKENDS):
        if wanted(a, f"stress-{backend}"):
            together(other, len(BACKENDS) * CONFORM_S + a.seconds + 120)
            stress(a, me, part, backend)
    names = [name for name in VMS if wanted(a, f"vm-{name}")]
    if names:
        together(other, CONFORM_S + a.seconds + 120)
        vms(a, me, other, names)
    return 0


# --- outside ---------------------------------------------------------------------------------------------------------


class Host:
    """One emulated host, and what it has told."""

    def __init__(self, a, number, folder):
        self.number, self.results, self.stress, self.began = number, {}, None, threading.Event()
        wire = os.path.join(folder, "wire")
        self.monitor = os.path.join(folder, f"monitor{number}")
        args = [os.path.join(HERE, "host.py"), "run", "--mac", str(number), "--memory", "2G",
                "--shared", os.path.join(folder, "memory"), "--monitor", self.monitor, "--timeout",
                str(len(BACKENDS) * (CONFORM_S + a.seconds + 90)),
                "--net", f"stream,server={'on' if number == 1 else 'off'},addr.type=unix,addr.path={wire}"]
        args += ["--nice", a.nice] if a.nice else []
        args += ["python3", "-B", os.path.abspath(__file__), "--inside", str(number), "--folder", folder, "--bin", a.bin,
                 "--seconds", str(a.seconds), *a.word]
        self.process = subprocess.Popen(args, stdout=subprocess.PIPE, text=True, errors="replace")
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        until = time.monotonic() + BOOT_S
        while number == 1 and not os.path.exists(wire) and time.monotonic() < until:
            time.sleep(0.05)

    def read(self):
        for line in self.process.stdout:
            if not line.startswith("@"):
                print(f"host {self.number}: {line}", end="", flush=True)
                continue
            told = json.loads(line[1:])
            if told["what"] == "stress":
                self.stress = told["name"]
                self.began.set()
                continue
            self.results[told["name"]] = told["ok"]
            print(f"  {'ok' if told['ok'] else 'FAIL'} {told['name']} (host {self.number}) {told['text']}", flush=True)
            if not told["ok"]:
                print(told["out"], flush=True)

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
        self.reader.join(5)


def cable_pull(host):
    """Out of the host's card, and in again, by the monitor of its QEMU (QMP)."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
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
        ask("set_link", name="net0", up=False)
        began = time.monotonic()
        time.sleep(CUT_S)
        ask("set_link", name="net0", up=True)
        print(f"  ..  {host.stress}: the cable was out for {time.monotonic() - began:.1f} s", flush=True)


def cables(a, host):
    """Pulls the host's cable in the middle of each stress."""
    while host.process.poll() is None:
        if host.began.wait(0.5):
            host.began.clear()
            time.sleep(a.seconds / 2 + 3)  # nodes have to meet first
            cable_pull(host)


def main():
    a = options()
    if a.inside:
        return inside(a)
    for number in signal.SIGTERM, signal.SIGHUP, signal.SIGINT:  # so that the hosts end too
        signal.signal(number, lambda n, _frame: sys.exit(128 + n))
    os.makedirs(RUNS, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="roce-", dir=RUNS)
    hosts = []
    names = [f"conform-{b}" for b in CONFORM.values()] + [f"stress-{b}" for b in BACKENDS] + [f"vm-{name}" for name in VMS]
    names = [n for n in names if wanted(a, n)]
    try:
        with open(os.path.join(folder, "memory"), "wb") as f:
            f.truncate(SHARED_BYTES)
        subprocess.run([f"{a.bin}/bin/unum", "keygen", os.path.join(folder, "key")], stdout=subprocess.DEVNULL, check=True)
        for number in 1, 2:
            hosts.append(Host(a, number, folder))
        try:
            cables(a, hosts[0])
        except OSError as e:
            print(f"roce: {e}")
        for host in hosts:
            host.process.wait()
    finally:
        for host in hosts:
            host.end()
        shutil.rmtree(folder, ignore_errors=True)
    good = sum(all(n in h.results and h.results[n] for h in hosts if n.startswith("stress") or n in h.results) and
               any(n in h.results for h in hosts) for n in names)
    print(f"{good} passed, {len(names) - good} failed, 0 skipped")
    return 0 if names and good == len(names) else 1


if __name__ == "__main__":
    sys.exit(main())
