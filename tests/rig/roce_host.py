# SPDX-License-Identifier: Apache-2.0
"""tests/rig/roce_host.py - what tests/rig/roce.py does inside an emulated host.

What    Every host goes through the same list of cases in the same order, and takes part in those that have its number.
        Host 1 is where they meet before each case with others.
Output  Lines of JSON after "@" for the program outside; all else is for the reader.
"""
import json
import os
import re
import socket
import subprocess
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.join(os.path.dirname(os.path.dirname(HERE)), "build")
PAYLOADS = os.path.join(BUILD, "payloads")
STRESS_BYTES = 8 << 20  # of the shared memory, for each stress
PORT, AGENT_PORT = 7000, 7701
DEVICES = {"verbs": "rxe0", "ofi": "verbs;ofi_rxm", "ucx": "rxe0:1"}
VMS = {"hello": "", "lock": "rounds=20 wide=0", "cross": "rounds=2"}  # payload: its command line
MEET_S = 3600  # hosts wait for the slowest
BOOT_S, CONFORM_S, VM_S, LINUX_S = 60, 300, 300, 1500
NODE_MIB = 128
TRIES, STILL_S = 2, 2  # a case that failed where a host stood still is tried again: links rightly end after 5 s
FAILED, STILL = 1, 2
TOPOLOGY = """pool: roce
key: {key}
dead_after: 60s
nodes:
  - {{ name: h1, address: 10.77.0.1, cpus: 1, memory: {mib}MiB, fabric: {{ {fabric} }} }}
  - {{ name: h2, address: 10.77.0.2, cpus: 1, memory: {mib}MiB, fabric: {{ {fabric} }} }}
vms:
  - name: vm
    vcpus: 2
    memory: {both}MiB
    engine: bt
    kernel: {kernel}
    cmdline: "{words}"
"""


def tell(what, **more):
    """A line for the program outside."""
    print("@" + json.dumps({"what": what, **more}), flush=True)


def sh(line):
    subprocess.run(line, shell=True, check=True)


def run(args, limit_s):
    """(status, output) of a program."""
    try:
        r = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                           timeout=limit_s, check=False)
        return r.returncode, r.stdout
    except subprocess.TimeoutExpired as e:
        return 124, (e.stdout or b"").decode(errors="replace") + f"\nnot done in {limit_s:.0f} s"


class Pulse(threading.Thread):
    """The longest time that this host stood still: the machine that emulates it may be busy with other things."""

    def __init__(self):
        super().__init__(daemon=True)
        self.longest_s = 0.0
        self.start()

    def run(self):
        last = time.monotonic()
        while True:
            time.sleep(0.1)
            now = time.monotonic()
            self.longest_s = max(self.longest_s, now - last - 0.1)
            last = now

    def take(self):
        longest_s, self.longest_s = self.longest_s, 0.0
        return longest_s


def network_up(me):
    for module in "virtio_net", "crc32_generic", "rdma_rxe", "rdma_ucm", "ib_uverbs":  # rxe does not ask for its CRC
        sh(f"modprobe {module}")
    # After a cut the kernel looks for its neighbour again, and gives each question that went astray a second.
    for family in "ipv4", "ipv6":
        with open(f"/proc/sys/net/{family}/neigh/eth0/retrans_time_ms", "w", encoding="ascii") as f:
            f.write("250")
    sh(f"ip addr add 10.77.0.{me}/24 dev eth0 && ip link set eth0 mtu 4200 up && rdma link add rxe0 type rxe netdev eth0")


class Others:
    """Connections to the other hosts, by number: host 1 has all, the others have one, to host 1."""

    def __init__(self, me, hosts):
        self.me, self.sockets = me, {}
        until = time.monotonic() + MEET_S
        if me == 1:
            server = socket.create_server(("10.77.0.1", PORT))
            server.settimeout(MEET_S)
            while len(self.sockets) < hosts - 1:
                s, (address, _) = server.accept()
                self.sockets[int(address.rsplit(".", 1)[1])] = s
        while me != 1 and not self.sockets:
            try:
                self.sockets[1] = socket.create_connection(("10.77.0.1", PORT), 5)
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def meet(self, hosts, mine=0):
        """Goes on when all of these are here; returns the bits of all."""
        sockets = [s for number, s in self.sockets.items() if number in hosts]
        if self.me != 1 and sockets:
            sockets[0].sendall(bytes([mine]))
        for s in sockets:
            s.settimeout(MEET_S)
            got = s.recv(1)
            if not got:
                raise OSError("another host is gone")
            mine |= got[0]
        if self.me == 1:
            for s in sockets:
                s.sendall(bytes([mine]))
        return mine


# --- cases -----------------------------------------------------------------------------------------------------------


# They count our own calls, need an interface to take down, or drive libfabric where an emulated host has no memory for it.
LEFT_OUT = {"verbs": "-data_path_counts,host_vanishes",
            "ofi": "-data_path_counts,host_vanishes,standstill_while_connecting,closing_while_connecting,sleepers_beside_pollers"}


def conform(a, backend):
    status, out = run([f"{a.bin}/tests/conform/fabric_conform", f"{backend}={DEVICES[backend]}", LEFT_OUT[backend]], CONFORM_S)
    cases = len(re.findall(r"^  ok ", out, re.M))
    return status == 0 and cases > 0, f"{cases} cases", f"status {status}\n{out}"


def shared_memory():
    for device in os.listdir("/sys/bus/pci/devices"):
        path = f"/sys/bus/pci/devices/{device}"
        with open(f"{path}/device", encoding="ascii") as f:
            if f.read().strip() == "0x1110":
                return f"{path}/resource2"
    raise OSError("no memory is shared with the other hosts")


def carrier_changes():
    with open("/sys/class/net/eth0/carrier_changes", encoding="ascii") as f:
        return int(f.read())


def stress(a, case, part):
    """Node 0, which is host 1, reports for all.  Each has zeroes of its own to start from."""
    me, before = a.inside, carrier_changes()
    seconds = min(a.seconds, case.limit_s)
    tell("stress", name=case.name, seconds=seconds)
    status, out = run([f"{a.bin}/bin/unum-stress", "--transport", case.what, "--device", DEVICES[case.what], "--nodes",
                       str(len(case.hosts)), "--only", str(me - 1), "--shared",
                       f"{shared_memory()}+{part * STRESS_BYTES}", "--listen", f"10.77.0.{me}:0", "--region",
                       "256KiB", "--seconds", str(seconds), "--deadline", "60"], seconds + 240)
    pulled = me != 1 or carrier_changes() - before >= 2
    found = re.search(r'"remote_faults":(\d+).*"violations":(\d+)', out)
    text = f"{found[2]} violations, {found[1]} remote faults" if found else f"status {status}"
    return (status == 0 and pulled and bool(found) == (me == 1), text + ("" if pulled else "; the cable was not pulled"), out)


def agent_start(a, me):
    agent = subprocess.Popen([f"{a.bin}/bin/unumd", "--listen", f"10.77.0.{me}:{AGENT_PORT}", "--key",
                              os.path.join(a.folder, "key"), "--name", f"h{me}"])
    until = time.monotonic() + BOOT_S
    while time.monotonic() < until:
        with open("/proc/net/tcp", encoding="ascii") as f:
            if re.search(rf":{AGENT_PORT:04X} 00000000:0000 0A ", f.read()):
                break
        time.sleep(0.1)
    return agent


def topology(a, backend, kernel, words, more=""):
    device = f", device: {DEVICES[backend]}" if backend in DEVICES else ""
    with open("/tmp/roce.yaml", "w", encoding="ascii") as f:
        f.write(TOPOLOGY.format(key=os.path.join(a.folder, "key"), mib=NODE_MIB, both=2 * NODE_MIB, kernel=kernel,
                                words=words, fabric=f"backend: {backend}{device}") + more)
    return [f"{a.bin}/bin/unum", "run", "/tmp/roce.yaml", "--stats-json", "/tmp/roce.json"]


def statistics():
    with open("/tmp/roce.json", encoding="utf-8") as f:
        nodes = json.load(f)["nodes"]
    return "pages sent " + " + ".join(str(n["pages_sent"]) for n in nodes)


def payload(a, case):
    began = time.monotonic()
    status, out = run(topology(a, "verbs", f"{PAYLOADS}/{case.what}.elf", VMS[case.what]), VM_S)
    ok = status == 0 and f"PAYLOAD {case.what}: PASS" in out
    return ok, f"{time.monotonic() - began:.1f} s, {statistics() if ok else ''}", f"status {status}\n{out}"


def linux(a, case):
    """Boots the guest with its console shown as it comes.  A remote page takes 4 ms in there.  So the guest's clock is slow,
    as all else is, and with it the timer ticks, which want pages of both nodes; and CPU 1 is left to programs that ask for
    it: the kernel's own start would wander between the hosts, with five times as many pages to fetch."""
    words = ("console=ttyS0 earlyprintk=ttyS0 mitigations=off audit=0 nowatchdog cryptomgr.notests "
             f"tsc_early_khz={a.tsc_khz * a.slower} lpj={a.tsc_khz * a.slower * 4} rcupdate.rcu_expedited=1 isolcpus=1")
    args = topology(a, case.what, f"{BUILD}/guest/vmlinuz", words, f"    initrd: {a.folder}/initrd\n")
    began, seen = time.monotonic(), []
    with tempfile.TemporaryFile() as errors, subprocess.Popen(["timeout", str(LINUX_S), *args], stdout=subprocess.PIPE,
                                                               stderr=errors, text=True, errors="replace") as p:
        for line in p.stdout:
            seen.append(line.strip())
            print(f"{time.monotonic() - began:6.1f} s  {line.rstrip()}", flush=True)
        p.wait()
        errors.seek(0)
        out = errors.read().decode(errors="replace")
    wanted = ["RESULT cpus 2", "RESULT numa_nodes 2", *(f"RESULT cpu_{n} {a.sum} {n}" for n in (0, 1))]
    ok = p.returncode == 0 and all(line in seen for line in wanted)
    text = f"{time.monotonic() - began:.0f} s, {statistics() if ok else ''}"
    return ok, text, f"status {p.returncode}\n{out}"


def once(a, case, part):
    """(passed, a few words, output); None from a host that only serves."""
    if case.kind == "conform":
        return conform(a, case.what)
    if case.kind == "stress":
        return stress(a, case, part)
    if a.inside != 1:
        return None
    return payload(a, case) if case.what in VMS else linux(a, case)


def tried(a, case, others, pulse, part):
    """Runs a case and tells how it went."""
    for count in range(1, TRIES + 1):
        others.meet(case.hosts)
        pulse.take()
        told = once(a, case, part + count - 1)
        still_s = pulse.take()
        bits = FAILED * (told is not None and not told[0]) + STILL * (still_s > STILL_S)
        if others.meet(case.hosts, bits) != FAILED + STILL or count == TRIES:
            break
        print(f"{case.name}: once more, a host stood still ({still_s:.1f} s here)", flush=True)
    if told:
        tell("result", name=case.name, ok=bool(told[0]), out=told[2],
             text=told[1] + (f"; stood still for {still_s:.1f} s" if still_s > STILL_S else ""))


def inside(a, cases):
    me = a.inside
    # 40 MiB of receive buffers a node are too much in here.
    os.environ.update(UCX_RC_VERBS_RX_QUEUE_LEN="512", UCX_UD_VERBS_RX_QUEUE_LEN="512")
    network_up(me)
    pulse, others, agent, part = Pulse(), Others(me, a.hosts), None, 0
    try:
        for case in cases:
            if me in case.hosts:
                if case.kind == "vm" and not agent:
                    agent = agent_start(a, me)
                tried(a, case, others, pulse, part)
            part += TRIES * (case.kind == "stress")  # the same on all hosts
        others.meet(range(1, a.hosts + 1))
    finally:
        if agent:
            agent.terminate()
            agent.wait()
    return 0
