# SPDX-License-Identifier: Apache-2.0
"""vCPUs that move between nodes while their guest runs: orders one by one, refusals, and torture by random moves.

Use     moves.py [--long] [PATTERN...], like tests/system/cases.py; --long: many more moves and kills, a JSON line of the sums at
        the end.  Logs in build/system/move-CASE.
What    Payload guests that look at every register, timer tick and interrupt (tests/payloads/{regs,ticks,ipis}.c), and the Linux
        guest's torture job, with all vCPUs on the move all the time: none may notice.
Limits  Engine bt: this machine's KVM only runs small payloads (tests/kvm).
"""
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TESTS, "system"))
from cases import KILL_LIMIT_S, expect, local, main, payload_file
from unum import GUEST, TOP, UNUM, Run, number, processes

LONG = "--long" in sys.argv[1:]
CASES = []
SUMS = {"payload_moves": 0, "payload_runs": 0, "linux_moves": 0, "linux_runs": 0, "kills": 0, "failures": 0}
VM = "local"
SLOW_S = 300  # until a guest has begun, on a machine that does other things as well
OK, REFUSED, USAGE = 0, 1, 2


def case(name, limit_s):
    def register(fn):
        def counted(limit):
            try:
                return fn(limit)
            except Exception:
                SUMS["failures"] += 1
                raise
        CASES.append((name, limit_s, counted))
        return fn
    return register


# --- one VM, and orders to it -----------------------------------------------------------------------------------------
def vm(name, nodes, vcpus, memory_mib, kernel, initrd=None, cmdline=None):
    run = Run(f"move-{name}", local(nodes, vcpus, f"{memory_mib}MiB", kernel, initrd, cmdline, ["--engine", "bt"]))
    run.env = dict(os.environ, XDG_RUNTIME_DIR=run.tmp, TMPDIR=run.tmp)
    os.environ["XDG_RUNTIME_DIR"] = run.tmp  # where the VM's door is, for it and for orders
    return run


def payload_vm(name, payload, nodes, words="", vcpus=4):
    return vm(name, nodes, vcpus, 32 * nodes, payload_file(payload), cmdline=words)


def linux_vm(name, nodes, vcpus, job):
    return vm(name, nodes, vcpus, 512 * nodes, os.path.join(GUEST, "vmlinuz"), os.path.join(GUEST, "initrd"),
              f"console=ttyS0 quiet unum.job={job}")


def migrate(run, *args, limit_s=120):
    """(exit status, stdout, stderr) of one `unum migrate`."""
    r = subprocess.run([UNUM, "migrate", *args], capture_output=True, text=True, timeout=limit_s, check=False, cwd=TOP,
                       env=run.env, stdin=subprocess.DEVNULL)
    return r.returncode, r.stdout.strip(), r.stderr.strip()


def churn(run, rate, count=0, seed=1):
    """Random moves; the process, whose last line says what came of them."""
    return subprocess.Popen([UNUM, "migrate", VM, "--random", str(rate), *(["--count", str(count)] if count else []), "--seed",
                             str(seed)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=TOP, env=run.env,
                            stdin=subprocess.DEVNULL)


def churned(process, run, limit_s):
    """Its sums.  Moves that were under way when the VM ended count as failed there: no more than there are vCPUs."""
    try:
        said = process.communicate(timeout=limit_s)[0].strip()
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        expect(False, "random moves do not end", run)
    try:
        return json.loads(said.splitlines()[-1])
    except (ValueError, IndexError):
        expect(False, f"random moves ended with '{said}'", run)


def end(run):
    if run.status is None:
        run.end()
        run.wait(10)


def counts_hold(run, moves):
    """What the slices counted: as many vCPUs came as went, and no fewer than were told."""
    nodes = (run.stats() or {}).get("nodes", [])
    came, went = (sum(n.get(k, 0) for n in nodes) for k in ("moved_in", "moved_out"))
    expect(came == went and came >= moves, f"{moves} moves told, {came} vCPUs came and {went} went", run)


# --- payloads -----------------------------------------------------------------------------------------------------------
def torture(name, payload, nodes, words, seconds, rate, limit_s, seed=1):
    """A payload to its end under random moves; how many it was."""
    vcpus = 4 if nodes < 3 else 6
    run = payload_vm(name, payload, nodes, f"seconds={seconds} {words}", vcpus).start()
    try:
        expect(run.wait_for(f"{payload}: running", 60), "the payload does not run", run)
        moving = churn(run, rate, seed=seed)
        run.wait(limit_s)
        told = churned(moving, run, 30)
        expect(not run.timed_out, f"not done after {limit_s} s", run)
        verdicts = [t for _, t in run.lines if t.startswith("PAYLOAD ")]
        expect(verdicts == [f"PAYLOAD {payload}: PASS"], f"it said {verdicts or 'nothing'} after {told}", run)
        expect(run.status == 0, "it passed, but unum did not end with 0", run)
        expect(told["failed"] <= vcpus, f"moves failed: {told}", run)
        counts_hold(run, told["moves"])
        left = run.leftovers()
        expect(not left, f"left behind: {left}", run)
        return told
    finally:
        end(run)


def payload_case(payload, nodes, words, seconds, rate, limit_s):
    def fn(_limit_s):
        told, moves, rounds = {}, 0, 0
        while moves < (10000 if LONG else 50) and rounds < 100:
            told = torture(f"{payload}-{nodes}-{len(words)}", payload, nodes, words, seconds, rate, limit_s, seed=rounds + 1)
            moves += told["moves"]
            rounds += 1
            SUMS["payload_moves"] += told["moves"]
            SUMS["payload_runs"] += 1
        expect(moves >= (10000 if LONG else 50), f"{moves} moves only, in {rounds} runs")
        return f"{moves} moves, pause p50 {told['pause_p50_us']} us, p99 {told['pause_p99_us']} us"
    return fn


for nodes_ in (2, 3):
    for payload_, words_ in (("regs", ""), ("ticks", ""), ("ipis", ""), ("ipis", "x2apic=0")):
        if words_ and nodes_ == 3:
            continue
        seconds_, rate_ = (20, 800) if LONG else (3, 400)
        case(f"{payload_}{'-xapic' if words_ else ''}-{nodes_}", 1200)(
            payload_case(payload_, nodes_, words_ + " patience=200", seconds_, rate_, 60 + 10 * seconds_))


@case("lock-2", 120)
def contended(limit_s):
    """Locked instructions on one page, whose processors come and go."""
    run = payload_vm("lock", "lock", 2, "rounds=100000 patience=200").start()
    try:
        moving = None
        expect(run.process.poll() is None, "the payload does not run", run)
        until = time.monotonic() + 30
        while time.monotonic() < until and migrate(run, VM, "--vcpu", "3", "--to", "n0")[0] == USAGE:
            time.sleep(0.05)
        moving = churn(run, 400)
        run.wait(limit_s)
        told = churned(moving, run, 30)
        expect(run.status == 0 and "PAYLOAD lock: PASS" in run.text(), f"it failed after {told}", run)
        return f"{told['moves']} moves"
    finally:
        end(run)


# --- orders and refusals ----------------------------------------------------------------------------------------------------
def moved(run, vcpu, to, away):
    """One move that must happen; its pause."""
    status, out, err = migrate(run, VM, "--vcpu", str(vcpu), "--to", to)
    m = re.fullmatch(rf"vcpu {vcpu}: moved from {away} to {to}, pause (\d+) us", out)
    expect(status == OK and m and not err, f"vcpu {vcpu} to {to}: status {status}, '{out}' '{err}'", run)
    return int(m[1])


def refused(run, status, text, *args):
    got, out, err = migrate(run, *args)
    expect(got == status and re.search(text, err) and not out, f"{' '.join(args)}: status {got}, '{out}' '{err}', not '{text}'", run)


@case("refusals", 180)
def refusals(limit_s):
    """Orders that cannot be: a reason and a status each, and the guest goes on."""
    run = payload_vm("refusals", "spin", 2, "seconds=10").start()
    try:
        expect(run.wait_for("spin: running", 60), "the payload does not run", run)
        refused(run, USAGE, "no VM 'nobody'", "nobody", "--vcpu", "0", "--to", "n1")
        refused(run, REFUSED, "no vCPU 4", VM, "--vcpu", "4", "--to", "n1")
        refused(run, REFUSED, "no vCPU 200", VM, "--vcpu", "200", "--to", "n1")
        refused(run, REFUSED, "no node 'n2'", VM, "--vcpu", "0", "--to", "n2")
        refused(run, REFUSED, "there already", VM, "--vcpu", "0", "--to", "n0")
        refused(run, USAGE, "usage", VM, "--vcpu", "0")
        refused(run, USAGE, "usage", VM, "--to", "n1")
        refused(run, USAGE, "not a value", VM, "--vcpu", "-1", "--to", "n1")
        refused(run, USAGE, "not a value", VM, "--random", "much")
        moved(run, 0, "n1", "n0")
        refused(run, REFUSED, "there already", VM, "--vcpu", "0", "--to", "n1")
        refused(run, REFUSED, "no node 'n1 '", VM, "--vcpu", "0", "--to", "n1 ")
        run.wait(limit_s)
        expect(run.status == 0 and "PAYLOAD spin: PASS" in run.text(), "the guest did not go on", run)
        counts_hold(run, 1)
    finally:
        end(run)


@case("two-at-once", 180)
def two_at_once(limit_s):
    """Orders for one vCPU at the same time: each moves it, or is refused with the reason; it runs on, and can be moved."""
    run = payload_vm("two-at-once", "spin", 3, "seconds=12", 6).start()
    try:
        expect(run.wait_for("spin: running", 60), "the payload does not run", run)
        done = reasons = 0
        for turn in range(6):
            orders = [subprocess.Popen([UNUM, "migrate", VM, "--vcpu", "1", "--to", f"n{(turn + k) % 3}"], text=True, cwd=TOP,
                                       env=run.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for k in range(4)]
            for o in orders:
                out, err = o.communicate(timeout=60)
                done += o.returncode == OK
                reasons += bool(re.search("under way|there already|does not have it", err))
                expect(o.returncode == OK or (o.returncode == REFUSED and err), f"status {o.returncode}, '{out}' '{err}'", run)
        expect(done and done + reasons == 24, f"{done} moves and {reasons} refusals of 24 orders", run)
        run.wait(limit_s)
        expect(run.status == 0 and "PAYLOAD spin: PASS" in run.text(), "the guest did not go on", run)
        counts_hold(run, done)
        return f"{done} moved, {reasons} refused"
    finally:
        end(run)


# --- Linux ---------------------------------------------------------------------------------------------------------------------
# What must be 0 when the torture job is over.
TORTURE_ZERO = ("torture_pigz_bad", "torture_stress_bad", "torture_hackbench_bad", "torture_clocks_bad", "clocks_early",
                "clocks_backwards", "clocks_expiries_wrong", "tsc_backwards", "kernel_complaints")


def linux_checked(run):
    r = run.results
    wrong = [f"{k} is {r.get(k)}" for k in TORTURE_ZERO if number(r, k) != 0]
    expect(not wrong, "the guest noticed: " + ", ".join(wrong), run)
    expect(r.get("clocksource") == "tsc" and (number(r, "torture_rounds") or 0) >= 1, "the guest did not do its work", run)
    expect(run.status == 0 and (run.stats() or {}).get("reason") == "poweroff", "the guest did not switch itself off", run)


def linux_torture(nodes, vcpus, seconds, rate):
    def fn(limit_s):
        run = linux_vm(f"linux-{nodes}", nodes, vcpus, f"wait,torture unum.torture_s={seconds}").start(subprocess.PIPE)
        try:
            expect(run.wait_for("RESULT waiting", SLOW_S), "Linux does not come up", run)
            pauses, where = [], [k * nodes // vcpus for k in range(vcpus)]
            for k in range(vcpus):  # all but one of them are in hlt
                for hop in range(1, nodes + 1):
                    to = (where[k] + hop) % nodes
                    pauses.append(moved(run, k, f"n{to}", f"n{(to - 1) % nodes}"))
            run.process.stdin.write(b"\n")
            run.process.stdin.flush()
            expect(run.wait_for("RESULT torture_began", 60), "the guest does not go on after one move of each vCPU", run)
            moving = churn(run, rate)
            run.wait(limit_s)
            told = churned(moving, run, 30)
            expect(not run.timed_out, f"not done after {limit_s} s and {told}", run)
            linux_checked(run)
            expect(told["failed"] <= vcpus, f"moves failed: {told}", run)
            counts_hold(run, told["moves"] + len(pauses))
            SUMS["linux_moves"] += told["moves"]
            SUMS["linux_runs"] += 1
            least = 2000 if LONG else 50
            expect(told["moves"] >= least, f"{told['moves']} moves only", run)
            expect(not run.leftovers(), "something is left behind", run)
            return (f"{told['moves']} moves in {number(run.results, 'torture_rounds')} rounds, pause p50 {told['pause_p50_us']} us, "
                    f"p99 {told['pause_p99_us']} us; of vCPUs in hlt {min(pauses)} to {max(pauses)} us")
        finally:
            end(run)
    return fn


case("linux-2", 900)(linux_torture(2, 4, 60 if LONG else 1, 100 if LONG else 30))
case("linux-3", 900)(linux_torture(3, 3, 60 if LONG else 1, 100 if LONG else 30))


# --- kills -------------------------------------------------------------------------------------------------------------------------
def kill_round(i, victim, rng):
    """SIGKILL of a slice while vCPUs move to it and from it: the VM ends, says why, and leaves nothing."""
    run = payload_vm(f"kill-{victim}", "spin", 2).start()
    try:
        expect(run.wait_for("spin: running", 60), "the payload does not run", run)
        moving = churn(run, 1000, seed=i)
        time.sleep(0.5 + rng.random())
        slices = sorted(pid for pid, name in processes(run.mark) if name == "unum-slice")
        expect(len(slices) == 2, f"{len(slices)} slices", run)
        killed = time.monotonic()
        os.kill(slices[victim], signal.SIGKILL)
        run.wait(20)
        gone = time.monotonic() - killed
        told = churned(moving, run, 30)
        expect(not run.timed_out and gone <= 5 * KILL_LIMIT_S, f"unum ended {gone:.2f} s after the kill", run)
        expect(run.status == 4, "not the status of a lost node", run)
        expect(re.search(r"node .?n\d\b", run.errors), "the message does not name the node", run)
        left = run.leftovers(KILL_LIMIT_S)
        expect(not left, f"left behind: {left}", run)
        return gone, told["moves"]
    finally:
        end(run)


def kills(victim, rounds):
    def fn(_limit_s):
        rng = random.Random(victim)
        times, moves = zip(*(kill_round(i, victim, rng) for i in range(rounds)))
        SUMS["kills"] += rounds
        expect(sum(moves) > 0, "nothing moved")
        return f"{rounds} of {rounds}, {sum(moves)} moves before, slowest end {max(times):.2f} s"
    return fn


for victim_ in (0, 1):
    case(f"kill-n{victim_}", 400)(kills(victim_, 20 if LONG else 3))


def run_all():
    status = main(CASES)
    if LONG:
        print(json.dumps({"test": "migrate-long", **SUMS}), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(run_all())
