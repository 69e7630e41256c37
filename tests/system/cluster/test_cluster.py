# SPDX-License-Identifier: Apache-2.0
#
# tests/system/cluster/test_cluster.py BUILD-FOLDER - agents and command line as processes; the slice is a test double.

import json
import os
import pty
import signal
import socket
import subprocess
import termios

from cluster import FAKE, ROGUE, UNUM, UNUMD, ClusterTest, main, wait_until


class CommandLine(ClusterTest):
    def test_help_and_version(self):
        for args in (["--help"], ["run", "--help"], ["check", "--help"], ["keygen", "--help"], ["--version"]):
            r = self.run_unum(*args)
            self.assertEqual((r.returncode, r.stderr), (0, b""), args)
            self.assertIn(b"unum", r.stdout)
        for args in ([], ["fly"], ["run"], ["run", "a", "b"], ["check"], ["run", "--nodes", "2"], ["run", "x", "--vcpus", "2"],
                     ["run", "--local", "two"], ["run", "--local", "2", "--memory", "1GB"]):
            r = self.run_unum(*args)
            self.assertEqual(r.returncode, 2, args)
            self.assertTrue(r.stderr, args)
        r = subprocess.run([UNUMD, "--listen", "nowhere"], capture_output=True, env=self.env)
        self.assertEqual(r.returncode, 2)

    def test_keygen(self):
        key = self.keygen()
        self.assertEqual(key.stat().st_mode & 0o777, 0o600)
        self.assertRegex(key.read_text(), r"\A[0-9a-f]{64}\n\Z")
        r = self.run_unum("keygen", key)
        self.assertEqual(r.returncode, 2)
        self.assertIn(b"File exists", r.stderr)
        key.chmod(0o644)
        r = self.run_unum("run", self.topology())
        self.assertEqual(r.returncode, 2)
        self.assertIn(b"mode 0600", r.stderr)

    def test_bad_file_starts_nothing(self):
        path = self.topology()
        path.write_text(path.read_text().replace("vcpus: 4", "vcpus: 99"))
        r = self.run_unum("run", path, "--start-agents", "--slice", FAKE)
        self.assertEqual(r.returncode, 2)
        self.assertRegex(r.stderr.decode(), r"lab.yaml:\d+:\d+: error: vm 'one' wants 99 vCPUs; the nodes lend 4")
        self.assert_nothing_left()

    def test_local_errors(self):
        r = self.run_unum("run", "--local", "0", "--vcpus", "0", "--memory", "1MiB")
        self.assertEqual(r.returncode, 2)
        self.assertEqual(r.stderr.count(b"error:"), 4, r.stderr)
        r = self.run_unum("run", "--local", "2", "--vcpus", "4", "--memory", "64MiB", "--kernel", "/nowhere/k")
        self.assertEqual(r.returncode, 2)
        self.assertIn(b"kernel /nowhere/k: No such file", r.stderr)


class Local(ClusterTest):
    def test_ends(self):
        """What ends a VM decides the exit status and one clear line."""
        for what, status, line in (
                ("poweroff", 0, "vm local: the guest switched itself off"),
                ("crash", 3, "vm local: the guest crashed on node n0: triple fault"),
                ("error", 1, "vm local: node n0 gave up: the fake was told so"),
                ("die", 4, "vm local: node n0 is lost: the slice on node n0 was killed by signal 9 (Killed)"),
                ("exit", 4, "vm local: node n0 is lost: the slice on node n0 exited with status 7"),
                ("fail", 5, "error: node 'n1': the fake was told to fail")):
            r = self.local("fake=" + what)
            self.assertEqual(r.returncode, status, (what, r.stderr))
            self.assertIn(line, r.stderr.decode())
            if what not in ("fail",):
                self.assertEqual(r.stdout, b"fake guest up\n")
            self.assert_nothing_left()
        self.assertIn("rip 0xdead\nrsp 0xbeef\n", self.local("fake=crash").stderr.decode())

    def test_slice_that_cannot_start(self):
        r = self.run_unum("run", "--local", "2", "--vcpus", "2", "--memory", "64MiB", "--kernel", self.kernel, "--slice",
                          self.folder / "none")
        self.assertEqual(r.returncode, 5)
        self.assertIn(b"cannot start a slice: No such file", r.stderr)
        self.assert_nothing_left()

    def test_statistics(self):
        path = self.folder / "stats.json"
        r = self.local("fake=poweroff", "--stats", "--stats-json", path)
        self.assertEqual(r.returncode, 0)
        self.assertIn(b"node n1: 2 vCPUs, 32 MiB, engine fake", r.stderr)
        self.assertIn(b"0x123000:7", r.stderr)
        stats = json.loads(path.read_text())
        self.assertEqual((stats["vm"], stats["reason"], stats["status"], stats["vcpus"], stats["memory_kib"]),
                         ("local", "poweroff", 0, 4, 65536))
        self.assertGreater(stats["start_s"], 0)
        self.assertGreaterEqual(stats["run_s"], 0)
        self.assertEqual([(n["name"], n["vcpus"], n["memory_kib"], n["reported"], n["remote_faults"], n["engine"])
                          for n in stats["nodes"]],
                         [("n0", 2, 32768, True, 11, "fake"), ("n1", 2, 32768, True, 11, "fake")])
        self.assertEqual(stats["nodes"][0]["hot_pages"], [{"gpa": 0x123000, "faults": 7}])

    def test_many_nodes(self):
        r = self.local("fake=poweroff", "--stats", nodes=8)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertEqual(r.stderr.count(b"engine fake"), 8)
        self.assert_nothing_left()

    def test_flood_of_console(self):
        r = self.local("fake=flood", "--quiet")
        self.assertEqual(r.returncode, 0)
        self.assertEqual(len(r.stdout), len("fake guest up\n") + (1 << 20))

    def test_input_from_pipe_and_file(self):
        r = self.run_unum("run", "--local", "1", "--vcpus", "1", "--memory", "64MiB", "--kernel", self.kernel, "--slice", FAKE,
                          "--quiet", stdin=b"hello\npoweroff\n")
        self.assertEqual((r.returncode, r.stdout), (0, b"fake guest up\nhello\n"))
        script = self.folder / "script"
        script.write_bytes(b"from a file\npoweroff\n")
        with open(script, "rb") as f:
            r = subprocess.run([UNUM, "run", "--local", "1", "--vcpus", "1", "--memory", "64MiB", "--kernel", self.kernel,
                                "--slice", FAKE, "--quiet"], stdin=f, capture_output=True, env=self.env, timeout=10)
        self.assertEqual((r.returncode, r.stdout), (0, b"fake guest up\nfrom a file\n"))

    def test_signal_leaves(self):
        for sig in (signal.SIGINT, signal.SIGTERM):
            c = self.unum("run", "--local", "2", "--vcpus", "2", "--memory", "64MiB", "--kernel", self.kernel, "--slice", FAKE)
            c.wait_for("fake guest up")
            c.process.send_signal(sig)
            self.assertEqual(c.wait(), 130)
            self.assert_nothing_left()

    def test_signal_while_starting(self):
        c = self.unum("run", "--local", "2", "--vcpus", "2", "--memory", "64MiB", "--kernel", self.kernel, "--slice", FAKE,
                      "--cmdline", "fake=hang")
        wait_until("slices", lambda: len(self.slices()) == 2)
        c.process.send_signal(signal.SIGINT)
        self.assertEqual(c.wait(), 130)
        self.assert_nothing_left()

    def test_terminal(self):
        """Raw while the guest runs, as before afterwards; Ctrl-] leaves, Ctrl-C goes to the guest."""
        pid, fd = pty.fork()
        if pid == 0:
            os.execve(UNUM, [str(UNUM), "run", "--local", "1", "--vcpus", "1", "--memory", "64MiB", "--kernel",
                             str(self.kernel), "--slice", str(FAKE)], self.env)
        before = termios.tcgetattr(fd)
        seen = b""
        while b"fake guest up" not in seen:
            seen += os.read(fd, 4096)
        self.assertIn(b"Ctrl-] leaves", seen)
        self.assertFalse(termios.tcgetattr(fd)[3] & (termios.ICANON | termios.ECHO | termios.ISIG))
        os.write(fd, b"x\x03y\r")
        while b"x\x03y" not in seen:
            seen += os.read(fd, 4096)
        os.write(fd, b"\x1d")
        status, after = None, None
        while status is None:
            try:
                seen += os.read(fd, 4096)
            except OSError:
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                continue
            if b"stopped by the user" in seen:
                after = termios.tcgetattr(fd)
        self.assertEqual(status, 130)
        self.assertEqual(after, before)
        os.close(fd)
        self.assert_nothing_left()


class Agents(ClusterTest):
    def test_agents_that_run_already(self):
        self.keygen()
        path = self.topology()
        agents = self.start_agents()
        for _ in range(2):  # an agent outlives its VMs
            c = self.unum("run", path)
            c.wait_for("fake guest up")
            self.assertEqual(len(self.slices()), 2)
            c.send("poweroff\n")
            self.assertEqual(c.wait(), 0)
            self.assert_slices_gone()
        for a in agents:
            a.terminate()
            self.assertEqual(a.wait(5), 0)
        self.assert_nothing_left()

    def test_start_agents(self):
        path = self.topology(key=None, cmdline="fake=poweroff")
        r = self.run_unum("run", path, "--start-agents", "--slice", FAKE)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assert_nothing_left()
        r = self.run_unum("run", path)
        self.assertEqual(r.returncode, 2)
        self.assertIn(b"no pool key", r.stderr)

    def test_port_in_use(self):
        path = self.topology(key=None)
        taken = [socket.create_server(("127.0.0.1", p)) for p in self.ports]
        r = self.run_unum("run", path, "--start-agents", "--slice", FAKE)
        for s in taken:
            s.close()
        self.assertEqual(r.returncode, 2)
        for line, i in ((3, 0), (4, 1)):
            self.assertIn("lab.yaml:%d:5: error: node 'n%d' (127.0.0.1, port %d): Address already in use"
                          % (line, i, self.ports[i]), r.stderr.decode())
        self.assertIn(b"nothing was started", r.stderr)
        self.assert_nothing_left()

    def test_unreachable_and_wrong_key_at_once(self):
        """Every node's trouble is told in one go, with its place in the file, and no slice ever ran."""
        self.keygen()
        self.keygen("other.key")
        path = self.topology(nodes=3)
        self.start_agent(0)
        self.start_agent(1, key="other.key")
        r = self.run_unum("run", path)
        self.assertEqual(r.returncode, 2)
        err = r.stderr.decode()
        self.assertRegex(err, r"lab.yaml:5:5: error: node 'n1' \(127.0.0.1, port \d+\): not our agent, or another pool key")
        self.assertRegex(err, r"lab.yaml:6:5: error: node 'n2' \(127.0.0.1, port \d+\): Connection refused")
        self.assertNotIn("'n0'", err)
        self.assertIn("refused a connection", self.agent_log(1))
        self.assertNotIn("slice pid", self.agent_log(0) + self.agent_log(1))

    def test_wrong_node(self):
        self.keygen()
        path = self.topology()
        self.start_agents()
        self.topology(ports=self.ports[::-1])
        r = self.run_unum("run", path)
        self.assertEqual(r.returncode, 2)
        self.assertIn(b"the agent at this address is that of node n1", r.stderr)
        self.assertIn(b"the agent at this address is that of node n0", r.stderr)

    def test_two_vms_share_a_pool(self):
        self.keygen()
        path = self.topology(vms=("one", "two"))
        self.start_agents()
        first = self.unum("run", path, "--vm", "one")
        second = self.unum("run", path, "--vm", "two")
        first.wait_for("fake guest up")
        second.wait_for("fake guest up")
        self.assertEqual(len(self.slices()), 4)
        first.process.kill()
        first.wait()
        wait_until("the end of the first vm", lambda: len(self.slices()) == 2, 2)
        second.send("still here\n")
        second.wait_for("still here")
        second.send("poweroff\n")
        self.assertEqual(second.wait(), 0)
        self.assert_slices_gone()
        r = self.run_unum("run", path)
        self.assertEqual(r.returncode, 2)
        self.assertIn(b"--vm takes one of 'one', 'two'", r.stderr)

    def test_lent_is_a_bound(self):
        self.keygen()
        path = self.topology(vms=("one", "two"))
        self.start_agents(2, "--cpus", "3")
        first = self.unum("run", path, "--vm", "one")
        first.wait_for("fake guest up")
        r = self.run_unum("run", path, "--vm", "two")
        self.assertEqual(r.returncode, 5)
        self.assertIn(b"has 1 CPUs left, the vm wants 2", r.stderr)
        first.send("still here\n")
        first.wait_for("still here")
        first.send("poweroff\n")
        self.assertEqual(first.wait(), 0)
        third = self.unum("run", path, "--vm", "two")  # what the first had is free again
        third.wait_for("fake guest up")
        third.send("poweroff\n")
        self.assertEqual(third.wait(), 0)

    def test_garbage_is_refused_and_disturbs_nobody(self):
        key = self.keygen()
        path = self.topology()
        self.start_agents()
        c = self.unum("run", path)
        c.wait_for("fake guest up")
        pids = self.slices()
        refused = 0
        for junk in (b"GET / HTTP/1.0\r\n\r\n", b"\x00" * 4096, os.urandom(3000), b"\x16\x03\x01\xff\xff" + b"A" * 70000):
            with socket.create_connection(("127.0.0.1", self.ports[0])) as s:
                s.sendall(junk)
                s.settimeout(5)
                try:
                    while s.recv(4096):
                        pass
                except ConnectionResetError:
                    pass
            refused += 1
        for how in ("version", "garbage", "long", "early"):
            r = subprocess.run([ROGUE, str(self.ports[0]), key, how], env=self.env, timeout=10)
            self.assertEqual(r.returncode, 0, how)
            refused += 1
        r = subprocess.run([UNUM, "run", self.wrong_key_copy(path)], env=self.env, capture_output=True, timeout=10)
        self.assertEqual(r.returncode, 2)
        refused += 1
        c.send("undisturbed\n")
        c.wait_for("undisturbed")
        self.assertEqual(self.slices(), pids)
        c.send("poweroff\n")
        self.assertEqual(c.wait(), 0)
        self.agents[0].terminate()
        self.agents[0].wait()
        self.assertIn("%d connections refused" % refused, self.agent_log(0))

    def wrong_key_copy(self, path):
        self.keygen("wrong.key")
        copy = self.folder / "wrong.yaml"
        copy.write_text(path.read_text().replace("pool.key", "wrong.key"))
        return copy


if __name__ == "__main__":
    main()
