# SPDX-License-Identifier: Apache-2.0
"""What a whole Linux guest costs: two nodes against one, and the bt engine against QEMU's translator (TCG).

use     guest_bench.py [--rounds N] [--only boot,demo,tcg] [--out FILE]
What    boot  the guest on 2 nodes and on 1 node, 4 vCPUs: wall time to init and to power-off, remote faults
        demo  the same two, with the whole demo job
        tcg   the same guest work on bt and on QEMU TCG, one vCPU: integer loop, memory copy, pigz
Method  Runs of the two sides alternate (A B A B); medians of all runs.  A run that fails ends the bench: status 1.
        Guest times are what the guest measured.  cpu_s is the host CPU time of all threads of the monitors, which a
        busy host does not stretch; of a load it is taken between the guest's lines before and after it.
Output  One line of JSON for each run and each summary, appended to FILE too; bench_tables.py makes tables of it.
I/O     Starts unum, unum-slice and qemu-system-x86_64 at the highest priority that it may have, each in a session of
        its own: where the scheduler groups by session only the group's priority counts.
Limits  Standard library only.
"""
import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(TOP, os.environ.get("B") or "build")
GUEST = os.environ.get("GUEST") or os.path.join(TOP, "build", "guest")
KERNEL, INITRD = os.path.join(GUEST, "vmlinuz"), os.path.join(GUEST, "initrd")
CMDLINE = "console=ttyS0 quiet unum.job="
LIMIT_S = 600
PRIORITY = -10
SETTLE_S = 3

# The line before a load begins and the line after it, by the name of its time.
LOADS = {"int_ms": ("init_uptime_s", "int_ms"), "copy_ms": ("int_sum", "copy_ms"),
         "pigz_ms": ("sha256_input", "pigz_status")}


def go_first():
    """In the child: the priority for measuring, as far as this user may."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
        with open("/proc/self/autogroup", "w", encoding="ascii") as f:
            f.write(str(PRIORITY))
    except OSError:
        pass  # no such right, or no groups: measured with the priority that we have


def family(root):
    """The process and all that descends from it."""
    children = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
                children.setdefault(int(f.read().rpartition(")")[2].split()[1]), []).append(int(pid))
        except OSError:
            pass  # it ended meanwhile
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def family_cpu_s(root):
    """CPU time until now of all live threads of the family."""
    total = 0
    for pid in family(root):
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as f:
                    total += int(f.read().split()[0])
        except OSError:
            pass
    return total / 1e9


def family_first(root):
    """Agents and slices begin sessions of their own: the same priority for these, while they come up."""
    until = time.monotonic() + SETTLE_S
    while time.monotonic() < until:
        for pid in family(root):
            try:
                with open(f"/proc/{pid}/autogroup", "r+", encoding="ascii") as f:
                    if not f.read().rstrip().endswith(f"nice {PRIORITY}"):
                        f.seek(0)
                        f.write(str(PRIORITY))
            except OSError:
                pass
        time.sleep(0.25)


class Sample:
    """One run of a guest: its RESULT lines and, at each of them, the wall and the CPU time until then."""

    def __init__(self, command):
        self.results, self.wall, self.cpu = {}, {}, {}
        text = []
        began = time.monotonic()
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                                       cwd=TOP, start_new_session=True, preexec_fn=go_first)
            threading.Thread(target=family_first, args=(process.pid,), daemon=True).start()
            signal.signal(signal.SIGALRM, lambda *_: os.killpg(process.pid, signal.SIGTERM))
            signal.alarm(LIMIT_S)
            for raw in process.stdout:
                line = raw.decode("utf-8", "replace").strip()
                text.append(line)
                m = re.search(r"RESULT ([A-Za-z0-9_]+)=(.*)$", line)
                if m:
                    self.results[m[1]] = m[2].strip()
                    self.wall[m[1]] = time.monotonic() - began
                    self.cpu[m[1]] = family_cpu_s(process.pid)
            pid, wait_status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(wait_status)
            signal.alarm(0)
            self.wall_s = time.monotonic() - began
            self.cpu_s = usage.ru_utime + usage.ru_stime
            errors.seek(0)
            if process.returncode or "done_uptime_s" not in self.results:
                sys.exit("\n".join(["bench: a run failed: " + " ".join(command), f"status {process.returncode}",
                                    *text[-15:], errors.read().decode("utf-8", "replace")[-2000:]]))


class Report:
    def __init__(self, path):
        self.path = path

    def tell(self, **record):
        line = json.dumps(record)
        print(line, flush=True)
        if self.path:
            with open(self.path, "a", encoding="utf-8") as f:
                f.write(line + "\n")


def median(samples, key):
    return round(statistics.median(s[key] for s in samples), 3)


# --- two nodes and one ------------------------------------------------------------------------------------

def on_nodes(nodes, job):
    """One run of a job with 4 vCPUs and 1 GiB over that many nodes."""
    with tempfile.NamedTemporaryFile(suffix=".json") as stats_file:
        s = Sample([os.path.join(BUILD, "bin", "unum"), "run", "--local", str(nodes), "--vcpus", "4", "--memory", "1GiB",
                    "--kernel", KERNEL, "--initrd", INITRD, "--cmdline", CMDLINE + job, "--quiet",
                    "--stats-json", stats_file.name])
        stats = json.load(stats_file)
    told = [n for n in stats["nodes"] if n["reported"]]
    if len(told) != nodes:
        sys.exit(f"bench: {len(told)} of {nodes} nodes told their counts")
    histogram = [sum(column) for column in zip(*(n["latency_hist_ns_log2"] for n in told))]
    return {"boot_s": s.wall["init_uptime_s"], "total_s": s.wall_s, "guest_boot_s": float(s.results["init_uptime_s"]),
            "cpu_s": s.cpu_s, "remote_faults": sum(n["remote_faults"] for n in told),
            "reads": sum(n["faults_read"] for n in told), "writes": sum(n["faults_write"] for n in told),
            "upgrades": sum(n["faults_upgrade"] for n in told), "pages_sent": sum(n["pages_sent"] for n in told),
            "p50_us": percentile_us(histogram, 0.50), "p99_us": percentile_us(histogram, 0.99)}


def percentile_us(histogram, share):
    """Upper end of the bucket of powers of two; 0 when there was no fault."""
    below, total = 0, sum(histogram)
    for k, count in enumerate(histogram):
        below += count
        if total and below >= share * total:
            return round(2 ** (k + 1) / 1000, 1)
    return 0


def bench_nodes(report, bench, job, rounds):
    runs = {2: [], 1: []}
    for at in range(rounds):
        for nodes, samples in runs.items():
            samples.append(on_nodes(nodes, job))
            report.tell(bench=bench, run=at, nodes=nodes, **{k: round(v, 3) for k, v in samples[-1].items()})
    medians = {nodes: {k: median(samples, k) for k in samples[0]} for nodes, samples in runs.items()}
    for nodes, values in medians.items():
        report.tell(bench=bench, summary="median", nodes=nodes, runs=rounds, **values)
    report.tell(bench=bench, summary="ratio", runs=rounds,
                **{k: round(medians[2][k] / medians[1][k], 2) for k in ("boot_s", "total_s", "cpu_s")})


# --- bt and TCG -------------------------------------------------------------------------------------------

def bt_command():
    return [os.path.join(BUILD, "bin", "unum-slice"), "--standalone", "--vcpus", "1", "--memory", "1GiB", "--kernel",
            KERNEL, "--initrd", INITRD, "--cmdline", CMDLINE + "bench", "--no-console"]


def tcg_command():
    """A CPU of the level that bt shows too, x86-64-v2: the guest's libraries take the same paths."""
    return ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-smp", "1", "-m", "1G", "-cpu", "Nehalem", "-nographic",
            "-no-reboot", "-nic", "none", "-kernel", KERNEL, "-initrd", INITRD, "-append", CMDLINE + "bench"]


def on_engine(command):
    s = Sample(command)
    out = {"boot_s": s.wall["init_uptime_s"], "total_s": s.wall_s, "cpu_s": s.cpu_s, "boot_cpu_s": s.cpu["init_uptime_s"]}
    for load, (before, after) in LOADS.items():
        out[load] = float(s.results[load])
        out[load.replace("_ms", "_cpu_ms")] = (s.cpu[after] - s.cpu[before]) * 1000
    sums = tuple(s.results[k] for k in ("int_sum", "copy_sum", "sha256_input", "sha256_output"))
    if s.results["pigz_status"] != "0" or sums[2] != sums[3]:
        sys.exit("bench: pigz gave another file back: " + " ".join(command))
    return out, sums


def bench_tcg(report, rounds):
    runs, answers = {"bt": [], "tcg": []}, set()
    for at in range(rounds):
        for engine, command in (("bt", bt_command()), ("tcg", tcg_command())):
            sample, sums = on_engine(command)
            answers.add(sums)
            runs[engine].append(sample)
            report.tell(bench="tcg", run=at, engine=engine, **{k: round(v, 3) for k, v in sample.items()})
    if len(answers) != 1:
        sys.exit("bench: the engines computed different things")
    medians = {e: {k: median(samples, k) for k in samples[0]} for e, samples in runs.items()}
    for engine, values in medians.items():
        report.tell(bench="tcg", summary="median", engine=engine, runs=rounds, **values)
    report.tell(bench="tcg", summary="speed", runs=rounds, **{
        k: round(medians["tcg"][k] / medians["bt"][k], 2) if medians["bt"][k] else None for k in medians["bt"]})


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--only", default="boot,demo,tcg")
    p.add_argument("--out")
    a = p.parse_args()
    report = Report(a.out)
    only = a.only.split(",")
    if "tcg" in only:
        bench_tcg(report, a.rounds)
    if "boot" in only:
        bench_nodes(report, "boot", "poweroff", a.rounds)
    if "demo" in only:
        bench_nodes(report, "demo", "demo", a.rounds)


if __name__ == "__main__":
    main()
