"""A network of namespaces around a bridge, where links can be cut, slowed down and delayed.

Runs in a network namespace of its own, which has the bridge; see `run`."""

import os
import subprocess
import sys

HUB = "10.77.0.254"


def command(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def begin():
    """Makes the bridge. The names of namespaces are kept where no other process sees them."""
    command("mount", "-t", "tmpfs", "none", "/run")
    os.mkdir("/run/netns")
    command("ip", "link", "set", "lo", "up")
    command("ip", "link", "add", "hub", "type", "bridge")
    command("ip", "addr", "add", HUB + "/24", "dev", "hub")
    command("ip", "link", "set", "hub", "up")


class Host:
    """A namespace with one link to the bridge."""

    def __init__(self, name, number):
        self.name = name
        self.address = f"10.77.0.{number}"
        self.link = "to-" + name
        command("ip", "netns", "add", name)
        command("ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", name)
        command("ip", "link", "set", self.link, "master", "hub", "up")
        self.inside("ip", "addr", "add", self.address + "/24", "dev", "eth0")
        self.inside("ip", "link", "set", "eth0", "up")
        self.inside("ip", "link", "set", "lo", "up")

    def words(self, *words):
        return ("ip", "netns", "exec", self.name) + words

    def inside(self, *words):
        command(*self.words(*words))

    def cut(self):
        command("ip", "link", "set", self.link, "down")

    def join(self):
        command("ip", "link", "set", self.link, "up")

    def slow(self, rate="4mbit"):
        """Limits the rate in both directions."""
        shaping = ("root", "tbf", "rate", rate, "burst", "16kb", "latency", "400ms")
        command("tc", "qdisc", "add", "dev", self.link, *shaping)
        self.inside("tc", "qdisc", "add", "dev", "eth0", *shaping)

    def fast(self):
        command("tc", "qdisc", "del", "dev", self.link, "root")
        self.inside("tc", "qdisc", "del", "dev", "eth0", "root")


class Proxy:
    """Passes connections on, all bytes later by `delay` seconds in each direction."""

    def __init__(self, port, host, to_port, delay):
        here = os.path.dirname(os.path.abspath(__file__))
        words = [sys.executable, os.path.join(here, "proxy.py"), HUB, port, host, to_port, delay]
        self.process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"ready\n", "the proxy does not start"
        self.address = f"{HUB}:{port}"

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
