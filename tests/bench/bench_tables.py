# SPDX-License-Identifier: Apache-2.0
"""Makes tables of the lines that the benches wrote.

use     bench_tables.py FILE [--into PAGE]
What    FILE holds lines of JSON from guest_bench.py, dsm_bench, fault_bench, fabric_bench, move_bench.py and placement.py.  The tables go to stdout; with --into they replace
        what stands between <!-- table NAME --> and <!-- end --> in PAGE, for each NAME that FILE has lines of.
Limits  Of several series of one bench in FILE the last counts.
"""
import argparse
import json
import os
import platform
import re
import sys

LOADS = (("int_ms", "integer loop"), ("copy_ms", "memory copy"), ("pigz_ms", "`pigz -p 1`, 8 MiB"))
NODE_ROWS = (("boot_s", "start of `unum` to init, s"), ("guest_boot_s", "kernel's own clock at init, s"),
             ("total_s", "start to the end of `unum`, s"), ("cpu_s", "host CPU time, s"),
             ("remote_faults", "remote faults"), ("reads", "reads"), ("writes", "writes"), ("upgrades", "upgrades"),
             ("pages_sent", "pages sent"), ("p50_us", "fault latency p50, us, at most"),
             ("p99_us", "fault latency p99, us, at most"))


def table(head, rows):
    return "\n".join("| " + " | ".join(map(str, r)) + " |" for r in [head, ["---"] * len(head), *rows])


def pick(lines, **want):
    """The last line with these values."""
    found = [x for x in lines if all(x.get(k) == v for k, v in want.items())]
    return found[-1] if found else None


def series(lines, bench, **want):
    """The runs that the last median stands for, in order."""
    summary = pick(lines, bench=bench, summary="median", **want)
    runs = [x for x in lines[: lines.index(summary)] if x.get("bench") == bench and "run" in x
            and all(x.get(k) == v for k, v in want.items())]
    return runs[-summary["runs"]:]


def spread(runs, key):
    """The range of the runs, as the noise of the median."""
    values = [r[key] for r in runs]
    return f"{number(min(values))} to {number(max(values))}"


def number(x):
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.2f}".rstrip("0").rstrip(".")


def nodes_table(lines, bench):
    two, one = (pick(lines, bench=bench, summary="median", nodes=n) for n in (2, 1))
    if not two or not one:
        return None
    runs = {n: series(lines, bench, nodes=n) for n in (2, 1)}
    rows = []
    for key, name in NODE_ROWS:
        ratio = number(two[key] / one[key]) if one[key] else ""
        rows.append([name, number(two[key]), spread(runs[2], key), number(one[key]), spread(runs[1], key), ratio])
    return f"Medians of {two['runs']} runs each.\n\n" + table(
        ["", "2 nodes", "range", "1 node", "range", "2 / 1"], rows)


def tcg_table(lines):
    bt, tcg, speed = (pick(lines, bench="tcg", summary="median", engine="bt"),
                      pick(lines, bench="tcg", summary="median", engine="tcg"), pick(lines, bench="tcg", summary="speed"))
    if not bt or not tcg or not speed:
        return None
    runs = {e: series(lines, "tcg", engine=e) for e in ("bt", "tcg")}
    rows = []
    for key, name in LOADS:
        cpu = key.replace("_ms", "_cpu_ms")
        rows.append([name + ", ms", number(bt[key]), spread(runs["bt"], key), number(tcg[key]),
                     spread(runs["tcg"], key), f"**{number(speed[key])}**", number(speed[cpu])])
    rows.append(["boot to init, s", number(bt["boot_s"]), spread(runs["bt"], "boot_s"), number(tcg["boot_s"]),
                 spread(runs["tcg"], "boot_s"), number(speed["boot_s"]), number(speed["boot_cpu_s"])])
    return f"Medians of {bt['runs']} runs each.\n\n" + table(
        ["", "bt", "range", "TCG", "range", "speed bt / TCG", "the same by host CPU time"], rows)


def dsm_table(lines):
    rows, seen = [], {}
    for x in lines:
        if x.get("bench") == "dsm" and {"transport", "what", "case", "p50_us", "p99_us"} <= x.keys():
            seen[x["transport"], x["what"], x["case"]] = x
    for (transport, what, case), x in seen.items():
        rows.append([transport, what, case, x["samples"], x["p50_us"], x["p99_us"], x["ratio"]])
    return table(["transport", "what", "case", "samples", "p50 us", "p99 us", "p50 / floor"], rows) if rows else None


FAULT_PARTS = (("exit_us", "exit"), ("address_us", "address"), ("resolve_us", "resolve"), ("reentry_us", "re-entry"),
               ("wake_us", "reader woken"), ("serve_us", "served"))


def fault_table(lines):
    rows, seen = [], {}
    for x in lines:
        if x.get("bench") == "fault" and x.get("samples"):
            seen[x["toucher"], x["path"], x["case"]] = x
    for (toucher, path, case), x in seen.items():
        parts = ", ".join(f"{name} {number(x[key])}" for key, name in FAULT_PARTS if key in x)
        rows.append([toucher, path, case, x["samples"], number(x["p50_us"]), number(x["p99_us"]), parts])
    return table(["touched by", "path", "case", "samples", "p50 us", "p99 us", "p50 of the parts, us"],
                 rows) if rows else None


def fabric_table(lines):
    rows, seen = [], {}
    for x in lines:
        if x.get("bench") == "fabric":
            seen[x["backend"], x["path"], x["case"]] = x
    for (backend, path, case), x in seen.items():
        unit, digits = ("MiB/s", 0) if case == "stream" else ("us", 2)
        ours, bare = (f"{x[side + ('_mib_s' if case == 'stream' else '_us')]:.{digits}f} {unit}" for side in ("ours", "bare"))
        tail = "" if case == "stream" else f"{x['p99']:.2f} / {x['bare_p99']:.2f}"
        rows.append([backend, path, case, ours, bare, f"{x['ratio']:.2f}", tail])
    return table(["backend", "path", "case", "ours", "bare", "ours / bare", "p99 us, ours / bare"], rows) if rows else None


MOVE_PARTS = ("stop", "capture", "send", "restore", "resume")


def move_table(lines):
    seen = {x["rate_asked"]: x for x in lines if x.get("bench") == "move"}
    rows = [[rate, number(x["moves_per_s"]), number(x["pause_p50_us"]), number(x["pause_p99_us"]),
             ", ".join(f"{part} {number(x[part + '_p50_us'])} / {number(x[part + '_p99_us'])}" for part in MOVE_PARTS),
             x["round_trip_us"], x["pause_in_round_trips"], x["snapshot_bytes"]] for rate, x in seen.items()]
    return table(["asked, a second", "moves a second", "pause p50 us", "p99 us", "parts, p50 / p99 us", "round trip us",
                  "pause p50 in round trips", "snapshot bytes"], rows) if rows else None


def placement_table(lines):
    seen = {x["case"]: x for x in lines if x.get("bench") == "placement"}
    rows = [[case, f"**{number(x['speedup'])}**", number(x["pinned_mcycles"]), number(x["auto_mcycles"]), x["moves"],
             x["pinned_remote_faults"], x["remote_faults"], x["runs"]] for case, x in seen.items()]
    return table(["case", "speedup", "pinned, million cycles", "auto", "moves", "remote faults pinned", "auto", "runs each"],
                 rows) if rows else None


def main():
    p = argparse.ArgumentParser()
    p.add_argument("file")
    p.add_argument("--into")
    a = p.parse_args()
    with open(a.file, encoding="utf-8") as f:
        lines = [json.loads(line) for line in f if line.startswith("{")]
    tables = {"boot": nodes_table(lines, "boot"), "demo": nodes_table(lines, "demo"), "tcg": tcg_table(lines),
              "dsm": dsm_table(lines), "fault": fault_table(lines), "fabric": fabric_table(lines),
              "move": move_table(lines), "placement": placement_table(lines)}
    tables = {name: text for name, text in tables.items() if text}
    if not tables:
        sys.exit(f"bench_tables: {a.file} has no complete bench")
    for name, text in tables.items():
        print(f"{name}\n\n{text}\n")
    print(f"machine: {os.cpu_count()} CPUs, Linux {platform.release()}")
    if not a.into:
        return
    with open(a.into, encoding="utf-8") as f:
        page = f.read()
    for name, text in tables.items():
        page, found = re.subn(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", lambda m, t=text: m[1] + t + "\n" + m[2],
                              page, flags=re.S)
        if found != 1:
            sys.exit(f"bench_tables: {a.into} has {found} places for the table {name}, not 1")
    with open(a.into, "w", encoding="utf-8") as f:
        f.write(page)


if __name__ == "__main__":
    main()
