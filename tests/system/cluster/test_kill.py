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


if __name__ == "__main__":
    main("cluster-kill")
