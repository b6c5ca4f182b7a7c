"""What can happen to the log, alone."""

import os
import shutil
import subprocess
import time

import network
from servers import SCRATCH, Cluster, wait_for

STREAM = "kv"


class Probe:
    """Writers and a reader of the log, which fail if an acknowledged entry is lost or doubled."""

    started = []

    def __init__(self, servers, pause_ms=5, entry_bytes=200):
        Probe.started.append(self)
        self.path = os.path.join(SCRATCH, f"probe-{time.monotonic_ns()}")
        with open(self.path, "wb") as output:
            self.process = subprocess.Popen(
                [os.environ["LOG_PROBE"], servers, STREAM, str(pause_ms), str(entry_bytes)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
            )

    def said(self):
        with open(self.path) as output:
            return output.read()

    def end(self):
        self.process.stdin.close()
        status = self.process.wait(120)
        said = self.said().splitlines()
        for line in said:
            print("   ", line)
        assert status == 0, "the probe has failed"
        assert said[-1].startswith("good: "), said[-1]


def prepare(servers, replicas=3):
    words = [os.environ["LOG_PROBE"], "--prepare", servers, STREAM, str(replicas)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=120)
    print("   ", done.stdout.strip())
    return done.returncode, done.stdout


def prepared(cluster):
    cluster.start()
    status, said = prepare(cluster.urls)
    assert status == 0 and said.count("Always") == 3, said
    return cluster


def kill_the_leader(cluster, random):
    leader = cluster.leader(STREAM)
    leader.kill()
    time.sleep(random.uniform(1, 6))
    leader.start()


def stop_the_leader(cluster, random):
    leader = cluster.leader(STREAM)
    leader.pause()
    time.sleep(random.uniform(5, 12))
    leader.go_on()


def kill_a_follower(cluster, random):
    follower = cluster.follower(STREAM, random)
    follower.kill()
    time.sleep(random.uniform(0.1, 3))
    follower.start()


def cut_off_the_leader(cluster, random):
    leader = cluster.leader(STREAM)
    leader.host.cut()
    time.sleep(random.uniform(5, 15))
    leader.host.join()


def slow_down_a_follower(cluster, random):
    follower = cluster.follower(STREAM, random)
    follower.host.slow()
    time.sleep(random.uniform(2, 6))
    follower.host.fast()


def kill_all(cluster, random):
    for server in cluster.servers:
        server.kill()
    time.sleep(random.uniform(0, 2))
    for server in cluster.servers:
        server.start()


def restart_one_by_one(cluster, random):
    for server in random.sample(cluster.servers, 3):
        server.stop()
        server.start()
        cluster.wait_until_healthy()


FAULTS = [
    kill_the_leader,
    stop_the_leader,
    kill_a_follower,
    cut_off_the_leader,
    slow_down_a_follower,
    kill_all,
    restart_one_by_one,
]


def faults(random):
    """Each fault in turn, EMBERCASK_ROUNDS times, under one probe."""
    cluster = prepared(Cluster())
    probe = Probe(cluster.urls)
    for _ in range(int(os.environ.get("EMBERCASK_ROUNDS", "1"))):
        for fault in random.sample(FAULTS, len(FAULTS)):
            print("  ", fault.__name__)
            fault(cluster, random)
            cluster.wait_until_healthy()
            acknowledged_again(cluster)
    probe.end()
    cluster.wait_until_alike(STREAM)


def acknowledged_again(cluster):
    """Waits until the log goes on, so that the next fault finds something to break."""

    def last():
        return cluster.leader(STREAM).streams().get(STREAM, {}).get("state", {}).get("last_seq", 0)

    before = last()
    wait_for("the log goes on", 60, lambda: last() > before + 20)


def damage(random):
    """Bits flip in a follower's blocks, and it becomes leader: a reader never skips what is missing."""
    cluster = prepared(Cluster())
    probe = Probe(cluster.urls, pause_ms=40, entry_bytes=16384)
    follower = cluster.follower(STREAM, random)
    wait_for("there is something to damage", 90, lambda: len(follower.blocks(STREAM)) > 3)
    follower.stop()
    follower.flip_bits(STREAM, 3, random)
    follower.start()
    cluster.wait_until_healthy()
    cluster.make_leader(STREAM, follower)
    later = notices_damage(cluster)
    print("   entries of the copies, as the servers tell:", [entries(server) for server in cluster.servers])
    # The copy heals from the others.
    follower.stop()
    follower.wipe()
    follower.start()
    cluster.wait_until_healthy()
    cluster.wait_until_alike(STREAM)
    for each in (probe, later):
        each.end()


def notices_damage(cluster):
    """A probe that was given a damaged copy. Each reader gets any one of three."""
    for _ in range(30):
        probe = Probe(cluster.urls, pause_ms=50)
        wait_for("the reader gets on", 60, lambda: "caught up" in probe.said() or "gap: " in probe.said())
        if "gap: " in probe.said():
            return probe
        probe.end()
    raise AssertionError("no reader has noticed the damage")


def entries(server):
    return server.streams().get(STREAM, {}).get("state", {}).get("messages")


def full_disk(random):
    """The leader's disk is full for a while."""
    cluster = prepared(Cluster(disks="64m"))
    probe = Probe(cluster.urls)
    leader = cluster.leader(STREAM)
    leader.fill_disk()
    time.sleep(random.uniform(5, 10))
    leader.free_disk()
    # A server that could not write stays without its log until it is started again.
    leader.stop()
    leader.start()
    cluster.wait_until_healthy()
    acknowledged_again(cluster)
    probe.end()


def far_away(random):
    """All servers are 50 ms away."""
    cluster = prepared(Cluster())
    ports = range(5001, 5004)
    proxies = [
        network.Proxy(port, server.host.address, 4222, 0.05) for port, server in zip(ports, cluster.servers)
    ]
    probe = Probe(",".join(f"nats://{proxy.address}" for proxy in proxies))
    time.sleep(5)
    kill_the_leader(cluster, random)
    cluster.wait_until_healthy()
    acknowledged_again(cluster)
    probe.end()
    for proxy in proxies:
        proxy.end()


def printed_configuration(random):
    """The configuration that is printed for an operator, with certificates and a password."""
    cluster = Cluster()
    names = ",".join(f"{server.name}={server.host.address}" for server in cluster.servers)
    authority = certificates(cluster)
    for server in cluster.servers:
        words = [os.environ["EMBERCASK"], "replica", "init", "--print-nats-config", server.name, "--log-server", names]
        text = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
        text = text.replace("/etc/nats", server.directory).replace("/var/lib/nats", server.data)
        server.write_configuration(text)
        server.environment["EMBERCASK_LOG_PASSWORD"] = "a-password"
    cluster.start()
    os.environ["LOG_PROBE_CA"] = authority
    urls = [f"tls://embercask:a-password@{server.host.address}:4222" for server in cluster.servers]
    status, said = prepare(",".join(urls))
    assert status == 0 and said.count("Always") == 3, said
    probe = Probe(",".join(urls))
    kill_the_leader(cluster, random)
    acknowledged_again(cluster)
    probe.end()


def certificates(cluster):
    """Makes one for each server, signed by an authority whose certificate is returned."""

    def openssl(*words):
        subprocess.run(("openssl",) + words, check=True, stderr=subprocess.DEVNULL)

    authority, key = os.path.join(SCRATCH, "ca.pem"), os.path.join(SCRATCH, "ca.key")
    elliptic = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl("req", "-x509", *elliptic, "-subj", "/CN=test authority", "-keyout", key, "-out", authority)
    for server in cluster.servers:
        directory = server.directory
        names = ("-addext", f"subjectAltName=IP:{server.host.address}")
        signed = ("-x509", "-CA", authority, "-CAkey", key, "-addext", "basicConstraints=critical,CA:FALSE")
        files = ("-keyout", f"{directory}/server.key", "-out", f"{directory}/server.pem")
        openssl("req", *elliptic, "-subj", f"/CN={server.name}", *names, *signed, *files)
        shutil.copy(authority, os.path.join(directory, "ca.pem"))
    return authority


def refusals(random):
    """Servers and streams with which acknowledged entries can be lost are refused."""
    cluster = Cluster()
    lazy = random.choice(cluster.servers)
    lazy.configure(cluster.servers, sync='"2m"')
    cluster.start()
    status, said = prepare(cluster.urls)
    assert status == 2 and f"{lazy.name} 2.15.1" in said and "sync_interval: always" in said, said
    lazy.stop()
    lazy.configure(cluster.servers)
    lazy.start()
    cluster.wait_until_healthy()
    status, said = prepare(cluster.urls, replicas=1)
    assert status == 0 and "replicas: 1" in said, said
    status, said = prepare(cluster.urls)
    assert status == 2 and "it has 1 replicas, not 3" in said, said
