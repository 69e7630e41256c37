# SPDX-License-Identifier: Apache-2.0
"""The kvm engine on a host with hardware virtualization: what `make rig-amd` runs inside an emulated AMD host.

Use     amd.py [PATTERN...]; --list names the cases; prints like tests/system/cases.py.
What    What unum says of such a host; that it refuses to spread Linux over nodes there; the Debian guest with 2 vCPUs on
        one node runs the demo's job; every marked payload over 2 slices with inline faults; vCPUs that move between them.
Limits  Times are those of one emulated CPU, where an exit to user space costs 0.3 ms.
"""
import json
import os
import shutil
import subprocess
import sys

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(TESTS, "system"), os.path.join(TESTS, "kvm")]
import guest_job
from cases import crossed, expect, local, main
from native import MOVED, UNSOUND, engines, kvm_run, marked, moves, passed, refused
from unum import BUILD, GUEST, UNUM, Run

OUT = "/run/rig/out"
GUEST_MIB = 512
# No mitigations: they are of no use in there and cost a fifth of the time.
GUEST_WORDS = "console=hvc0 quiet mitigations=off audit=0 unum.stress_s=1"
CASES = []


def case(name, limit_s):
    def register(fn):
        CASES.append((name, limit_s, fn))
        return fn
    return register


def linux(name, nodes, job):
    return Run(name, local(nodes, 2, f"{GUEST_MIB}MiB", os.path.join(GUEST, "vmlinuz"), os.path.join(GUEST, "initrd"),
                           f"{GUEST_WORDS} unum.job={job}", ["--engine", "kvm", "--faults", "inline"]))


@case("doctor", 30)
def doctor(limit_s):
    """The host is told for what it is: SVM with nested paging, good for one node, not for several."""
    out = subprocess.run([UNUM, "doctor", "--json"], capture_output=True, text=True, timeout=limit_s, check=False)
    expect(out.returncode == 0, f"status {out.returncode}: {out.stdout}{out.stderr}")
    host = json.loads(out.stdout)["hosts"][0]
    kvm, verdict = host["kvm"], host["verdict"]
    expect(kvm["usable"]["ok"] and kvm["kind"] == "svm" and kvm["two_dimensional"], f"kvm is {kvm}")
    expect(kvm["inline"]["ok"] and kvm["dispatch"]["ok"] and kvm["address"] == "perf", f"kvm is {kvm}")
    expect(not kvm["shared"]["ok"] and "AMD" in kvm["shared"]["why"], f"kvm is {kvm}")
    engines = {what: verdict[what]["engine"] for what in verdict}
    expect(engines == {"one": "kvm", "several": "bt", "several_private": "kvm"}, f"the verdict is {verdict}")


@case("linux-refused", 30)
def linux_refused(limit_s):
    """A guest that shares page tables over two nodes: not where nested walks are writes."""
    refused(linux("rig-refused", 2, "poweroff").start(), UNSOUND, "AMD", limit_s)


@case("linux", 300)
def linux_job(limit_s):
    """The Debian guest under nested paging does all of the demo's job."""
    run = linux("rig-linux", 1, "demo").run(limit_s)
    expect(not run.timed_out, f"not done after {limit_s} s", run)
    expect(engines(run) == ["kvm"], f"it ran on {engines(run)}", run)
    expect("inline faults" in run.errors, "it does not say that faults are inline", run)
    bad = [what for what, holds in guest_job.checks(run, 2, 1, GUEST_MIB << 10) if not holds]
    expect(not bad, "; ".join(bad), run)
    left = run.leftovers()
    expect(not left, f"left behind: {left}", run)
    return f"boot {run.results['at_init_uptime_s']:.1f} s, {run.results['stress_ms']} ms of stress-ng"


# Other than in marked.txt: processors that wait for each other's time are few, and a tick comes no sooner than the
# handler of the one before can be done (0.3 ms an exit); strict=0 as in payloads/qemu.sh.
SPECIAL = {"timer": (1, "rounds=4 period=20000000"), "tsc": (1, "rounds=20"), "modes": (2, "strict=0")}


def register_payloads():
    def make(name, vcpus, words):
        def fn(limit_s):
            run = kvm_run(f"rig-{name}", name, 2, vcpus, words.strip(), more=("--faults", "inline")).start()
            passed(run, name, limit_s)
            expect(engines(run) == ["kvm", "kvm"], f"it ran on {engines(run)}", run)
            expect("inline faults" in run.errors, "it does not say that faults are inline", run)
            crossed(run, *MOVED.get(name, []))
        return fn

    for name, vcpus, words, _ in marked():
        case(f"payload-{name}", 90)(make(name, *SPECIAL.get(name, (vcpus, words))))


register_payloads()
case("moves", 200)(moves)


if __name__ == "__main__":
    status = main(CASES)
    if os.path.isdir(OUT):
        shutil.copytree(os.path.join(BUILD, "system"), OUT, dirs_exist_ok=True)
    sys.exit(status)
