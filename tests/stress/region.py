# SPDX-License-Identifier: Apache-2.0
"""A guest with more memory than any of its nodes has: nothing is lost, and each slice keeps within its bound.

Use     region.py GUEST: the payload tests/stress/region.c on 4 slices of the bt engine.
What    While the guest writes and reads all of its memory, from one vCPU and from all, this looks at each slice again and
        again: blocks of its memory file (fstat through /proc/PID/fd), and RssAnon.
Prints  What each slice took at most, and last "N passed, N failed, N skipped".
"""
import os
import re
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "system"))
from unum import BUILD, Run, processes

NODES, SHARE_MIB, CACHE_MIB = 4, 16, 4
SLACK_KIB = 256  # frames in flight: each vCPU and device, a few
META_BYTES = 24  # for each page of guest RAM
ANON_KIB = 8 << 10  # engine, stacks, queues, translations: not by size of memory
LIMIT_S = 300


def topology(folder, kernel):
    ports = []
    sockets = [socket.socket() for _ in range(NODES)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
        ports.append(s.getsockname()[1])
    for s in sockets:
        s.close()
    lines = ["pool: region", "nodes:"]
    lines += [f"  - {{ name: n{i}, address: 127.0.0.1, port: {p}, cpus: 1, memory: 32MiB, cache: {CACHE_MIB}MiB }}"
              for i, p in enumerate(ports)]
    lines += ["vms:", "  - name: wide", f"    vcpus: {NODES}", f"    memory: {NODES * SHARE_MIB}MiB",
              f"    kernel: {kernel}", "    engine: bt", "    shares:"]
    lines += [f"      n{i}: {{ vcpus: 1, memory: {SHARE_MIB}MiB }}" for i in range(NODES)]
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "region.yaml")
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")
    return path


def frames_kib(pid):
    """Memory of the slice's guest RAM file; None: it has none (yet), like one that only tells what its host can do."""
    folder = f"/proc/{pid}/fd"
    for fd in os.listdir(folder):
        if os.readlink(f"{folder}/{fd}").startswith("/memfd:unum-ram"):
            return os.stat(f"{folder}/{fd}").st_blocks // 2
    return None


def anon_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(r"^RssAnon:\s*(\d+)", f.read(), re.M)[1])


def watch(run, most, done):
    while not done.is_set():
        for pid, name in processes(run.mark):
            if name != "unum-slice":
                continue
            try:
                now = frames_kib(pid), anon_kib(pid)
            except (OSError, TypeError):
                continue  # it has just ended
            if now[0] is None:
                continue
            was = most.get(pid, (0, 0, 0))
            most[pid] = max(was[0], now[0]), max(was[1], now[1]), was[2] + 1
        time.sleep(0.02)


def main():
    run = Run("region", [], ())
    run.command[2:2] = [topology(run.dir, os.path.abspath(sys.argv[1])), "--start-agents"]
    most, done = {}, threading.Event()
    run.start()
    watcher = threading.Thread(target=watch, args=(run, most, done))
    watcher.start()
    run.wait(LIMIT_S)
    done.set()
    watcher.join()
    passed = failed = 0

    def verdict(holds, text):
        nonlocal passed, failed
        passed, failed = passed + bool(holds), failed + (not holds)
        print(("  ok    " if holds else "  FAIL  ") + text)

    said = [t for _, t in run.lines if t.startswith(("PAYLOAD", "region:"))]
    verdict("PAYLOAD region: PASS" in said and run.status == 0, "; ".join(said) or "the guest said nothing")
    if failed:
        print(run.tail())
    verdict(len(most) == NODES, f"{len(most)} slices were looked at")
    frames_limit = ((SHARE_MIB + CACHE_MIB) << 10) + SLACK_KIB
    anon_limit = ANON_KIB + META_BYTES * NODES * SHARE_MIB * 256 // 1024
    for pid, (frames, anon, looks) in sorted(most.items()):
        verdict(frames <= frames_limit and anon <= anon_limit and looks > 20,
                f"slice {pid}: frames {frames} KiB of {frames_limit}, anon {anon} KiB of {anon_limit}, {looks} looks")
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
