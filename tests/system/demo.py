# SPDX-License-Identifier: Apache-2.0
"""`make demo`: one unmodified Debian guest on the two nodes of cluster-config/examples/two-nodes.yaml runs a job.

Shows   The guest's console, what each node counted, each check; the last line is one JSON object.
Exit    0 only if every check held.
"""
import json
import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import guest_job
from unum import BUILD, TOP, UNUM, Run, exit_on_signals, processes

EXAMPLE = os.path.join(TOP, "cluster-config", "examples", "two-nodes.yaml")
LIMIT_S = 300


def with_job(job, path):
    """The example with a word more on the kernel command line; its relative paths made absolute."""
    with open(EXAMPLE, encoding="utf-8") as f:
        text = f.read()
    here = os.path.dirname(EXAMPLE)
    text = re.sub(r"^(\s*(?:kernel|initrd):\s*)(\.\S+)$", lambda m: m[1] + os.path.normpath(os.path.join(here, m[2])),
                  text, flags=re.M)
    text, found = re.subn(r"^(\s*cmdline:\s*.*\S)\s*$", lambda m: f"{m[1]} unum.job={job}", text, flags=re.M)
    if found != 1:
        sys.exit(f"demo: {EXAMPLE} has {found} command lines, not 1")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def shares_kib(path):
    """Sum of the shares of the VM, as unum itself reads the file."""
    out = subprocess.run([UNUM, "check", path], capture_output=True, text=True, check=True).stdout
    return sum(int(m) << 10 for m in re.findall(r"^  node .*?, (\d+) MiB", out, flags=re.M))


def main():
    exit_on_signals()
    os.makedirs(os.path.join(BUILD, "system"), exist_ok=True)
    path = os.path.join(BUILD, "system", "two-nodes-job.yaml")
    if sys.argv[1:] == ["--shell"]:
        with_job("shell", path)
        os.execv(UNUM, [UNUM, "run", path, "--start-agents", "--stats"])
    with_job("demo", path)
    shares = shares_kib(path)
    run = Run("demo", [path, "--start-agents"], echo=True).start()
    names = []
    if run.wait_for(r"RESULT init_uptime_s", LIMIT_S):
        names = sorted(name for _, name in processes(run.mark))
    run.wait(LIMIT_S)
    checks = guest_job.checks(run, 4, 2, shares)
    checks.append(("two agents and two slices ran as processes of their own",
                   names.count("unumd") == 2 and names.count("unum-slice") == 2))
    left = run.leftovers()
    checks.append(("nothing is left behind" + (": " + ", ".join(left) if left else ""), not left))
    print()
    for what, holds in checks:
        print(f"  {'ok  ' if holds else 'FAIL'}  {what}")
    if run.timed_out:
        print(f"  FAIL  not done after {LIMIT_S} s")
    print(json.dumps(guest_job.summary(run, shares)), flush=True)
    return 0 if all(holds for _, holds in checks) and not run.timed_out else 1


if __name__ == "__main__":
    sys.exit(main())
