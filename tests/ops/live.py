"""Runs docker-compose.yml with its demo, and asks its Prometheus what the dashboards ask.

    live.py PARTS WORK [ALERT…]

PARTS is a JSON object of where the parts are. No panel may be empty, no alert may be
wrong of a system that is well, and each must notice its cause. With names of alerts only
their runbooks are walked (walk.py has which), and the rest is left out.
"""

import json
import math
import pathlib
import re
import sys
import time
import types
import urllib.error

import monitoring
import stack
import walk

INSTALLATION, TASK = "compose", "support"
PATIENCE = 240

# Of a task that is well, and whose questions come without an audit, these may be 0 throughout.
MAY_BE_IDLE = ("Suspen", "Audits", "Evidence", "Refit under way", "Progress", "Time to the end", "Waiting", "Leases")


def eventually(what, probe, patience=PATIENCE):
    """Until the probe answers nothing that is missing."""
    deadline = time.monotonic() + patience
    while missing := probe():
        assert time.monotonic() < deadline, f"{what}: {missing}"
        time.sleep(2)


class Prometheus:
    def __init__(self, services, since):
        self.services, self.since = services, since

    def api(self, path, **query):
        answer = json.loads(self.services.http("prometheus", 9090, f"/api/v1/{path}", **query))
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, expression, instant):
        """All numbers that a query gives, over the run where it is a range."""
        now = time.time()
        if instant:
            return [series["value"][1] for series in self.api("query", query=expression)["result"]]
        result = self.api("query_range", query=expression, start=self.since, end=now, step=15)["result"]
        return [value for series in result for _, value in series["values"]]

    def empty(self):
        """Queries of the dashboards that give nothing to draw."""
        spread = f"{math.ceil(time.time() - self.since)}s"
        missing, asked = [], 0
        for file, dashboard in monitoring.dashboards().items():
            for where, expression, instant in monitoring.queries(dashboard):
                for name, value in (("installation", INSTALLATION), ("task", TASK), ("__range", spread), ("__rate_interval", "1m")):
                    expression = expression.replace(f"${name}", value)
                asked += 1
                values = [float(value) for value in self.values(expression, instant)]
                least = -1 if file != "task.json" or where.startswith(MAY_BE_IDLE) else 0
                if not any(value > least for value in values if not math.isnan(value)):
                    missing.append(f"{file}: {where}: {expression}")
            for variable in dashboard["templating"]["list"]:
                if found := re.fullmatch(r"label_values\((.*), (\w+)\)", str(variable["query"].get("query") if isinstance(variable["query"], dict) else "")):
                    series = self.api("series", **{"match[]": found[1].replace("$installation", INSTALLATION)})
                    wanted = {"installation": INSTALLATION, "task": TASK}[found[2]]
                    if wanted not in {s.get(found[2]) for s in series}:
                        missing.append(f"{file}: variable {variable['name']}")
        self.asked = asked
        return missing

    def alerts(self, states=("pending", "firing")):
        return {alert["labels"]["alertname"] for alert in self.api("alerts")["alerts"] if alert["state"] in states}

    def until(self, what, probe, patience=PATIENCE):
        eventually(what, probe, patience)


class Causes:
    """Makes the causes of alerts that can be made at once, and does what the runbooks say. An
    alert that has noticed waits for its time (`for`): promtool's scenarios go on from there."""

    ALERTS = ["DeadLetters", "ReplicaDown", "TaskSuspended", "VersionNotLoaded", "PositionLost", "SourceFailing"]

    def __init__(self, services, prometheus):
        self.services, self.prometheus = services, prometheus

    def noticed(self, alert):
        alert = f"Tracer{alert}"
        eventually(f"{alert} does not notice", lambda: [] if alert in self.prometheus.alerts() else [self.prometheus.alerts()])

    def value(self, expression, wanted):
        eventually(f"{expression} does not become {wanted}",
                   lambda: [v for v in self.prometheus.values(expression, True) if float(v) != wanted])

    def again(self, name):
        self.services.up([name])
        self.services.wait(name, "service_healthy")

    def object(self, path, method="GET", body=None):
        """An object of the store, past its S3 interface."""
        return self.services.http("s3", 8888, f"/buckets/tracer/{path}", method, body)

    def dead_letters(self):
        broken = '{"task": "support", "input": "no label"}\n' * 400
        self.services.kafka("kafka-console-producer", "--topic traces <broken", broken=broken)
        self.noticed("DeadLetters")

    def replica_down(self):
        self.services.stop("inference")
        self.noticed("ReplicaDown")
        self.again("inference")

    def task_suspended(self):
        """By the deployment log, as the router follows it."""
        log = f"pipelines/{TASK}/log"
        seq = 1
        while True:
            try:
                last = json.loads(self.object(f"{log}/{seq:020}.json"))
                seq += 1
            except urllib.error.HTTPError:
                break
        for entry, suspended in ({"kind": "suspended", "reason": "a test"}, 1), ({"kind": "resumed"}, 0):
            document = {**last, "seq": seq, "nonce": f"test-{seq}", "event": entry}
            self.object(f"{log}/{seq:020}.json", "PUT", json.dumps(document).encode())
            seq += 1
            self.value(f'tracer_pipeline_suspended{{task="{TASK}"}}', suspended)
            if suspended:
                self.noticed("TaskSuspended")

    def version_not_loaded(self):
        """A model is gone from the store, and comes back."""
        version = int(max(float(v) for v in self.prometheus.values(f'tracer_pipeline_version{{task="{TASK}"}}', True)))
        model = f"pipelines/{TASK}/v{version:06}/model.safetensors"
        content = self.object(model)
        self.services.stop("inference")
        self.object(model, "DELETE")
        self.again("inference")
        self.noticed("VersionNotLoaded")
        said = self.services.http("inference", 8080, "/readyz").decode()
        assert f"version {version} cannot be loaded" in said, said
        self.object(model, "PUT", content)
        self.value(f'tracer_pipeline_version{{task="{TASK}"}}', version)

    def position_lost(self):
        """Records are removed before they are read; `reset` goes on."""
        code = self.services.stop("aggregator")
        assert code == 0, f"the aggregator ended with {code}:\n{self.services.log('aggregator')}"
        more = '{"task": "support", "input": "where is it?", "teacher": "delivery"}\n' * 600
        self.services.kafka("kafka-console-producer", "--topic traces <more", more=more)
        all_of_them = [{"topic": "traces", "partition": partition, "offset": -1} for partition in range(3)]
        self.services.kafka("kafka-delete-records", "--offset-json-file removed",
                            removed=json.dumps({"partitions": all_of_them, "version": 1}))
        self.services.up(["aggregator"])
        self.noticed("PositionLost")
        lost = [s["metric"]["partition"] for s in self.prometheus.api("query", query="tracer_consumer_position_lost == 1")["result"]]
        for partition in lost:
            command = ["tracer", "aggregator", "reset", "--topic", "traces", "--partition", partition,
                       "--to", "beginning", "--reason", "a test"]
            code = self.services.inside("aggregator", command).wait(60)
            assert code == 0, f"the reset of traces-{partition} ended with {code}"
        self.value("tracer_consumer_position_lost", 0)

    def source_failing(self):
        self.services.stop("kafka", how=9)
        self.noticed("SourceFailing")
        self.again("kafka")
        eventually("the aggregator does not find Kafka again", lambda: [] if self.services.check("aggregator") else ["not ready"])

    def make(self):
        for alert in self.ALERTS:
            getattr(self, re.sub("(?<!^)([A-Z])", r"_\1", alert).lower())()
            print(f"compose: {alert} was caused and noticed", flush=True)


def main(parts, work, only):
    since = time.time()
    compose = str(monitoring.ROOT / "docker-compose.yml")
    settings = {"DEMO_MESSAGES": "3000", "DEMO_QUESTIONS": "100" if only else "1000"}
    services = stack.Stack(compose, parts, work, settings, walk.files())
    services.up(["prometheus", "aggregator", "trainer", "inference"])
    for name in ("prometheus", "aggregator", "trainer", "inference"):
        services.wait(name, "service_healthy")
    prometheus = Prometheus(services, since)
    services.up(["demo"])
    services.wait("demo", "service_completed_successfully")
    walks = walk.Walks(services, prometheus)
    if only:
        walks.walk(only)
        return
    eventually("empty panels", prometheus.empty)
    assert not (wrong := prometheus.alerts()), f"alerts of a system that is well: {wrong}"
    rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
    assert all(rule["health"] == "ok" for rule in rules), [rule for rule in rules if rule["health"] != "ok"]
    asked = prometheus.asked
    print(f"compose: {asked} queries of the dashboards answered, {len(rules)} rules evaluated", flush=True)
    Causes(services, prometheus).make()
    walks.walk(walks.ALERTS)
    for name in ("aggregator", "trainer", "inference"):
        code = services.stop(name)
        assert code == 0, f"{name} ended with {code}:\n{services.log(name)}"
    print(f"compose: {', '.join(sorted(services.healthy))} healthy by their own checks; {asked} queries of the dashboards, none "
          f"empty; {len(rules)} rules evaluated; quiet while well; {len(Causes.ALERTS)} alerts noticed what was done to it, and "
          f"{len(walks.ALERTS)} more fired with shortened times and were resolved by their runbooks")


if __name__ == "__main__":
    main(types.SimpleNamespace(**json.loads(sys.argv[1])), sys.argv[2], sys.argv[3:])
