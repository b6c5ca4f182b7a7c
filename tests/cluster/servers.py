"""Log servers, each on a host of its own, and what can happen to them."""

import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

from network import Host, command

SCRATCH = os.environ["CLUSTER_SCRATCH"]


def wait_for(what, seconds, condition):
    """Returns the first result of the condition that is true."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


class Server:
    def __init__(self, number, disk=None):
        """With `disk` its data are on a file system of this size, as "64m"."""
        self.name = f"log{number}"
        self.host = Host(self.name, 10 + number)
        self.directory = os.path.join(SCRATCH, self.name)
        self.data = os.path.join(self.directory, "data")
        os.makedirs(self.data)
        if disk:
            command("mount", "-t", "tmpfs", "-o", f"size={disk}", "none", self.data)
        self.environment = dict(os.environ)
        self.process = None

    @property
    def url(self):
        return f"nats://{self.host.address}:4222"

    def configure(self, servers, sync="always"):
        routes = ", ".join(f'"nats://{server.host.address}:6222"' for server in servers)
        self.write_configuration(
            f'server_name: "{self.name}"\n'
            f'listen: "{self.host.address}:4222"\n'
            f'http: "{self.host.address}:8222"\n'
            f'jetstream {{ store_dir: "{self.data}", sync_interval: {sync} }}\n'
            f'cluster {{ name: "test", listen: "{self.host.address}:6222", routes: [{routes}] }}\n'
        )

    def write_configuration(self, text):
        with open(os.path.join(self.directory, "server.conf"), "w") as file:
            file.write(text)

    def start(self):
        assert self.process is None
        with open(os.path.join(self.directory, "log"), "ab") as log:
            words = self.host.words(os.environ["LOG_SERVER"], "-c", os.path.join(self.directory, "server.conf"))
            # `ip netns exec` becomes the server, so signals go to it.
            self.process = subprocess.Popen(words, stdout=log, stderr=log, env=self.environment)

    def send(self, number):
        self.process.send_signal(number)

    def pause(self):
        self.send(signal.SIGSTOP)

    def go_on(self):
        self.send(signal.SIGCONT)

    def kill(self, number=signal.SIGKILL):
        self.send(number)
        try:
            self.process.wait(30)
        finally:
            self.process = None

    def stop(self):
        self.kill(signal.SIGTERM)

    def wipe(self):
        """Removes all its data: it gets them again from the others."""
        assert self.process is None
        for entry in os.listdir(self.data):
            shutil.rmtree(os.path.join(self.data, entry), ignore_errors=True)

    def ask(self, path):
        """What its monitoring tells; `None` if it does not answer."""
        try:
            with urllib.request.urlopen(f"http://{self.host.address}:8222/{path}", timeout=1) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            return None

    def publish(self, subject, body):
        with socket.create_connection((self.host.address, 4222), timeout=5) as connection:
            connection.sendall(f"CONNECT {{}}\r\nPUB {subject} none {len(body)}\r\n{body}\r\nPING\r\n".encode())
            received = b""
            while b"PONG" not in received:
                received += connection.recv(4096) or b"PONG"

    def is_healthy(self):
        return (self.ask("healthz") or {}).get("status") == "ok"

    def streams(self):
        told = self.ask("jsz?streams=true&raft=false") or {}
        accounts = told.get("account_details") or [{}]
        return {stream["name"]: stream for stream in accounts[0].get("stream_detail") or []}

    def leader_of(self, stream):
        return (self.streams().get(stream) or {}).get("cluster", {}).get("leader")

    def blocks(self, stream):
        def number(path):
            return int(os.path.basename(path).removesuffix(".blk"))

        return sorted(glob.glob(f"{self.data}/jetstream/*/streams/{stream}/msgs/*.blk"), key=number)

    def flip_bits(self, stream, count, random):
        """Flips bits in the blocks of a stream, but not in the last: a starting server reads that one, and mends it."""
        assert self.process is None
        files = self.blocks(stream)[:-1]
        sizes = {file: os.path.getsize(file) for file in files}
        assert files, f"{self.name} has too few blocks of {stream}"
        for _ in range(count):
            file = random.choices(files, [sizes[file] for file in files])[0]
            place = random.randrange(sizes[file])
            with open(file, "r+b") as block:
                block.seek(place)
                byte = block.read(1)[0]
                block.seek(place)
                block.write(bytes([byte ^ 1 << random.randrange(8)]))

    def fill_disk(self):
        with open(os.path.join(self.data, "filler"), "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                pass

    def free_disk(self):
        os.remove(os.path.join(self.data, "filler"))

    def said(self):
        with open(os.path.join(self.directory, "log"), errors="replace") as log:
            return log.read()


class Cluster:
    """Three log servers."""

    def __init__(self, disks=None):
        self.servers = [Server(number, disks) for number in (1, 2, 3)]
        for server in self.servers:
            server.configure(self.servers)

    @property
    def urls(self):
        return ",".join(server.url for server in self.servers)

    def start(self):
        for server in self.servers:
            server.start()
        self.wait_until_healthy()

    def wait_until_healthy(self, seconds=60):
        wait_for("all servers are healthy", seconds, lambda: all(server.is_healthy() for server in self.servers))

    def leader(self, stream, seconds=30):
        """The server that leads, once two agree."""

        def agreed():
            names = [server.leader_of(stream) for server in self.servers if server.process]
            known = [name for name in names if name]
            return max(known, key=known.count) if any(known.count(name) > 1 for name in known) else None

        name = wait_for(f"{stream} has a leader", seconds, agreed)
        return next(server for server in self.servers if server.name == name)

    def make_leader(self, stream, server):
        """Asks until this server leads."""

        def asked():
            leader = self.leader(stream)
            if leader is server:
                return True
            body = json.dumps({"placement": {"preferred": server.name}})
            leader.publish(f"$JS.API.STREAM.LEADER.STEPDOWN.{stream}", body)
            time.sleep(0.5)
            return False

        wait_for(f"{server.name} leads", 60, asked)

    def follower(self, stream, random):
        leader = self.leader(stream)
        return random.choice([server for server in self.servers if server is not leader])

    def wait_until_alike(self, stream, seconds=60):
        """Waits until all copies are whole and hold the same entries."""

        def states():
            told = [server.streams().get(stream, {}).get("state") for server in self.servers]
            bounds = [(state["messages"], state["first_seq"], state["last_seq"]) for state in told if state]
            whole = all(messages == last - first + 1 for messages, first, last in bounds)
            return len(bounds) == 3 and len(set(bounds)) == 1 and whole

        wait_for("all copies of the log are whole and alike", seconds, states)
