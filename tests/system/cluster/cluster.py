# SPDX-License-Identifier: Apache-2.0
#
# tests/system/cluster/cluster.py - what the cluster tests share: agents, topologies, a look at what is left behind.
#
# Everything runs on loopback, in a folder of its own under $TMPDIR that must be empty of surprises afterwards.

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

BUILD = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else "build").resolve()
UNUM = BUILD / "bin/unum"
UNUMD = BUILD / "bin/unumd"
FAKE = BUILD / "tests/system/cluster/fake_slice"
ROGUE = BUILD / "tests/system/cluster/rogue"
PATIENCE = 10.0  # seconds; only ever reached when something is broken
END_LIMIT = 2.0  # seconds from the death of a part to the end of all


def free_ports(count):
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in socks]
    for s in socks:
        s.close()
    return ports


def processes(marker):
    """pid -> (state, command line) of processes whose environment holds `marker`; zombies are not alive."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            env = pathlib.Path("/proc", entry, "environ").read_bytes()
            if marker.encode() not in env:
                continue
            state = re.search(r"\) (\S)", pathlib.Path("/proc", entry, "stat").read_text()).group(1)
            args = pathlib.Path("/proc", entry, "cmdline").read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if state not in "ZX":
            found[int(entry)] = args
    return found


def wait_until(what, true, limit=PATIENCE):
    end = time.monotonic() + limit
    while not true():
        if time.monotonic() > end:
            raise AssertionError("not in time: " + what)
        time.sleep(0.005)


class Console:
    """A running `unum` and what it has printed so far."""

    def __init__(self, args, env, **popen):
        self.process = subprocess.Popen([str(a) for a in args], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env=env, **popen)
        self.out, self.err = b"", b""
        self.open = {"out", "err"}
        for stream in (self.process.stdout, self.process.stderr):
            os.set_blocking(stream.fileno(), False)

    def poll(self):
        for name in ("out", "err"):
            stream = getattr(self.process, "std" + name)
            try:
                more = os.read(stream.fileno(), 1 << 16)
            except BlockingIOError:
                continue
            if not more:
                self.open.discard(name)
            setattr(self, name, getattr(self, name) + more)

    def at_end(self):
        self.poll()
        return not self.open

    def wait_for(self, text, limit=PATIENCE):
        def seen():
            self.poll()
            return text.encode() in self.out + self.err
        try:
            wait_until(repr(text), seen, limit)
        except AssertionError:
            raise AssertionError("no %r in:\n%s%s" % (text, self.out.decode(), self.err.decode()))

    def send(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def wait(self, limit=PATIENCE):
        def over():
            self.poll()
            return self.process.poll() is not None
        wait_until("the end of unum", over, limit)
        # Pipes end when the last process that holds them does: one that does not end was left behind.
        wait_until("the end of everything that unum started", self.at_end, limit)
        self.process.stdout.close()
        self.process.stderr.close()
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        return self.process.returncode


class ClusterTest(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="unum-cluster-"))
        self.marker = "UNUM_TEST_MARKER=" + self.folder.name
        self.runtime = self.folder / "tmp"  # where a stray temporary file would turn up
        self.runtime.mkdir()
        self.env = dict(os.environ, UNUM_TEST_MARKER=self.folder.name, TMPDIR=str(self.runtime))
        self.kernel = self.folder / "kernel"
        image = bytearray(4096)
        image[0x1fe:0x200] = b"\x55\xaa"
        image[0x202:0x206] = b"HdrS"
        self.kernel.write_bytes(image)
        self.agents = []
        self.consoles = []

    def tearDown(self):
        for pid in processes(self.marker):  # only after a failure: the tests look before this
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for p in self.agents + [c.process for c in self.consoles]:
            p.kill()
            p.wait()
            for stream in (p.stdin, p.stdout, p.stderr):
                if stream and not stream.closed:
                    try:
                        stream.close()
                    except BrokenPipeError:
                        pass
        shutil.rmtree(self.folder)

    # --- parts -----------------------------------------------------------------------------------

    def topology(self, cmdline="fake=echo", nodes=2, ports=None, key="pool.key", extra="", vms=("one",), memory=64,
                 name="lab.yaml"):
        self.ports = ports or free_ports(nodes)
        lines = ["pool: lab"] + (["key: " + key] if key else []) + ([extra] if extra else []) + ["nodes:"]
        for i, port in enumerate(self.ports):
            lines.append("  - { name: n%d, address: 127.0.0.1, port: %d, cpus: %d, memory: %dMiB }"
                         % (i, port, 2 * len(vms), memory * len(vms)))
        lines.append("vms:")
        for vm in vms:
            lines.append("  - { name: %s, vcpus: %d, memory: %dMiB, kernel: kernel, cmdline: '%s' }"
                         % (vm, 2 * nodes, memory * nodes, cmdline))
        path = self.folder / name
        path.write_text("\n".join(lines) + "\n")
        return path

    def keygen(self, name="pool.key"):
        subprocess.run([UNUM, "keygen", self.folder / name], check=True, env=self.env)
        return self.folder / name

    def start_agent(self, i, *more, key="pool.key", env=None):
        with open(self.folder / ("agent%d.log" % i), "ab") as log:
            p = subprocess.Popen([UNUMD, "--listen", "127.0.0.1:%d" % self.ports[i], "--key", self.folder / key,
                                  "--name", "n%d" % i, "--slice", FAKE, *more],
                                 env=dict(self.env, UNUM_LOG="info", **(env or {})), stderr=log)
        self.agents.append(p)
        wait_until("agent %d" % i, lambda: self.listens(self.ports[i]))
        return p

    def start_agents(self, count=2, *more):
        return [self.start_agent(i, *more) for i in range(count)]

    def agent_log(self, i):
        return (self.folder / ("agent%d.log" % i)).read_text()

    def listens(self, port):
        # Not by connecting: an agent counts that.
        return any(re.match(r"\s*\d+: [0-9A-F]+:%04X .* 0A " % port, line)
                   for line in pathlib.Path("/proc/net/tcp").read_text().splitlines())

    def unum(self, *args, **popen):
        c = Console([UNUM, *args], self.env, **popen)
        self.consoles.append(c)
        return c

    def run_unum(self, *args, stdin=b"", limit=PATIENCE):
        return subprocess.run([UNUM, *args], input=stdin, env=self.env, capture_output=True, timeout=limit)

    def local(self, cmdline, *args, nodes=2):
        return self.run_unum("run", "--local", str(nodes), "--vcpus", "4", "--memory", "64MiB", "--kernel", self.kernel,
                             "--slice", FAKE, "--cmdline", cmdline, *args)

    def slices(self):
        return sorted(pid for pid, args in processes(self.marker).items()
                      if args[0] == str(FAKE) and "--host" not in args)

    def probes(self):
        return sorted(pid for pid, args in processes(self.marker).items() if args[0] == str(FAKE) and "--host" in args)

    def slice_of(self, agent):
        """pid of the one slice that this agent process runs."""
        mine = [pid for pid in self.slices()
                if int(re.search(r"\) \S (\d+)", pathlib.Path("/proc/%d/stat" % pid).read_text()).group(1))
                == agent]
        self.assertEqual(len(mine), 1)
        return mine[0]

    def unumds(self):
        found = {}
        for pid, args in processes(self.marker).items():
            if args[0] == str(UNUMD):
                found[args[args.index("--name") + 1]] = pid
        return found

    # --- what must hold --------------------------------------------------------------------------

    def assert_slices_gone(self, limit=END_LIMIT):
        wait_until("end of all slices", lambda: not self.slices(), limit)

    def assert_nothing_left(self, agents_too=True, limit=END_LIMIT):
        """No process, no temporary file; and no socket, since a socket without a process is gone."""
        if agents_too:
            wait_until("end of all processes", lambda: not processes(self.marker), limit)
        else:
            self.assert_slices_gone(limit)
        self.assertEqual(list(self.runtime.iterdir()), [])


def main():
    """Runs the tests of the calling file."""
    ran = unittest.main(verbosity=1, exit=False).result
    bad = len(ran.failures) + len(ran.errors) + len(ran.unexpectedSuccesses)
    line = "%d passed, %d failed, %d skipped" % (ran.testsRun - bad - len(ran.skipped), bad, len(ran.skipped))
    print(line, flush=True)
    sys.exit(0 if not bad and ran.testsRun else 1)
