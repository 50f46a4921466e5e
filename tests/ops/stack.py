"""Runs docker-compose.yml as it stands, without a container engine.

Each service gets what an engine would give it: a network of its own on one bridge, names
of the others, a root file system over which it may write, its volumes, its environment and
command, its health check; and it starts when those it depends on are as it asks. What
stands in for the images are the same programs from elsewhere: the binary in a bare Debian,
Apache Kafka's jars, SeaweedFS, Prometheus. Grafana is left out: there is none to be had.

To be started in name spaces of its own (tests/run does), so that nothing is left over:

    unshare --net --mount --pid --fork --kill-child --mount-proc python3 stack.py ...
"""

import copy
import json
import os
import pathlib
import shlex
import signal
import subprocess
import time
import urllib.parse
import urllib.request

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Left out, and not waited for.
ABSENT = {"grafana"}
# The start of the JVM takes long on a busy machine of two cores.
PATIENCE = float(os.environ.get("TRACER_TEST_READY_SECONDS", 300))


def sh(command, **more):
    return subprocess.run(["sh", "-euc", command], check=True, **more)


class Image:
    """What stands in for one: the root file system below, the default entry point, the user."""

    def __init__(self, lower, entrypoint, user=None, prepare=None):
        self.lower, self.entrypoint, self.user, self.prepare = lower, entrypoint, user, prepare


def images(parts):
    java = "java -Xms128m -Xmx512m -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn"

    def kafka(root, environment):
        """As the image does: its scripts, and the settings out of KAFKA_*."""
        scripts = root / "opt/kafka/bin"
        scripts.mkdir(parents=True)
        for name, main in (("kafka-topics", "org.apache.kafka.tools.TopicCommand"),
                           ("kafka-delete-records", "org.apache.kafka.tools.DeleteRecordsCommand"),
                           ("kafka-console-producer", "org.apache.kafka.tools.ConsoleProducer"),
                           ("kafka-console-consumer", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
                           ("kafka-broker-api-versions", "org.apache.kafka.tools.BrokerApiVersionsCommand")):
            script = scripts / f"{name}.sh"
            script.write_text(f'#!/bin/sh\nexec {java} -cp "{parts.kafka_tools}/*" {main} "$@"\n')
            script.chmod(0o755)
        settings = {key[6:].lower().replace("_", "."): value for key, value in environment.items() if key.startswith("KAFKA_")}
        settings["group.initial.rebalance.delay.ms"] = "0"
        (root / "opt/kafka/server.properties").write_text("".join(f"{k}={v}\n" for k, v in settings.items()))

    server = (f'{java} -cp "{parts.kafka}/*" kafka.tools.StorageTool format --ignore-formatted '
              f'--cluster-id 5L6g3nShT-eMCtK--X86sw --config /opt/kafka/server.properties && '
              f'exec {java} -cp "{parts.kafka}/*" kafka.Kafka /opt/kafka/server.properties')
    return {
        "tracer": Image(parts.root, ["tracer"], user="10001:10001"),
        "apache/kafka": Image("/", ["sh", "-c", server], prepare=kafka),
        "chrislusf/seaweedfs": Image("/", [parts.weed]),
        "prom/prometheus": Image("/", ["prometheus"]),
    }


class Stack:
    def __init__(self, compose, parts, work, settings=None, files=None):
        """`settings` are those that docker-compose.yml takes from its environment. `files`
        are mounted as these texts, and not as they are beside it, so that they can change."""
        self.work = pathlib.Path(work)
        text = subprocess.run([parts.compose, "-f", compose, "--profile", "*", "config", "--format", "json"],
                              check=True, capture_output=True, text=True, env={**os.environ, **(settings or {})}).stdout
        # What is printed is to be read again as a file: dollars are doubled.
        services = json.loads(text.replace("$$", "$"))["services"]
        self.services = {name: service for name, service in services.items() if name not in ABSENT}
        self.images, self.processes, self.healthy, self.address = images(parts), {}, set(), {}
        sh(f"""
            mount --make-rprivate /
            mount -t tmpfs none {self.work}
            mkdir -p /run/netns {self.work}/netns; mount --bind {self.work}/netns /run/netns
            ip link set lo up
            ip link add tracer type bridge; ip address add 10.99.0.254/24 dev tracer; ip link set tracer up
        """)
        for number, name in enumerate(sorted(self.services), 1):
            self.address[name] = f"10.99.0.{number}"
        (self.work / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{a} {n}\n" for n, a in self.address.items()))
        (self.work / "volumes").mkdir()
        (self.work / "files").mkdir()
        self.files = {}
        for target, text in (files or {}).items():
            self.files[target] = self.work / "files" / target.replace("/", "_")
            self.files[target].write_text(text)
        for name in self.services:
            self.create(name)

    def create(self, name):
        service, number = self.services[name], self.address[name].split(".")[-1]
        image = self.images[service["image"].split(":")[0]]
        home = self.work / name
        root = home / "root"
        for directory in ("root", "upper", "work"):
            (home / directory).mkdir(parents=True)
        sh(f"""
            ip netns add {name}
            ip link add v{number} type veth peer name eth0 netns {name}
            ip link set v{number} master tracer up
            ip -n {name} link set lo up
            ip -n {name} address add {self.address[name]}/24 dev eth0
            ip -n {name} link set eth0 up
            ip -n {name} route add default via 10.99.0.254
            mount -t overlay overlay -o lowerdir={image.lower},upperdir={home}/upper,workdir={home}/work {root}
            mount -t proc proc {root}/proc
            mount --rbind /dev {root}/dev
            mkdir -p {root}/etc {root}/tmp; chmod 1777 {root}/tmp
            cp {self.work}/hosts {root}/etc/hosts
        """)
        # On a host's root file system, what tests keep may lie on a mount of its own.
        for volume in service.get("volumes", []):
            target = root / volume["target"].lstrip("/")
            source = self.files.get(volume["target"], pathlib.Path(volume["source"]))
            if volume["type"] == "volume":
                source = self.work / "volumes" / volume["source"]
                source.mkdir(exist_ok=True)
            if source.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
            options = "bind,ro" if volume.get("read_only") else "bind"
            sh(f"mount -o {options} {shlex.quote(str(source))} {shlex.quote(str(target))}")
        if image.prepare:
            image.prepare(root, service.get("environment") or {})

    def replica(self, name, of):
        """Another replica of a service; the others know its address and not its name."""
        self.services[name] = copy.deepcopy(self.services[of])
        self.address[name] = f"10.99.0.{len(self.address) + 1}"
        self.create(name)

    def inside(self, name, command, **more):
        """A process in a service's network and root, with its user and environment."""
        service = self.services[name]
        image = self.images[service["image"].split(":")[0]]
        environment = {"PATH": PATH, "HOME": "/tmp", "HOSTNAME": name, **(service.get("environment") or {})}
        user = [f"--userspec={image.user}"] if image.user else []
        settled = ["sh", "-c", 'cd /tmp && exec "$@"', "sh", *command]
        named = ["unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh"]
        line = ["ip", "netns", "exec", name, *named, "chroot", *user, str(self.work / name / "root"),
                "env", "-i", *(f"{key}={value}" for key, value in environment.items()), *settled]
        return subprocess.Popen(line, stdin=subprocess.DEVNULL, **more)

    def start(self, name):
        service = self.services[name]
        image = self.images[service["image"].split(":")[0]]
        command = [*(service.get("entrypoint") or image.entrypoint), *(service.get("command") or [])]
        log = open(self.work / name / "log", "ab")
        self.processes[name] = self.inside(name, command, stdout=log, stderr=log, start_new_session=True)

    def log(self, name, lines=30):
        text = (self.work / name / "log").read_text(errors="replace")
        return "".join(text.splitlines(keepends=True)[-lines:])

    def check(self, name):
        """One run of a service's health check."""
        test = self.services[name]["healthcheck"]["test"]
        command = ["sh", "-c", test[1]] if test[0] == "CMD-SHELL" else test[1:]
        process = self.inside(name, command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return process.wait(30) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            return False

    def wait(self, name, condition):
        deadline = time.monotonic() + PATIENCE
        while True:
            code = self.processes[name].poll()
            if condition == "service_completed_successfully":
                if code is not None:
                    assert code == 0, f"{name} ended with {code}:\n{self.log(name)}"
                    return
            else:
                assert code is None, f"{name} ended with {code}:\n{self.log(name)}"
                if condition == "service_started" or self.check(name):
                    self.healthy.add(name)
                    return
            assert time.monotonic() < deadline, f"{name}: {condition} was not reached:\n{self.log(name)}"
            time.sleep(0.5)

    def up(self, names):
        """Starts services in the order of what they depend on."""
        for name in names:
            if name in self.processes:
                continue
            needed = {n: d for n, d in (self.services[name].get("depends_on") or {}).items() if n not in ABSENT}
            self.up(needed)
            for other, dependency in needed.items():
                self.wait(other, dependency["condition"])
            self.start(name)

    def end(self, process):
        """Ends what `inside` started in a session of its own."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)

    def stop(self, name, how=signal.SIGTERM):
        """Ends a service, and answers its exit code."""
        process = self.processes.pop(name)
        os.killpg(process.pid, how)
        return process.wait(90)

    def http(self, name, port, path, method="GET", body=None, **query):
        """What a service's HTTP server answers."""
        url = f"http://{self.address[name]}:{port}{path}"
        if query:
            url += "?" + urllib.parse.urlencode(query)
        request = urllib.request.Request(url, data=body, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    def kafka(self, tool, arguments, **files):
        """Runs a tool of Kafka's image; `files` are written beside it first."""
        for name, text in files.items():
            (self.work / "kafka/root/tmp" / name).write_text(text)
        script = f"cd /tmp && /opt/kafka/bin/{tool}.sh --bootstrap-server kafka:9092 {arguments}"
        process = self.inside("kafka", ["sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, f"{tool}: {said}"
        return said
