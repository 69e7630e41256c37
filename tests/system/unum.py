# SPDX-License-Identifier: Apache-2.0
"""Runs a VM with the `unum` command and tells what came of it; shared by the demo and the system tests.

What    One Run: command line in, console text, RESULT lines, statistics, exit status and times out.
Owns    A folder under build/system for each run: console.log, unum.log, stats.json, tmp/.
Limits  Standard library only.  Processes of a run are found by a word in their environment, never by name alone.
"""
import atexit
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(TOP, os.environ.get("B") or "build")
UNUM = os.path.join(BUILD, "bin", "unum")
GUEST = os.path.join(TOP, "build", "guest")
PAYLOADS = os.path.join(TOP, "build", "payloads")
MARK = "UNUM_TEST_RUN"
LIVE = set()  # runs that have begun and not ended: ended at exit, whatever the reason


@atexit.register
def _end_all():
    for run in list(LIVE):
        run.end()


def exit_on_signals():
    """A runner that is told to stop takes its machines with it."""
    for s in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(s, lambda number, _frame: sys.exit(128 + number))


def processes(mark):
    """(pid, name) of every live process that was started with this mark in its environment."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                if f"{MARK}={mark}".encode() not in f.read().split(b"\0"):
                    continue
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
                stat = f.read()
            name, state = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2]
            if state != "Z":
                found.append((int(pid), name))
        except OSError:
            pass  # it is gone, or not ours to look at
    return found


class Run:
    """One `unum run`.  start() and wait(), or all at once with run()."""

    def __init__(self, name, args, echo=False, prefix=()):
        self.name = name
        self.mark = uuid.uuid4().hex
        self.dir = os.path.join(BUILD, "system", name)
        self.tmp = os.path.join(self.dir, "tmp")
        os.makedirs(self.tmp, exist_ok=True)
        self.stats_path = os.path.join(self.dir, "stats.json")
        if os.path.exists(self.stats_path):
            os.unlink(self.stats_path)
        self.command = [*prefix, UNUM, "run", *args, "--stats", "--stats-json", self.stats_path]
        self.echo = echo
        self.lines = []  # (seconds since start, text) of the console
        self.results = {}
        self.errors = ""
        self.status = None
        self.timed_out = False
        self.process = None

    def start(self, stdin=subprocess.DEVNULL):
        env = dict(os.environ, **{MARK: self.mark}, TMPDIR=self.tmp, XDG_RUNTIME_DIR=self.tmp)
        with open(os.path.join(self.dir, "command"), "w", encoding="utf-8") as f:
            f.write(" ".join(self.command) + "\n")
        self.began = time.monotonic()
        self.process = subprocess.Popen(self.command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env=env, cwd=TOP, start_new_session=True)
        LIVE.add(self)
        self.readers = [threading.Thread(target=t, daemon=True) for t in (self._console, self._errors)]
        for r in self.readers:
            r.start()
        return self

    def _console(self):
        with open(os.path.join(self.dir, "console.log"), "wb") as log:
            for raw in self.process.stdout:
                at = time.monotonic() - self.began
                log.write(raw)
                log.flush()
                text = raw.decode("utf-8", "replace").replace("\r", "").rstrip("\n")
                self.lines.append((at, text))
                m = re.search(r"RESULT ([A-Za-z0-9_]+)=(.*)$", text)
                if m:
                    self.results[m[1]] = m[2].strip()
                    self.results.setdefault("at_" + m[1], at)
                if self.echo:
                    print(text, flush=True)

    def _errors(self):
        with open(os.path.join(self.dir, "unum.log"), "wb") as log:
            for raw in self.process.stderr:
                log.write(raw)
                log.flush()
                self.errors += raw.decode("utf-8", "replace")
                if self.echo:
                    print(raw.decode("utf-8", "replace").rstrip("\n"), file=sys.stderr, flush=True)

    def text(self):
        return "\n".join(t for _, t in self.lines)

    def wait_for(self, pattern, seconds):
        """True when a console line matches within that time, while the run lives."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if any(re.search(pattern, t) for _, t in self.lines):
                return True
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        return any(re.search(pattern, t) for _, t in list(self.lines))

    def wait(self, seconds):
        try:
            self.status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.timed_out = True
            self.end()
            self.status = self.process.wait(10)
        LIVE.discard(self)
        self.seconds = time.monotonic() - self.began
        for r in self.readers:
            r.join(5)
        return self

    def run(self, seconds):
        return self.start().wait(seconds)

    def end(self):
        """Ends this run and whatever it left, by process id."""
        self.process.terminate()
        until = time.monotonic() + 5
        while self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        for pid, _ in processes(self.mark):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass

    def leftovers(self, seconds=2.0):
        """What is still there that time after the end: processes, files.  Empty list: nothing."""
        until = time.monotonic() + seconds
        while processes(self.mark) and time.monotonic() < until:
            time.sleep(0.02)
        left = [f"process {pid} {name}" for pid, name in processes(self.mark)]
        left += [f"file {os.path.join(d, f)}" for d, _, files in os.walk(self.tmp) for f in files]
        return left

    def stats(self):
        """The JSON of --stats-json; None when there is none."""
        try:
            with open(self.stats_path, encoding="utf-8") as f:
                return json.load(f)
        except (OSError, ValueError):
            return None

    def tail(self, lines=12):
        out = [f"$ {' '.join(self.command)}", f"exit status {self.status}" + (", timed out" if self.timed_out else "")]
        out += [t for _, t in self.lines[-lines:]]
        out += self.errors.strip().splitlines()[-lines:]
        return "\n".join("        " + t for t in out)


def number(results, key):
    """A RESULT as a number, None when the guest did not say it."""
    try:
        return float(results[key]) if "." in results[key] else int(results[key])
    except (KeyError, ValueError):
        return None
