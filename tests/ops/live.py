"""Runs docker-compose.yml with its demo, and asks its Prometheus what the dashboards ask.

    live.py PARTS WORK

PARTS is a JSON object of where the parts are. No panel may be empty, no alert may be
wrong of a system that is well, and those whose cause can be made here must notice it.
"""

import json
import math
import pathlib
import re
import sys
import time
import types

import monitoring
import stack

INSTALLATION, TASK = "compose", "support"
PATIENCE = 240


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
        answer = json.loads(self.services.get("prometheus", 9090, f"/api/v1/{path}", **query))
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
                if not any(not math.isnan(float(value)) for value in self.values(expression, instant)):
                    missing.append(f"{file}: {where}: {expression}")
            for variable in dashboard["templating"]["list"]:
                if found := re.fullmatch(r"label_values\((.*), (\w+)\)", str(variable["query"].get("query") if isinstance(variable["query"], dict) else "")):
                    series = self.api("series", **{"match[]": found[1].replace("$installation", INSTALLATION)})
                    wanted = {"installation": INSTALLATION, "task": TASK}[found[2]]
                    if wanted not in {s.get(found[2]) for s in series}:
                        missing.append(f"{file}: variable {variable['name']}")
        self.asked = asked
        return missing

    def alerts(self):
        return {alert["labels"]["alertname"] for alert in self.api("alerts")["alerts"]}


def causes(services, prometheus):
    """Makes the causes of alerts that can be made at once. An alert that has noticed waits
    for its time (`for`): promtool's scenarios go on from there."""
    seen = []

    def noticed(alert):
        seen.append(alert)
        eventually(f"{alert} did not notice", lambda: [] if alert in prometheus.alerts() else [prometheus.alerts()])

    broken = "".join('{"task": "support", "input": "no label"}\n' for _ in range(400))
    (services.work / "kafka/root/tmp/broken").write_text(broken)
    services.produce("traces", "/tmp/broken")
    noticed("TracerDeadLetters")

    services.stop("inference")
    noticed("TracerReplicaDown")
    services.up(["inference"])

    services.stop("kafka", how=9)
    noticed("TracerSourceFailing")
    services.up(["kafka"])
    services.wait("kafka", "service_healthy")
    eventually("the aggregator does not find Kafka again", lambda: [] if services.check("aggregator") else ["not ready"])
    return seen


def main(parts, work):
    since = time.time()
    compose = str(monitoring.ROOT / "docker-compose.yml")
    services = stack.Stack(compose, parts, work, {"DEMO_MESSAGES": "3000", "DEMO_RATE": "500"})
    services.up(["prometheus", "aggregator", "trainer", "inference"])
    for name in ("prometheus", "aggregator", "trainer", "inference"):
        services.wait(name, "service_healthy")
    prometheus = Prometheus(services, since)
    services.up(["demo"])
    services.wait("demo", "service_completed_successfully")
    eventually("empty panels", prometheus.empty)
    assert not (wrong := prometheus.alerts()), f"alerts of a system that is well: {wrong}"
    rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
    assert all(rule["health"] == "ok" for rule in rules), [rule for rule in rules if rule["health"] != "ok"]
    asked = prometheus.asked
    seen = causes(services, prometheus)
    for name in ("aggregator", "trainer", "inference"):
        code = services.stop(name)
        assert code == 0, f"{name} ended with {code}:\n{services.log(name)}"
    print(f"compose: {', '.join(sorted(services.healthy))} healthy by their own checks; {asked} queries of the dashboards, none "
          f"empty; {len(rules)} rules evaluated; quiet while well, and {', '.join(seen)} noticed what was done to it")


if __name__ == "__main__":
    main(types.SimpleNamespace(**json.loads(sys.argv[1])), sys.argv[2])
