# SPDX-License-Identifier: Apache-2.0
#
# tests/system/cluster/test_fabric.py BUILD-FOLDER - what joins the nodes of a VM: what `auto` becomes, what `unum fabric` says.
# The slice is a test double, which tells of its host what UNUM_FAKE_FABRIC has, and of a measurement what UNUM_FAKE_PROBE has.

import json
import unittest

from cluster import FAKE, ClusterTest, main

NET, OTHER_NET = "10.9.0.0/24", "10.8.0.0/24"
HERE = "here"
RDMA_A, RDMA_B, RDMA_C = "a rdma " + NET, "b rdma " + NET, "c rdma " + OTHER_NET


class Fabric(ClusterTest):
    def agents_of(self, *hosts, probe=None):
        for i, host in enumerate(hosts):
            env = {"UNUM_FAKE_HOST": "kvm", "UNUM_FAKE_FABRIC": host}
            if probe:
                env["UNUM_FAKE_PROBE"] = probe
            self.start_agent(i, env=env)

    def pool(self, *hosts, named=None, probe=None, cmdline="fake=poweroff"):
        """Agents on such hosts, and a file with a VM over them; named: what `fabric:` says, node by node."""
        self.keygen()
        path = self.topology(nodes=len(hosts), cmdline=cmdline)
        text = path.read_text()
        for port, fabric in zip(self.ports, named or ()):
            text = text.replace("port: %d, cpus" % port, "port: %d, fabric: { %s }, cpus" % (port, fabric))
        path.write_text(text)
        self.agents_of(*hosts, probe=probe)
        return path

    # --- what auto becomes -----------------------------------------------------------------------

    def chooses(self, path, line, *fabrics):
        r = self.run_unum("run", path)
        err = r.stderr.decode()
        self.assertEqual(r.returncode, 0, err)
        self.assertIn("unum: fabric: " + line + "\n", err)
        for i, fabric in enumerate(fabrics):
            self.assertRegex(err, "n%d: fake slice prepared.* %s, chaos 0\n" % (i, fabric))
        self.assert_slices_gone()

    def test_one_host(self):
        self.chooses(self.pool(HERE, HERE, HERE), "shm (all nodes on one host)", *["fabric 'shm', device ''"] * 3)

    def test_two_hosts(self):
        self.chooses(self.pool(HERE, "there"), "tcp (node n0: no RDMA device)", *["fabric 'tcp', device ''"] * 2)

    def test_rdma_on_both(self):
        self.chooses(self.pool(RDMA_A, RDMA_B), "verbs (RDMA on %s)" % NET, *["fabric 'verbs', device 'rdma0'"] * 2)

    def test_rdma_without_an_address(self):
        self.chooses(self.pool(RDMA_A, "b bare"), "tcp (node n1: RDMA device rdma0: it has no address)")

    def test_rdma_on_two_networks(self):
        self.chooses(self.pool(RDMA_A, RDMA_B, RDMA_C), "tcp (the nodes' RDMA ports have no network in common)")

    def test_a_device_that_the_file_names(self):
        self.chooses(self.pool(RDMA_A, RDMA_B, named=("backend: auto, device: rdma0", "backend: auto, device: mlx5_0")),
                     "tcp (node n1: no RDMA device mlx5_0)")

    def test_local_runs_use_shared_memory(self):
        r = self.local("fake=poweroff")
        self.assertIn("unum: fabric: shm (all nodes on one host)\n", r.stderr.decode())
        r = self.local("fake=poweroff", "--fabric", "tcp")
        self.assertNotIn("unum: fabric", r.stderr.decode())
        self.assertIn("fabric 'tcp'", r.stderr.decode())

    def test_one_node_has_no_fabric(self):
        self.assertNotIn("fabric:", self.local("fake=poweroff", nodes=1).stderr.decode())

    # --- chaos -----------------------------------------------------------------------------------

    def test_chaos_reaches_every_slice(self):
        err = self.local("fake=poweroff", "--chaos", "0xfedcba9876543210", nodes=3).stderr.decode()
        self.assertEqual(err.count("chaos 18364758544493064720\n"), 3, err)

    def test_chaos_wants_a_seed(self):
        for seed in ("0", "x", "-1", "1x", ""):
            self.assertEqual(self.local("fake=poweroff", "--chaos", seed).returncode, 2, seed)

    # --- unum fabric -----------------------------------------------------------------------------

    def fabric(self, *args, host=HERE, fake="kvm", slice_program=FAKE):
        env = self.env
        self.env = dict(env, UNUM_FAKE_HOST=fake, UNUM_FAKE_FABRIC=host)
        try:
            return self.run_unum("fabric", "--slice", slice_program, *args)
        finally:
            self.env = env

    def test_this_host(self):
        r = self.fabric()
        self.assertEqual((r.returncode, r.stderr), (0, b""))
        self.assertEqual(r.stdout.decode(), "this host: fake (Linux 0)\n  ok       network eth0\n  ok       tcp: works\n"
                                            "  note     ofi: no library\n           fix: install it\n\n")
        told = json.loads(self.fabric("--json").stdout)
        self.assertEqual((told["status"], told["pairs"], told["together"]), (0, [], None))
        self.assertEqual((told["hosts"][0]["node"], told["hosts"][0]["tried"][1]["fix"]), (None, "install it"))

    def test_a_host_that_does_not_tell(self):
        for fake, program in (("garbage", FAKE), ("die", FAKE), ("kvm", self.folder / "none")):
            r = self.fabric(fake=fake, slice_program=program)
            self.assertEqual(r.returncode, 2, r.stdout)
            self.assertIn("problem  what it can do is not known", r.stdout.decode())

    def test_pairs_are_measured(self):
        path = self.pool(HERE, HERE, "there")
        r = self.fabric(path)
        out = r.stdout.decode()
        self.assertEqual((r.returncode, r.stderr), (0, b""), out)
        figures = "64 bytes there, 4 KiB back: p50 12.3 us, p99 45.6 us; pages one way: 789 MB/s\n"
        self.assertIn("n0 - n1: fabric shm (all nodes on one host)\n  shm      " + figures + "  tcp      " + figures, out)
        self.assertIn("n0 - n2: fabric tcp (node n0: no RDMA device)\n  tcp      " + figures + "n1 - n2: ", out)
        self.assertTrue(out.endswith("\na VM on all of these nodes: fabric tcp (node n0: no RDMA device)\n"), out)
        self.assert_slices_gone()

    def test_pairs_for_programs(self):
        told = json.loads(self.fabric(self.pool(RDMA_A, RDMA_B), "--json").stdout)
        pair = told["pairs"][0]
        self.assertEqual((pair["from"], pair["to"], pair["backend"], pair["why"]), ("n0", "n1", "verbs", "RDMA on " + NET))
        self.assertEqual([m["backend"] for m in pair["measured"]], ["verbs", "tcp"])
        self.assertEqual(pair["measured"][0], {"backend": "verbs", "trouble": "", "round_trips": 100, "p50_ns": 12300,
                                               "p99_ns": 45600, "min_ns": 9000, "bytes_per_s": 789000000})
        self.assertEqual((told["together"]["backend"], told["status"]), ("verbs", 0))

    def test_the_file_decides(self):
        out = self.fabric(self.pool(HERE, HERE, named=("backend: tcp", "backend: tcp"))).stdout.decode()
        self.assertIn("n0 - n1: fabric tcp (the file says so)\n  tcp ", out)

    def test_measuring_borrows_nothing(self):
        """An agent that has lent all it has measures, all the same."""
        path = self.pool(HERE, HERE)
        for agent in self.agents:
            agent.terminate()
            agent.wait()
        for i in range(2):
            self.start_agent(i, "--cpus", "1", "--memory", "32MiB")
        self.assertEqual(self.run_unum("run", path).returncode, 5)
        self.assertEqual(self.fabric(path).returncode, 0)

    def test_a_pair_that_cannot_be_joined(self):
        for probe, why in (("fail", "node n1: the fake was told to fail"), ("garbage", "no figures came"),
                           ("silent", "no figures came"), ("lost", "the fake lost it")):
            with self.subTest(probe):
                r = self.fabric(self.pool(HERE, HERE, probe=probe))
                self.assertEqual(r.returncode, 1, r.stdout)
                self.assertIn("  problem  shm: " + why, r.stdout.decode())
                self.assert_slices_gone()
                self.tearDown()
                self.setUp()

    def test_what_does_not_fit(self):
        path = self.pool(RDMA_A + " mtu 9000", RDMA_B + " mtu 1500")
        out = self.fabric(path).stdout.decode()
        self.assertIn("problem  MTU: node n0 has 9000 on eth0, node n1 has 1500 on eth0", out)
        self.assertIn("fix: ip link set eth0 mtu 1500, on node n0\n", out)
        self.assertIn("note     RDMA: packets of 4096 bytes at node n0 (rdma0) and 1024 at node n1 (rdma0)", out)

    def test_all_that_answer_are_told_of(self):
        path = self.topology(nodes=3)
        self.keygen()
        self.keygen("other.key")
        self.start_agent(0)
        self.start_agent(2, key="other.key")
        r = self.fabric(path)
        err = r.stderr.decode()
        self.assertEqual(r.returncode, 2)
        self.assertIn("node 'n1' (127.0.0.1, port %d): Connection refused" % self.ports[1], err)
        self.assertIn("node 'n2' (127.0.0.1, port %d): not our agent, or another pool key" % self.ports[2], err)
        self.assertIn("node n0: fake (Linux 0)\n", r.stdout.decode())
        told = json.loads(self.fabric(path, "--json").stdout)
        self.assertEqual(sorted((h["node"], "unknown" in h) for h in told["hosts"]),
                         [("n0", False), ("n1", True), ("n2", True)])

    def test_usage(self):
        for args in (["a", "b"], ["--fly"], ["--key", "k"], [self.folder / "none.yaml"]):
            self.assertEqual(self.fabric(*args).returncode, 2, args)
        self.assertEqual(self.fabric("--help").returncode, 0)


if __name__ == "__main__":
    main()
