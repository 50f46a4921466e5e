"""What rules and dashboards must be whatever runs: names, runbooks, scenarios, layout.

    monitoring.py
"""

import json
import pathlib
import re
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
MONITORING = ROOT / "helm/tracer/monitoring"


def definitions():
    """Every metric of the code: name, kind, labels."""
    text = (ROOT / "libs/telemetry/src/metric.rs").read_text()
    found = re.findall(r'name: "(tracer_\w+)",\s*kind: Kind::(\w+).*?labels: &\[(.*?)\]', text, flags=re.S)
    return {name: (kind, set(re.findall(r'"(\w+)"', labels))) for name, kind, labels in found}


def rules():
    return [rule for group in yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"] for rule in group["rules"]]


def dashboards():
    return {path.name: json.loads(path.read_text()) for path in sorted((MONITORING / "dashboards").glob("*.json"))}


def queries(dashboard):
    """Every query: where it stands, the expression, and whether it is an instant one."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"{panel['title']} {target['refId']}", target["expr"], target.get("instant", False)
    for annotation in dashboard["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["expr"], False


def names(expression):
    """Metrics and recorded series that an expression names."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"\b(?:installation\w*:[\w:]+|tracer_\w+)\b", bare))


def check_names(metrics, recorded):
    used = set()
    sources = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]
    for file, dashboard in dashboards().items():
        sources += [(f"{file}: {where}", expression) for where, expression, _ in queries(dashboard)]
    for where, expression in sources:
        for name in names(expression):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            if name in recorded:
                continue
            known = name if name in metrics else base if metrics.get(base, [""])[0] == "Histogram" else None
            assert known, f"{where}: there is no metric {name}"
            used.add(known)
            kind, _ = metrics[known]
            for function in re.findall(rf"(\w+)\({name}\b[^()]*\[", expression):
                counts = kind in ("Counter", "FloatCounter", "Histogram")
                assert counts == (function in ("rate", "increase")), f"{where}: {function} of the {kind} {name}"
    for record in recorded:
        assert any(record in names(e) for _, e in sources), f"{record} is recorded and used nowhere"
    return used


def check_alerts():
    scenarios = yaml.safe_load((ROOT / "tests/ops/alerts.yml").read_text())["tests"]
    for scenario in scenarios:
        for series in scenario["input_series"]:
            hexadecimal = re.search(r"(^|\s)0x", str(series["values"]))
            assert not hexadecimal, f"{scenario['name']}: promtool reads {series['values']!r} as a hexadecimal number"
    tests = [test for scenario in scenarios for test in scenario.get("alert_rule_test", [])]
    alerts = [rule for rule in rules() if "alert" in rule]
    runbooks = set()
    for rule in alerts:
        name = rule["alert"]
        mine = [test for test in tests if test["alertname"] == name]
        assert any(test.get("exp_alerts") for test in mine), f"no scenario fires {name}"
        assert any(not test.get("exp_alerts") for test in mine), f"no scenario leaves {name} quiet"
        assert rule["labels"]["severity"] in ("warning", "critical"), name
        runbook = ROOT / rule["annotations"]["runbook"]
        text = runbook.read_text()
        runbooks.add(runbook.name)
        assert f"# {name}" in text, f"{runbook.name} is not about {name}"
        for part in ("## What it means", "## Find out", "## Put it right"):
            assert part in text, f"{runbook.name} has no {part!r}"
    there = {path.name for path in (ROOT / "docs/runbooks").glob("*.md")} - {"README.md"}
    assert there == runbooks, f"runbooks without an alert: {there - runbooks}"
    index = (ROOT / "docs/runbooks/README.md").read_text()
    for name in runbooks:
        assert f"({name})" in index, f"docs/runbooks/README.md does not list {name}"
    return len(alerts)


def check_dashboards():
    panels = 0
    uids = set()
    for file, dashboard in dashboards().items():
        assert dashboard["uid"] not in uids and re.fullmatch(r"[a-z0-9-]{1,40}", dashboard["uid"]), file
        uids.add(dashboard["uid"])
        assert dashboard["title"].startswith("Tracer / "), file
        ids, taken = set(), set()
        variables = {variable["name"] for variable in dashboard["templating"]["list"]}
        assert "datasource" in variables, f"{file}: bound to one data source"
        for panel in dashboard["panels"]:
            where = f"{file}: {panel['title']}"
            assert panel["id"] not in ids, f"{where}: the id {panel['id']} twice"
            ids.add(panel["id"])
            grid = panel["gridPos"]
            cells = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
            assert not cells & taken and grid["x"] + grid["w"] <= 24, f"{where}: lies over another panel"
            taken |= cells
            if panel["type"] == "row":
                continue
            panels += 1
            assert panel["description"] and panel["fieldConfig"]["defaults"]["unit"], f"{where}: no description or unit"
            assert panel["datasource"]["uid"] == "${datasource}", f"{where}: bound to one data source"
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]), where
        for where, expression, _ in queries(dashboard):
            for variable in re.findall(r"\$(\w+)", expression):
                known = variable in variables or variable in ("__range", "__rate_interval")
                assert known, f"{file}: {where}: ${variable} is no variable"
            assert 'installation="$installation"' in expression, f"{file}: {where}: mixes installations"
    return panels


def check_provisioning():
    """Compose's Grafana finds the dashboards where they are mounted."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    mounted = dict(volume.split(":")[:2] for volume in compose["grafana"]["volumes"])
    assert mounted["./helm/tracer/monitoring/dashboards"] == "/etc/tracer/dashboards"
    provisioning = ROOT / "compose/grafana/provisioning"
    provider = yaml.safe_load((provisioning / "dashboards/tracer.yml").read_text())["providers"][0]
    assert provider["options"]["path"] == "/etc/tracer/dashboards", provider
    home = compose["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert pathlib.Path(home).name in dashboards(), home
    source = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090" and "prometheus" in compose, source
    assert dict(v.split(":")[:2] for v in compose["prometheus"]["volumes"])["./helm/tracer/monitoring/rules.yml"] == "/etc/prometheus/rules.yml"


def main():
    metrics = definitions()
    assert len(metrics) >= 30, f"only {len(metrics)} metrics were found in the code"
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = check_names(metrics, recorded)
    alerts = check_alerts()
    panels = check_dashboards()
    check_provisioning()
    unused = sorted(set(metrics) - used)
    print(f"monitoring: {len(used)} of {len(metrics)} metrics (not {', '.join(unused) or 'one left out'}) in {panels} panels of "
          f"{len(dashboards())} dashboards, {len(recorded)} recording rules and {alerts} alerts, each with a runbook and with scenarios that fire it and that do not")


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        sys.exit(f"monitoring: {error}")
