"""Nodes of embercask, each on a host of its own."""

import glob
import http.client
import json
import os
import signal
import subprocess

from network import Host
from servers import SCRATCH, wait_for

TOKEN = "a-token-for-the-tests"
KV = "/client/v4/accounts/a/storage/kv/namespaces"


class Answer:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def position(self):
        return int(self.headers["x-embercask-position"])


class Client:
    """One connection to a node. Not for several threads."""

    def __init__(self, node, timeout=15):
        self.node = node
        self.connection = http.client.HTTPConnection(node.host.address, 8787, timeout=timeout)

    def ask(self, method, path, body=None, **headers):
        """The answer, or `None` if there is none: then nobody knows whether a write was done."""
        named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        named["Authorization"] = f"Bearer {TOKEN}"
        try:
            self.connection.request(method, path, body, named)
            response = self.connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            return None
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, content)


class Node:
    def __init__(self, number, servers):
        """Without log servers it is a server without replication."""
        self.name = f"node{number}"
        self.host = Host(self.name, 20 + number)
        self.directory = os.path.join(SCRATCH, self.name)
        os.makedirs(self.directory)
        self.settings = os.path.join(self.directory, "embercask.toml")
        self.store = os.path.join(self.directory, "store")
        self.environment = dict(os.environ, EMBERCASK_TOKEN=TOKEN)
        self.process = None
        token = os.path.join(self.directory, "token")
        with open(os.open(token, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            file.write(TOKEN)
        with open(self.settings, "w") as file:
            file.write(
                f'store = "{self.store}"\n'
                f'listen = "{self.host.address}:8787"\n'
                f'binding = "{self.host.address}:8788"\n'
                f'token_file = "{token}"\n'
                "minimum_ttl = 1\n"
                'durability = "buffered"\n'
            )
            if servers:
                file.write(f'[replica]\nlog = "kv"\nservers = {json.dumps(servers)}\n')

    @property
    def url(self):
        return f"http://{self.host.address}:8787"

    def embercask(self, *words):
        """Runs a command on the machine of this node, with its store."""
        command = self.host.words(os.environ["EMBERCASK"], "--store", self.store, *words)
        environment = {name: self.environment[name] for name in self.environment if name != "LD_PRELOAD"}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(command, env=environment, text=True, **pipes)
        return done.returncode, done.stdout

    def start(self):
        assert self.process is None
        with open(os.path.join(self.directory, "log"), "ab") as log:
            words = self.host.words(os.environ["EMBERCASK"], "serve", "--config", self.settings)
            pipes = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self.process = subprocess.Popen(words, env=self.environment, **pipes)

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        try:
            self.process.wait(60)
        finally:
            self.process = None

    def stop(self):
        self.kill(signal.SIGTERM)

    def is_ready(self):
        answer = Client(self, timeout=2).ask("GET", "/readyz")
        return answer is not None and answer.status == 200

    def wait_until_ready(self, seconds=60):
        wait_for(f"{self.name} is ready", seconds, self.is_ready)

    def status(self):
        answer = Client(self, timeout=5).ask("GET", "/replica/status")
        return json.loads(answer.body)["result"] if answer and answer.status == 200 else None

    def clock_off_by(self, hours):
        """Its clock is wrong from its next start on. False if that needs a library which is not installed."""
        libraries = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
        if not libraries:
            return False
        self.environment.update(LD_PRELOAD=libraries[0], FAKETIME=f"{hours:+d}h", DONT_FAKE_MONOTONIC="1")
        return True

    def said(self):
        with open(os.path.join(self.directory, "log"), errors="replace") as log:
            return log.read()


def started(cluster, count=3):
    """Nodes on the log of a cluster that runs."""
    nodes = [Node(number, cluster.urls.split(",")) for number in range(1, count + 1)]
    first, others = nodes[0], nodes[1:]

    def initialized():
        status, said = first.embercask("replica", "init", "--config", first.settings)
        assert status == 0 or "not available" in said, said
        return status == 0

    wait_for("the log begins", 60, initialized)
    first.start()
    first.wait_until_ready()
    for node in others:
        status, said = node.embercask("replica", "join", "--from", first.url)
        assert status == 0, said
        node.start()
    for node in others:
        node.wait_until_ready()
    return nodes


def caught_up(nodes):
    """Waits until each has applied what any has now."""

    def positions():
        told = [node.status() for node in nodes]
        return [status["position"] for status in told] if all(told) else None

    goal = max(wait_for("all nodes tell their positions", 60, positions))
    wait_for(f"all nodes are at {goal}", 60, lambda: min(positions() or [0]) >= goal)


def alike(nodes):
    """Whether the command finds that all nodes hold the same."""
    status, said = nodes[0].embercask("replica", "audit", *(node.url for node in nodes))
    print("   ", said.strip().replace("\n", "\n    "))
    return status == 0
