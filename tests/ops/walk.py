"""What a walk of a runbook needs: each alert is caused on the running stack, seen to fire, and
resolved by what its page says. The walks are in walk_ingest.py, walk_versions.py and
walk_trainer.py.

The rules are those of the installation with shorter times, as hours cannot be waited for;
which windows make sense is promtool's to say (alerts.yml).
"""

import copy
import json
import re
import signal
import subprocess
import time
import urllib.error

import monitoring

TASK = "support"
PROMETHEUS, RULES = "/etc/prometheus/prometheus.yml", "/etc/prometheus/rules.yml"
# In place of the times of the rules. A rate needs two samples, which come every 2 s here.
SHORTER = {"1d": "5m", "1h": "1m", "30m": "30s", "15m": "20s", "10m": "16s", "5m": "12s"}
# How long a refit may be due, in seconds.
OVERDUE, SOON_OVERDUE = "> 3600\n", "> 4\n"


def files():
    return {PROMETHEUS: (monitoring.ROOT / "compose/prometheus.yml").read_text(),
            RULES: (monitoring.MONITORING / "rules.yml").read_text()}


def shortened(rules):
    rules = re.sub(r"(?<=for: )\w+", "4s", rules)
    rules = re.sub(r"(?<=interval: )\w+", "2s", rules)
    rules = re.sub(r"(?<=[^\w\[]offset )(\w+)", lambda found: SHORTER[found[1]], rules)
    assert rules.count(OVERDUE) == 1, f"{OVERDUE.strip()!r} stands {rules.count(OVERDUE)} times in the rules"
    rules = rules.replace(OVERDUE, SOON_OVERDUE)
    return re.sub(r"(?<=\[)(\d+[smhd])(?=\])", lambda found: SHORTER[found[1]], rules)


class Walk:
    def __init__(self, services, prometheus):
        """Before anything removes the traces of the demo from Kafka."""
        self.services, self.prometheus = services, prometheus
        said = services.kafka("kafka-console-consumer", "--topic traces --from-beginning --timeout-ms 15000 2>/dev/null")
        self.began = {}
        self.traces = [line for line in said.splitlines() if line.startswith('{"')]
        assert len(self.traces) > 2000, f"{len(self.traces)} traces of the demo"

    def fires(self, alert):
        self.prometheus.until(f"{alert} does not fire", lambda: [] if self.firing(alert) else [self.prometheus.alerts()])

    def firing(self, alert):
        return f"Tracer{alert}" in self.prometheus.alerts(["firing"])

    def resolved(self, alert):
        self.prometheus.until(f"{alert} is not resolved",
                              lambda: self.prometheus.alerts() & {f"Tracer{alert}"})

    def sees(self, what, probe):
        self.prometheus.until(what, lambda: [] if probe() else ["not so"])

    def value(self, expression):
        """The largest number that a query gives; 0 where it gives none."""
        return max((float(value) for value in self.prometheus.values(expression, True)), default=0.0)

    def readyz(self, name):
        """The status and what a replica says of itself."""
        try:
            return 200, self.services.http(name, 8080, "/readyz").decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def tracer(self, *arguments, code=0):
        """A command of an operator, run with the trainer's configuration."""
        process = self.services.inside("trainer", ["tracer", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == code, f"tracer {' '.join(arguments)} ended with {process.returncode}: {said}"
        return said

    def object(self, path, method="GET", body=None):
        return self.services.http("s3", 8888, f"/buckets/tracer/{path}", method, body)

    def listed(self, path):
        """The names of a directory of the store."""
        names, last = [], ""
        while True:
            url = f"http://{self.services.address['s3']}:8888/buckets/tracer/{path}/?limit=1000&lastFileName={last}"
            command = ["wget", "-q", "-O", "-", "--header=Accept: application/json", url]
            page = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            entries = page.get("Entries") or []
            names += [entry["FullPath"].split("/")[-1] for entry in entries]
            if len(entries) < 1000:
                return names
            last = names[-1]

    def deployments(self):
        """The deployment log of the task."""
        names = sorted(self.listed(f"pipelines/{TASK}/log"))
        return [json.loads(self.object(f"pipelines/{TASK}/log/{name}")) for name in names if name.endswith(".json")]

    def again(self, name, healthy=True, **environment):
        """The service with other settings; None takes one away."""
        settings = self.services.services[name]["environment"]
        for key, value in environment.items():
            settings.pop(key, None)
            if value is not None:
                settings[key] = value
        if name in self.services.processes:
            code = self.services.stop(name)
            assert code == 0, f"{name} ended with {code}:\n{self.services.log(name)}"
        self.services.up([name])
        if healthy:
            self.services.wait(name, "service_healthy")

    # What people and the world do ---------------------------------------------------------

    def replay(self, traces):
        path = self.services.work / "demo/root/tmp/traces.jsonl"
        path.write_text("".join(f"{trace}\n" for trace in traces))
        process = self.services.inside("demo", ["tracer", "replay", "/tmp/traces.jsonl"], stderr=subprocess.PIPE, text=True)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said

    def ask(self, texts):
        """A caller of the router, one question after the other, until it is ended."""
        path = self.services.work / "demo/root/tmp/questions"
        path.write_text("".join(f"{text}\n" for text in texts))
        loop = f'while true; do while read -r text; do tracer route --task {TASK} -- "$text"; done </tmp/questions; done'
        return self.services.inside("demo", ["bash", "-c", loop], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                    start_new_session=True)

    def said(self, name, pattern):
        """Lines of a service's log, since the walk began, that fit a pattern."""
        text = (self.services.work / name / "log").read_text(errors="replace")[self.began.get(name, 0):]
        return [line for line in text.splitlines() if re.search(pattern, line)]

    def rows(self):
        """Traces in the store. Fails where it is not whole."""
        return int(re.search(r"^(\d+) rows, checksum", self.tracer("shards", "verify"), re.M)[1])

    def stored(self, traces):
        """Sends traces, and waits until they are in shards."""
        wanted = self.rows() + len(traces)
        self.replay(traces)
        self.sees(f"{len(traces)} more traces are stored", lambda: self.rows() >= wanted)

    def second(self, of):
        """Another replica of a service, with its settings, and Prometheus reads it."""
        name = f"{of}-2"
        if name not in self.services.services:
            self.services.replica(name, of)
        self.services.services[name]["environment"] = copy.deepcopy(self.services.services[of]["environment"])
        self.services.up([name])
        self.services.wait(name, "service_healthy")
        instance = f"{self.services.address[name]}:8080"
        self.configure(lambda text: text.replace(f'"{of}:8080"', f'"{of}:8080", "{instance}"'))
        self.sees(f"{name} is scraped", lambda: self.value(f'up{{instance="{instance}"}}') == 1)
        return name

    def without(self, name):
        """Ends a second replica, and Prometheus reads it no more."""
        self.configure(lambda text: text.replace(f', "{self.services.address[name]}:8080"', ""))
        code = self.services.stop(name)
        assert code == 0, f"{name} ended with {code}:\n{self.services.log(name)}"

    # ------------------------------------------------------------------------------------

    def configure(self, change):
        """Prometheus reads its changed configuration."""
        path = self.services.files[PROMETHEUS]
        path.write_text(change(path.read_text()))
        self.services.processes["prometheus"].send_signal(signal.SIGHUP)

    def walk(self, alerts):
        rules = self.services.files[RULES]
        rules.write_text(shortened(rules.read_text()))
        self.configure(lambda text: text.replace("15s", "2s"))
        self.sees("Prometheus has the shortened rules", lambda: any(
            rule.get("duration") == 4 for group in self.prometheus.api("rules")["groups"] for rule in group["rules"]))
        for alert in alerts:
            began = time.monotonic()
            self.began = {log.parent.name: len(log.read_text(errors="replace")) for log in self.services.work.glob("*/log")}
            how = getattr(self, re.sub("(?<!^)([A-Z])", r"_\1", alert).lower())()
            print(f"compose: {alert} fired, and was resolved by its runbook in {time.monotonic() - began:.0f} s: {how}", flush=True)
