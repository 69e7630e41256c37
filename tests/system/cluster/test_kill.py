# SPDX-License-Identifier: Apache-2.0
#
# tests/system/cluster/test_kill.py BUILD-FOLDER - SIGKILL of any part, over and over; the slice is a test double.
#
# Each time the VM must be over on every node within 2 s, the message must name the lost node, and nothing may be
# left behind.  ROUNDS=N in the environment changes the twenty.

import os
import random
import signal
import time

from cluster import END_LIMIT, FAKE, ClusterTest, main, processes

ROUNDS = int(os.environ.get("ROUNDS", "20"))
NODES = 3


class Kill(ClusterTest):
    def start(self):
        c = self.unum("run", self.path, "--start-agents", "--slice", FAKE)
        c.wait_for("fake guest up")
        agents = self.unumds()
        self.assertEqual(sorted(agents), ["n%d" % i for i in range(NODES)])
        self.assertEqual(len(self.slices()), NODES)
        return c, agents

    def round(self, kind, rng):
        victim = "n%d" % rng.randrange(NODES)
        c, agents = self.start()
        pid = self.slice_of(agents[victim]) if kind == "slice" else agents[victim]
        begin = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        status = c.wait(END_LIMIT)
        self.assert_nothing_left(limit=END_LIMIT - (time.monotonic() - begin))
        self.worst = max(self.worst, time.monotonic() - begin)
        self.assertEqual(status, 4, c.err)
        self.assertIn("vm one: node %s is lost" % victim, c.err.decode())

    def rounds(self, kind):
        rng = random.Random(kind)
        self.worst = 0
        self.path = self.topology(key=None, nodes=NODES)
        for _ in range(ROUNDS):
            self.round(kind, rng)
        print("%s killed: %d of %d rounds clean, slowest %.2f s" % (kind, ROUNDS, ROUNDS, self.worst), flush=True)

    def test_slice(self):
        self.rounds("slice")

    def test_agent(self):
        self.rounds("agent")

    def test_unum(self):
        """The controller itself: agents end the VM; agents that it started go with it."""
        self.path = self.topology(key=None, nodes=NODES)
        for _ in range(ROUNDS):
            c, _ = self.start()
            c.process.kill()
            c.wait()
            self.assert_nothing_left()
        print("unum killed: %d of %d rounds clean" % (ROUNDS, ROUNDS), flush=True)

    def test_while_starting(self):
        """At any moment between the first process and RUN."""
        rng = random.Random("starting")
        self.path = self.topology(key=None, nodes=NODES)
        for _ in range(ROUNDS):
            c = self.unum("run", self.path, "--start-agents", "--slice", FAKE)
            time.sleep(rng.random() * 0.1)
            some = [p for p in processes(self.marker) if p != c.process.pid]
            if not some:
                c.process.kill()
            else:
                os.kill(rng.choice(some), signal.SIGKILL)
            self.assertIn(c.wait(), (2, 4, 5, -9), c.err)
            self.assert_nothing_left()
        print("killed while starting: %d of %d rounds clean" % (ROUNDS, ROUNDS), flush=True)


class Silence(ClusterTest):
    def test_silence_is_death(self):
        """A stopped slice, and then a stopped agent, is given up after dead_after, not before."""
        self.keygen()
        path = self.topology(extra="dead_after: 1s")
        agents = self.start_agents()
        for who in ("slice", "agent"):
            c = self.unum("run", path)
            c.wait_for("fake guest up")
            victim = self.slice_of(agents[1].pid) if who == "slice" else agents[1].pid
            begin = time.monotonic()
            os.kill(victim, signal.SIGSTOP)
            self.assertEqual(c.wait(), 4)
            took = time.monotonic() - begin
            self.assertIn("node n1 is lost", c.err.decode())
            self.assertGreater(took, 0.9)
            self.assertLess(took, 1 + 2)
            if who == "agent":
                os.kill(victim, signal.SIGCONT)
            self.assert_slices_gone()

    def test_own_pause_is_nobodys_death(self):
        """unum stopped for less than its agents' patience, but for longer than its own: everybody lives."""
        path = self.topology(key=None, extra="dead_after: 2s")
        c = self.unum("run", path, "--start-agents", "--slice", FAKE)
        c.wait_for("fake guest up")
        for _ in range(2):
            os.kill(c.process.pid, signal.SIGSTOP)
            time.sleep(1.5)
            os.kill(c.process.pid, signal.SIGCONT)
            time.sleep(0.2)
        c.send("alive\n")
        c.wait_for("alive")
        c.send("poweroff\n")
        self.assertEqual(c.wait(), 0)
        self.assert_nothing_left()


if __name__ == "__main__":
    main()
