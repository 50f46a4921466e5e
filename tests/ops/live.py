"""Runs docker-compose.yml with its demo, and asks its Prometheus what the dashboards ask.

    live.py PARTS WORK [ALERT…]

PARTS is a JSON object of where the parts are. No panel may be empty, and no alert may be
wrong of a system that is well. Then each alert is caused, must fire, and is resolved by what
its runbook says. With names of alerts only their runbooks are walked, and the rest is left out.
"""

import json
import math
import re
import sys
import time
import types

import monitoring
import stack
import walk
from walk import Walk
from walk_ingest import Ingest
from walk_trainer import Trainer
from walk_versions import Versions

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


class Walks(Versions, Ingest, Trainer, Walk):
    """The walks of all alerts, in this order. What looks at coverage comes first: loads ask far
    more, of what nothing is known. Then what needs the traces as the demo left them, what sends
    them again, and so makes refits due, and what publishes versions. Kafka is killed last: the
    group that it remembers gives partitions to one that is gone, for a while."""

    ALERTS = ["CoverageDrop", "NoTraces", "TaskSuspended", "VersionNotLoaded", "ReplicaDown", "PositionLost", "DeadLetters",
              "AuditsNotRead", "Lag", "RefitFailing", "RefitOverdue", "RefitStuck", "TrainerLost", "ShedLoad",
              "AgreementBelowTarget", "VersionSkew", "SourceFailing"]


def main(parts, work, only):
    known = {rule["alert"].removeprefix("Tracer") for rule in monitoring.rules() if "alert" in rule}
    assert known == set(Walks.ALERTS), f"alerts that are not walked, or walks without an alert: {known ^ set(Walks.ALERTS)}"
    only = [alert.removeprefix("Tracer") for alert in only]
    assert known >= set(only), f"there are no alerts {', '.join(sorted(set(only) - known))}"
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
    walks = Walks(services, prometheus)
    if only:
        walks.walk(only)
        return
    eventually("empty panels", prometheus.empty)
    assert not (wrong := prometheus.alerts()), f"alerts of a system that is well: {wrong}"
    rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
    assert all(rule["health"] == "ok" for rule in rules), [rule for rule in rules if rule["health"] != "ok"]
    asked = prometheus.asked
    print(f"compose: {asked} queries of the dashboards answered, {len(rules)} rules evaluated", flush=True)
    walks.walk(walks.ALERTS)
    for name in ("aggregator", "trainer", "inference"):
        code = services.stop(name)
        assert code == 0, f"{name} ended with {code}:\n{services.log(name)}"
    print(f"compose: {', '.join(sorted(services.healthy))} healthy by their own checks; {asked} queries of the dashboards, none "
          f"empty; {len(rules)} rules evaluated; quiet while well; all {len(walks.ALERTS)} alerts fired with shortened times of "
          f"what was done to it, and were resolved by their runbooks")


if __name__ == "__main__":
    main(types.SimpleNamespace(**json.loads(sys.argv[1])), sys.argv[2], sys.argv[3:])
