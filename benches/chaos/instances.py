"""The instances, as processes of their own, and what names them."""

import base64
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(__file__)
MODES = ["well", "slow", "cut", "errors", "refuse", "drip"]


class Instance:
    """One of a few, all on the same port."""

    def __init__(self, number, port, directory):
        self.address = f"127.0.0.{11 + number}"
        self.port = port
        self.path = os.path.join(directory, f"state-{number}")
        with open(self.path, "wb") as state:
            state.write(bytes(24))
        self.process = None

    def start(self):
        origin = os.path.join(HERE, "origin.py")
        self.process = subprocess.Popen([sys.executable, origin, self.address, str(self.port), self.path])

    def counts(self):
        with open(self.path, "rb") as state:
            return struct.unpack("<QQ", state.read(16))

    def does(self, mode):
        with open(self.path, "r+b") as state:
            state.seek(16)
            state.write(bytes([MODES.index(mode)]))

    def fail(self, fault):
        if fault == "kill":
            self.kill()
        elif fault == "stop":
            self.process.send_signal(signal.SIGSTOP)
        else:
            self.does(fault)

    def recover(self, fault):
        if fault == "kill":
            self.start()
        elif fault == "stop":
            self.process.send_signal(signal.SIGCONT)
        else:
            self.does("well")

    def end(self):
        """As a server ends that is replaced."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self.process = None

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


class Registry:
    """What names the instances, in a process of its own."""

    def __init__(self, kind, port, directory):
        self.kind, self.port = kind, port
        self.directory = os.path.join(directory, kind)
        os.makedirs(self.directory, exist_ok=True)
        self.names = os.path.join(self.directory, "names")
        self.process = None

    def start(self):
        url = f"http://127.0.0.1:{self.port}"
        if self.kind == "dns":
            command = [sys.executable, os.path.join(HERE, "names.py"), "127.0.0.1", str(self.port), self.names]
        elif self.kind == "etcd":
            peer = f"http://127.0.0.1:{self.port + 1}"
            command = ["etcd", "--data-dir", self.directory, "--listen-client-urls", url]
            command += ["--advertise-client-urls", url, "--listen-peer-urls", peer, "--log-level", "error"]
            command += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        else:
            consul = os.environ.get("GATEHOUSE_CONSUL", "consul")
            ports = {"http": self.port, "dns": -1, "grpc": -1, "server": self.port + 1}
            ports |= {"serf_lan": self.port + 2, "serf_wan": -1}
            command = [consul, "agent", "-server", "-bootstrap", "-bind", "127.0.0.1", "-data-dir", self.directory]
            command += ["-log-level", "error", "-hcl", "performance { raft_multiplier = 1 }"]
            command += ["-hcl", "ports { %s }" % " ".join(f"{name} = {port}" for name, port in ports.items())]
        null = subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdout=null, stderr=null)

    def wait(self):
        for _ in range(300):
            try:
                if self.kind == "dns":
                    return
                if self.kind == "etcd":
                    self.ask("POST", "/v3/kv/range", {"key": encoded("/")})
                    return
                if self.ask("GET", "/v1/status/leader").strip(b'"\n'):
                    return
            except OSError:
                pass
            time.sleep(0.1)
        sys.exit(f"{self.kind} does not answer")

    def set(self, instances):
        """These and no others are named from now on."""
        if self.kind == "dns":
            with open(self.names + ".new", "w") as names:
                names.write("".join(instance.address + "\n" for instance in instances))
            os.replace(self.names + ".new", self.names)
            return
        wanted = {instance.address: instance for instance in instances}
        for number in range(4):
            address = f"127.0.0.{11 + number}"
            self.name(address, wanted.get(address))

    def name(self, address, instance):
        if self.kind == "etcd":
            key = encoded(f"/services/api/{address}")
            if instance:
                url = encoded(f"http://{address}:{instance.port}")
                self.ask("POST", "/v3/kv/put", {"key": key, "value": url})
            else:
                self.ask("POST", "/v3/kv/deleterange", {"key": key})
        elif instance:
            service = {"ID": address, "Name": "api", "Address": address, "Port": instance.port}
            self.ask("PUT", "/v1/agent/service/register", service)
        else:
            try:
                self.ask("PUT", f"/v1/agent/service/deregister/{address}")
            except urllib.error.HTTPError:
                # It was not there.
                pass

    def ask(self, method, path, body=None):
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read()

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def listens(address, port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0
