# SPDX-License-Identifier: Apache-2.0
"""What moving a running vCPU costs: the pause and its parts, and how many moves a second two nodes sustain.

use     move_bench.py [--seconds N] [--rates A,B,...] [--nodes N] [--out FILE]
Method  A payload guest of 4 vCPUs that all work on 4 shared pages (tests/payloads/spin.c), engine bt, slices on this host;
        `unum migrate --random RATE` moves them for that time.  Pause: as the guest has it, from the source's last instruction
        to the target's first, told by each move.  Parts: what the slices counted, the slower node's.  fault_*: a remote page
        fault (request, answer with a page; three hops when a third node has it) in the same run, the measure of the fabric
        under that load; round_trip_us: where the slices tell it.
Output  One line of JSON for each rate, appended to FILE too.  Exit status 1 when a run fails.
Limits  Standard library only.  Numbers are those of an idle machine only when it is idle.
"""
import argparse
import json
import os
import signal
import sys
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TESTS, "system"))
sys.path.insert(0, os.path.join(TESTS, "migrate"))
from moves import churn, churned, end, payload_vm
from unum import exit_on_signals

PARTS = ("stop", "capture", "send", "restore", "resume")


def us(ns):
    return round(ns / 1000, 1)


def measure(rate, seconds, nodes):
    run = payload_vm(f"bench-{rate}", "spin", nodes, vcpus=4 if nodes < 3 else 6).start()
    try:
        if not run.wait_for("spin: running", 60):
            sys.exit("bench: the payload does not run\n" + run.tail())
        began = time.monotonic()
        moving = churn(run, rate)
        time.sleep(seconds)
        moving.send_signal(signal.SIGINT)
        told = churned(moving, run, 60)
        took = time.monotonic() - began
        run.process.terminate()  # this payload never ends by itself
        run.wait(20)
        told_by = [n for n in (run.stats() or {}).get("nodes", []) if n.get("reported")]
        if run.status != 130 or len(told_by) != nodes or told["failed"] or not told["moves"]:
            sys.exit(f"bench: a run failed: {told}\n" + run.tail())
    finally:
        end(run)
    worst = {k: max(n.get(k, 0) for n in told_by) for k in told_by[0] if isinstance(told_by[0][k], int)}
    record = {"bench": "move", "engine": told_by[0]["engine"], "nodes": nodes, "rate_asked": rate, "moves": told["moves"],
              "refused": told["refused"], "moves_per_s": round(told["moves"] / took, 1), "pause_p50_us": told["pause_p50_us"],
              "pause_p99_us": told["pause_p99_us"]}
    for part in PARTS:
        for p in ("p50", "p99"):
            record[f"{part}_{p}_us"] = us(worst.get(f"{part}_{p}_ns", 0))
    record["snapshot_bytes"] = worst.get("snapshot_bytes")
    record["fault_p50_us"], record["fault_p99_us"] = us(worst["latency_p50_ns"]), us(worst["latency_p99_ns"])
    trip = worst.get("round_trip_ns")
    record["round_trip_us"] = us(trip) if trip else None
    record["pause_in_round_trips"] = round(told["pause_p50_us"] * 1000 / trip, 2) if trip else None
    return record


def main():
    exit_on_signals()
    p = argparse.ArgumentParser()
    p.add_argument("--seconds", type=float, default=5)
    p.add_argument("--rates", default="100,1000,4000")
    p.add_argument("--nodes", type=int, default=2)
    p.add_argument("--out")
    a = p.parse_args()
    for rate in map(int, a.rates.split(",")):
        line = json.dumps(measure(rate, a.seconds, a.nodes))
        print(line, flush=True)
        if a.out:
            with open(a.out, "a", encoding="utf-8") as f:
                f.write(line + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
