# SPDX-License-Identifier: Apache-2.0
"""Does it pay that vCPUs go to their memory?  The same payload guests with placement pinned and auto.

use     placement.py [--rounds N] [--only scan,pingpong,phase,local] [--out FILE]
What    scan      processor 0 goes through memory that the other node has written
        pingpong  two processors of different nodes write to the same pages in turns
        phase     processor 0 shares pages with one of its own node and with one of the other, in turns
        local     all work on memory of their own: must not get slower
Method  bt engine, two nodes on this host.  Runs of the two sides alternate; medians.  The time is the guest's, from its
        TSC, of the part that counts ("place: round N took CYCLES").  speedup is pinned time over auto time.
Output  One line of JSON for each case: {"bench":"placement","case":...,"speedup":...,"moves":...,"remote_faults":...}.
        A run that fails, or a goal of issue 6 that is missed (--goals), makes status 1.
Limits  Standard library only.  unum of build/ or B.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(TOP, os.environ.get("B") or "build")
PAYLOADS = os.environ.get("PAYLOADS") or os.path.join(TOP, "build", "payloads")
LIMIT_S = 120
# vCPUs, command line of the guest, what the speedup should be at least
CASES = {
    "scan": (2, "region=64 size=32 rounds=3", 3),
    "pingpong": (2, "rounds=20000 pages=4", 3),
    "phase": (4, "rounds=10000 phases=6", 3),
    "local": (2, "rounds=200000 meet=10000", 0.98),
}


def run(case, placement, directory):
    """One VM; what it cost."""
    vcpus, cmdline, _ = CASES[case]
    stats = os.path.join(directory, "stats.json")
    done = subprocess.run(
        [os.path.join(BUILD, "bin", "unum"), "run", "--local", "2", "--vcpus", str(vcpus), "--memory", "128MiB",
         "--engine", "bt", "--placement", placement, "--quiet", "--stats-json", stats,
         "--kernel", os.path.join(PAYLOADS, f"place_{case}.pvh"), "--cmdline", cmdline],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=LIMIT_S, check=False)
    rounds = [int(c) for c in re.findall(r"place: round \d+ took (\d+)", done.stdout)]
    if done.returncode or f"PAYLOAD place_{case}: PASS" not in done.stdout or not rounds:
        sys.exit(f"placement: {case}, {placement}: status {done.returncode}\n{done.stdout}{done.stderr}")
    with open(stats, encoding="ascii") as f:
        nodes = json.load(f)["nodes"]
    return {"mcycles": sum(rounds) / 1e6, "rounds": [r / 1e6 for r in rounds],
            "moves": sum(n["moved_in"] for n in nodes), "remote_faults": sum(n["remote_faults"] for n in nodes),
            "pause_p50_us": max(n["pause_p50_ns"] for n in nodes) / 1e3}


def middle(runs, key):
    return statistics.median(r[key] for r in runs)


def measure(case, rounds, directory):
    runs = {"pinned": [], "auto": []}
    for _ in range(rounds):
        for placement, found in runs.items():
            found.append(run(case, placement, directory))
    pinned, auto = runs["pinned"], runs["auto"]
    return {"bench": "placement", "case": case,
            "speedup": round(middle(pinned, "mcycles") / middle(auto, "mcycles"), 3),
            "moves": middle(auto, "moves"), "remote_faults": middle(auto, "remote_faults"),
            "pinned_remote_faults": middle(pinned, "remote_faults"),
            "pinned_mcycles": round(middle(pinned, "mcycles"), 1), "auto_mcycles": round(middle(auto, "mcycles"), 1),
            "pinned_range": [round(f(r["mcycles"] for r in pinned), 1) for f in (min, max)],
            "auto_range": [round(f(r["mcycles"] for r in auto), 1) for f in (min, max)],
            "pause_p50_us": middle(auto, "pause_p50_us"), "runs": rounds}


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--only", default=",".join(CASES))
    ap.add_argument("--out")
    ap.add_argument("--goals", action="store_true")
    args = ap.parse_args()
    missed = []
    with tempfile.TemporaryDirectory() as directory:
        for case in args.only.split(","):
            line = measure(case, args.rounds, directory)
            if line["speedup"] < CASES[case][2]:
                missed.append(case)
            text = json.dumps(line)
            print(text, flush=True)
            if args.out:
                with open(args.out, "a", encoding="ascii") as f:
                    f.write(text + "\n")
    if args.goals and missed:
        sys.exit(f"placement: below the goal: {', '.join(missed)}")


if __name__ == "__main__":
    main()
