"""Runs scenarios, each in namespaces of its own. `run` starts it."""

import os
import random as randomness
import subprocess
import sys
import time

import figures
import log_scenarios
import network
import node_scenarios
from servers import SCRATCH

SCENARIOS = [
    log_scenarios.faults,
    log_scenarios.damage,
    log_scenarios.full_disk,
    log_scenarios.far_away,
    log_scenarios.printed_configuration,
    log_scenarios.refusals,
    node_scenarios.nodes,
    node_scenarios.damaged_log,
    node_scenarios.clocks,
]


def run_alone(scenario, seed):
    """In namespaces of its own, so that nothing of one is left for the next."""
    words = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    words += [sys.executable, os.path.abspath(__file__), scenario.__name__]
    os.environ["CLUSTER_SCRATCH"] = os.path.join(SCRATCH, scenario.__name__)
    os.environ["EMBERCASK_SEED"] = str(seed)
    return subprocess.run(words + ["--alone"]).returncode


def tell_all():
    """What everything said that this scenario has started."""
    for probe in log_scenarios.Probe.started:
        print(f"-- a probe said:\n{probe.said()}")
    for name in sorted(os.listdir(SCRATCH)):
        path = os.path.join(SCRATCH, name, "log")
        if os.path.exists(path):
            with open(path, errors="replace") as log:
                lines = [line for line in log if "Healthcheck failed" not in line]
            print(f"-- the end of what {name} said:\n" + "".join(lines[-30:]))


def main():
    seed = int(os.environ.get("EMBERCASK_SEED") or randomness.SystemRandom().randrange(1 << 32))
    names = [word for word in sys.argv[1:] if word != "--alone"]
    known = {scenario.__name__: scenario for scenario in SCENARIOS + figures.FIGURES}
    for name in names:
        if name not in known:
            sys.exit(f"there is no scenario {name}: {' '.join(known)}")
    if "--alone" in sys.argv:
        os.makedirs(SCRATCH)
        network.begin()
        try:
            known[names[0]](randomness.Random(seed))
        except BaseException:
            tell_all()
            raise
        return
    failed = []
    names = names or [scenario.__name__ for scenario in SCENARIOS]
    for name in names:
        print(f"== {name} (EMBERCASK_SEED={seed})", flush=True)
        began = time.monotonic()
        if run_alone(known[name], seed) != 0:
            failed.append(name)
        print(f"   {time.monotonic() - began:.0f} s", flush=True)
    if failed:
        sys.exit("failed: " + " ".join(failed))
    print(f"good: {len(names)} scenarios")


main()
