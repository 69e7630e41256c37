# SPDX-License-Identifier: Apache-2.0
#
# tests/system/cluster/test_hosts.py BUILD-FOLDER - hosts that can do unlike things: which engine a VM gets, what is refused,
# what `unum doctor` says.  The slice is a test double, which tells of its host what UNUM_FAKE_HOST has.

import json
import os
import signal
import unittest

from cluster import FAKE, ClusterTest, main, wait_until

KVM, EPTAD, NO_KVM = "kvm", "eptad", ""


class Hosts(ClusterTest):
    def agents_of(self, *hosts, tsc=()):
        for i, host in enumerate(hosts):
            env = {"UNUM_FAKE_HOST": host}
            if i < len(tsc):
                env["UNUM_FAKE_TSC_KHZ"] = str(tsc[i])
            self.start_agent(i, env=env)

    def vm(self, *hosts, engine="auto", faults="auto", kernel=None):
        """Agents on such hosts, and a file with a VM over them."""
        self.keygen()
        path = self.topology(nodes=len(hosts), cmdline="fake=poweroff")
        text = path.read_text().replace("vcpus: %d," % (2 * len(hosts)),
                                        "vcpus: %d, engine: %s, faults: %s," % (2 * len(hosts), engine, faults))
        path.write_text(text)
        if kernel:
            self.kernel.write_bytes(self.kernel.read_bytes()[:0x300] + kernel + self.kernel.read_bytes()[0x300:])
        self.agents_of(*hosts)
        return path

    def runs(self, path, *lines):
        r = self.run_unum("run", path)
        self.assertEqual(r.returncode, 0, r.stderr)
        for line in lines:
            self.assertIn(line, r.stderr.decode())
        self.assert_slices_gone()

    def refused(self, path, status, *lines):
        r = self.run_unum("run", path)
        self.assertEqual(r.returncode, status, r.stderr)
        for line in (*lines, "unum: nothing was started"):
            self.assertIn(line, r.stderr.decode())
        self.assertEqual((self.slices(), self.probes()), ([], []))
        for i in range(len(self.ports)):
            self.assertNotIn("slice pid", self.agent_log(i))

    # --- choice ----------------------------------------------------------------------------------

    def test_kvm_where_all_can(self):
        self.runs(self.vm(KVM, KVM), "unum: engine kvm, inline faults\n", "n0: fake slice prepared, engine 2, ",
                  "n1: fake slice prepared, engine 2, faults 0, private 0, features 'avx avx2'")

    def test_one_host_decides_for_all(self):
        self.runs(self.vm(KVM, EPTAD), "unum: engine bt, not kvm: node n1: walks are writes; fix: reload it\n",
                  "n0: fake slice prepared, engine 1, faults 0, private 0, features ''", "n1: fake slice prepared, engine 1, ")

    def test_one_node_needs_less(self):
        self.runs(self.vm(EPTAD), "unum: engine kvm, inline faults\n", "engine 2, faults 0, private 0, features 'avx aes'")

    def test_private_page_tables_need_less(self):
        """The mark is in the kernel file, and the host of the boot node reads it."""
        self.runs(self.vm(KVM, EPTAD, kernel=b"private"), "unum: engine kvm, inline faults\n",
                  "n0: fake slice prepared, engine 2, faults 0, private 1, features 'avx'",
                  "n1: fake slice prepared, engine 2, faults 0, private 1, features 'avx'")

    def test_bt_needs_to_know_nothing(self):
        self.runs(self.vm("garbage", "die", engine="bt"), "n1: fake slice prepared, engine 1, ",
                  "unum: fabric: tcp (node n0: what it can do is not known: it says so in a way that this unum does not read)\n")

    def test_nobody_is_asked_without_need(self):
        """Engine and fabric are named: nothing waits for a host that does not answer."""
        path = self.vm("hang", "hang", engine="bt")
        path.write_text(path.read_text().replace("memory: 64MiB }", "memory: 64MiB, fabric: { backend: tcp } }"))
        self.runs(path, "n1: fake slice prepared, engine 1, ", "fabric 'tcp', device '', chaos 0\n")

    def test_hosts_that_do_not_tell(self):
        for host, why in (("garbage", "in a way that this unum does not read"), ("die", "killed by signal 9")):
            with self.subTest(host):
                self.runs(self.vm(KVM, host), "unum: engine bt, not kvm: node n1: what it can do is not known: ", why,
                          "n0: fake slice prepared, engine 1, ")
                self.tearDown()
                self.setUp()

    # --- refusal ---------------------------------------------------------------------------------

    def test_unsound_is_refused(self):
        self.refused(self.vm(KVM, EPTAD, EPTAD, engine="kvm"), 6,
                     "unum: error: node 'n1': engine kvm: walks are writes; fix: reload it\n",
                     "unum: error: node 'n2': engine kvm: walks are writes; fix: reload it\n")

    def test_no_device_has_its_own_status(self):
        self.refused(self.vm(KVM, NO_KVM, engine="kvm"), 7, "node 'n1': engine kvm: there is no /dev/kvm\n")

    def test_each_reason_has_its_own_status(self):
        for word, status in (("no-permission", 8), ("busy", 9), ("too-old", 10), ("no-rights", 11)):
            with self.subTest(word):
                self.refused(self.vm(KVM, word, engine="kvm"), status,
                             "node 'n1': engine kvm: this is %s; fix: mend %s\n" % (word, word))
                self.tearDown()
                self.setUp()

    def test_a_host_without_any_engine(self):
        """Not even bt: named or not, nothing is started."""
        self.refused(self.vm(EPTAD, "cpu"), 6, "unum: error: node 'n1': no engine: no popcnt\nunum: nothing was started")

    def test_faults_that_do_not_work(self):
        self.refused(self.vm(KVM, engine="kvm", faults="dispatch"), 11, "node 'n0': engine kvm: no reader\n")

    def test_unknown_is_refused(self):
        self.refused(self.vm("garbage", KVM, engine="kvm"), 6, "node 'n0': engine kvm: what it can do is not known")

    def test_leaving_while_hosts_are_asked(self):
        path = self.vm("hang", KVM)
        c = self.unum("run", path)
        wait_until("the probe", lambda: len(self.probes()) == 1)
        c.process.send_signal(signal.SIGINT)
        self.assertEqual(c.wait(), 130)
        wait_until("the end of the probe", lambda: not self.probes(), 2)
        self.assertEqual(self.slices(), [])

    def test_agent_dies_while_hosts_are_asked(self):
        path = self.vm(KVM, "hang")
        c = self.unum("run", path)
        wait_until("the probe", lambda: len(self.probes()) == 1)
        self.agents[1].kill()
        self.assertEqual(c.wait(), 5)
        wait_until("the end of the probe", lambda: not self.probes(), 2)

    # --- doctor ----------------------------------------------------------------------------------

    def doctor(self, *args, host=KVM, slice_program=FAKE):
        env = self.env
        self.env = dict(env, UNUM_FAKE_HOST=host)
        try:
            return self.run_unum("doctor", "--slice", slice_program, *args)
        finally:
            self.env = env

    def test_doctor_of_this_host(self):
        r = self.doctor(host=EPTAD)
        self.assertEqual((r.returncode, r.stderr), (0, b""))
        self.assertIn("one node: engine kvm, inline faults\nseveral nodes: engine bt (because walks are writes; fix: reload it)",
                      r.stdout.decode())
        r = self.doctor("--json", host=EPTAD)
        told = json.loads(r.stdout)
        self.assertEqual((told["status"], told["together"], [h["node"] for h in told["hosts"]]), (0, None, [None]))
        self.assertEqual(told["hosts"][0]["verdict"]["several"]["fix"], "reload it")

    def test_doctor_of_a_host_that_can_do_nothing(self):
        r = self.doctor(host="cpu")
        self.assertEqual(r.returncode, 6)
        self.assertIn("one node: engine none (because no popcnt)\n", r.stdout.decode())

    def test_doctor_that_learns_nothing(self):
        for host, slice_program in (("garbage", FAKE), ("die", FAKE), (KVM, self.folder / "none")):
            r = self.doctor(host=host, slice_program=slice_program)
            self.assertEqual(r.returncode, 2, r.stdout)
            self.assertIn("what it can do is not known", r.stdout.decode())
            told = json.loads(self.doctor("--json", host=host, slice_program=slice_program).stdout)
            self.assertIn("what it can do is not known", told["hosts"][0]["unknown"])

    def test_doctor_of_a_pool(self):
        """Loopback addresses are this host's: it is one of the nodes, and not told of a second time."""
        self.keygen()
        path = self.topology(nodes=2)
        self.agents_of(KVM, EPTAD, tsc=(2000000, 2000100))
        r = self.doctor(path)
        out = r.stdout.decode()
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertNotIn("this host", out)
        self.assertLess(out.index("node n0: "), out.index("node n1: "))
        self.assertIn("n0 has what not all have, so guests on kvm do not see it: avx2\n", out)
        self.assertIn("n1 has what not all have, so guests on kvm do not see it: aes\n", out)
        self.assertIn("ok       TSC: 2000000 to 2000100 kHz\n", out)
        self.assertTrue(out.endswith("a VM on several of these nodes: engine bt (because n1: walks are writes; fix: reload it)\n"))
        told = json.loads(self.doctor(path, "--json").stdout)
        self.assertEqual((told["together"]["features"], told["together"]["several"]["engine"],
                          told["together"]["several"]["node"]), ("avx", "bt", "n1"))
        self.assertEqual([h["node"] for h in told["hosts"]], ["n0", "n1"])
        self.assertEqual(told["status"], 0)

    def test_doctor_of_a_pool_that_goes_well(self):
        self.keygen()
        path = self.topology(nodes=2)
        self.agents_of(KVM, KVM)
        out = self.doctor(path).stdout.decode()
        self.assertIn("guests on kvm see the same features on all nodes", out)
        self.assertTrue(out.endswith("a VM on several of these nodes: engine kvm\n"))

    def test_doctor_of_clocks_that_differ(self):
        self.keygen()
        path = self.topology(nodes=2)
        self.agents_of(KVM, KVM, tsc=(2000000, 2100000))
        self.assertIn("problem  TSC: n0 has 2000000 kHz and n1 has 2100000 kHz; a VM cannot span both\n",
                      self.doctor(path).stdout.decode())

    def test_doctor_tells_of_all_that_answer(self):
        self.keygen()
        path = self.topology(nodes=3)
        self.start_agent(0, env={"UNUM_FAKE_HOST": KVM})
        self.start_agent(2, env={"UNUM_FAKE_HOST": "garbage"})
        r = self.doctor(path)
        self.assertEqual(r.returncode, 2)
        self.assertIn("node 'n1' (127.0.0.1, port %d): Connection refused" % self.ports[1], r.stderr.decode())
        self.assertIn("node n0: fake (Linux 0)\none node: engine kvm, inline faults\n", r.stdout.decode())
        self.assertIn("what it can do is not known", r.stdout.decode())
        told = json.loads(self.doctor(path, "--json").stdout)
        self.assertEqual({h["node"]: h.get("unknown", "")[:4] for h in told["hosts"]}, {"n0": "", "n1": "Conn", "n2": "what"})

    def test_doctor_usage(self):
        for args in (["a", "b"], ["--fly"], ["--key", "k"], [self.folder / "none.yaml"]):
            self.assertEqual(self.doctor(*args).returncode, 2, args)
        self.assertEqual(self.doctor("--help").returncode, 0)
        self.assertEqual(self.doctor(self.topology(key=None)).returncode, 2)


if __name__ == "__main__":
    main()
