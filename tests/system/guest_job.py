# SPDX-License-Identifier: Apache-2.0
"""What must hold of a Linux guest that ran the demo job: the list of checks, used by the demo and the system tests."""
from unum import number

INPUT_MIN = 8 << 20


# stress-ng(1), EXIT STATUS: 7 says that a stressor was ended in the middle of counting its own rounds, so that rates
# (which nobody reads here) are not exact; everything that it verified held.
STRESS_WELL = (0, 7)


def checks(run, vcpus, nodes, shares_kib):
    """[(what, holds)], from the guest's RESULT lines and the slices' statistics; nothing is assumed."""
    r = run.results
    stats = run.stats() or {}
    told = [n for n in stats.get("nodes", []) if n.get("reported")]

    def total(key):
        return sum(n.get(key, 0) for n in told)

    out = [
        ("unum ends with status 0", run.status == 0),
        ("the guest switched itself off", stats.get("reason") == "poweroff"),
        (f"the guest sees {vcpus} CPUs", number(r, "cpus") == vcpus),
        (f"the guest sees {nodes} NUMA nodes", number(r, "numa_nodes") == nodes),
        ("MemTotal is at least 90 % of the shares", (number(r, "memtotal_kib") or 0) >= 0.9 * shares_kib),
        ("the input has at least 8 MiB", (number(r, "input_bytes") or 0) >= INPUT_MIN),
        ("pigz ends well", number(r, "pigz_status") == 0),
        ("pigz used every vCPU", number(r, "pigz_cpus_busy") == vcpus),
        ("SHA-256 of the decompressed result is the input's", sha256(run) == "match"),
        ("stress-ng --verify ends well", number(r, "stress_status") in STRESS_WELL and number(r, "stress_failures") == 0),
        ("the clocksource is tsc", r.get("clocksource") == "tsc"),
        ("the TSC never runs backwards between CPUs", number(r, "tsc_backwards") == 0 and number(r, "tsc_status") == 0),
        ("the kernel complains of nothing", number(r, "kernel_complaints") == 0),
        (f"{nodes} slices told their counts", len(told) == nodes),
        ("every node ran vCPUs", len(told) == nodes and all(n.get("exits", 0) > 0 for n in told)),  # by the end they may all have moved to one
    ]
    if nodes > 1:
        out += [
            ("pages moved between nodes", total("remote_faults") > 0 and total("pages_sent") > 0),
            ("IPIs crossed", total("ipis_sent_remote") > 0),
        ]
    return out


def sha256(run):
    a, b = run.results.get("sha256_input"), run.results.get("sha256_output")
    if not a or not b or len(a) != 64:
        return None
    return "match" if a == b else "differ"


def summary(run, shares_kib):
    """The demo's last line: what the guest and the slices said; null for what they did not say."""
    stats = run.stats() or {}
    told = [n for n in stats.get("nodes", []) if n.get("reported")]
    engines = sorted({n.get("engine") for n in told if n.get("engine")})
    return {
        "vcpus": number(run.results, "cpus"),
        "numa_nodes": number(run.results, "numa_nodes"),
        "memtotal_kib": number(run.results, "memtotal_kib"),
        "shares_kib": shares_kib,
        "sha256": sha256(run),
        "remote_faults": sum(n["remote_faults"] for n in told) if told else None,
        "pages_sent": sum(n["pages_sent"] for n in told) if told else None,
        "ipis_crossed": sum(n["ipis_sent_remote"] for n in told) if told else None,
        "boot_s": round(run.results["at_init_uptime_s"], 2) if "at_init_uptime_s" in run.results else None,
        "nodes": len(told),
        "engine": engines[0] if len(engines) == 1 else engines or None,
        "total_s": round(run.seconds, 2),
    }
