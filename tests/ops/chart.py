"""Checks helm/tracer: lint, templates for every set of values in ci/ and the quickstart's, Kubernetes' schemas,
the restricted profile of Pod Security, and what the objects must say of each other.

    chart.py check MODULES      everything; MODULES holds node_modules with the operator's models
    chart.py readme [--write]   helm/tracer/README.md is what the values say
    chart.py configs BINARY     the binary takes each pod's configuration and environment

Needs helm-python-sdk, kubernetes-validate and PyYAML (tests/run ops installs them).
"""

import copy
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import helm_python
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/tracer"
# The oldest that Chart.yaml admits, one that is common, and the latest known.
VERSIONS = ["1.27", "1.31", kubernetes_validate.latest_version()]
# Kinds of the Prometheus operator: Kubernetes has no schema of them.
OPERATOR = "monitoring.coreos.com/v1"
failures = []


def check(holds, what):
    if not holds:
        failures.append(what)


def value_sets():
    sets = {path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text()) or {}
            for path in sorted((CHART / "ci").glob("*-values.yaml"))}
    check(len(sets) >= 6, f"{len(sets)} sets of values in ci/, 6 are wanted")
    # What a newcomer copies.
    sets["quickstart"] = yaml.safe_load(re.search(r"```yaml\n(.*?)```", (ROOT / "docs/quickstart.md").read_text(), re.S)[1])
    return sets


def render(values, name="tracer", namespace="ml"):
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        manifests = chart.render(values, name=name, namespace=namespace)
    objects = []
    for path, text in sorted(manifests.items()):
        if not path.endswith(".txt"):
            objects += [document for document in yaml.safe_load_all(text) if document]
    return objects


def lint(sets):
    for name, values in sets.items():
        report = helm_python.lint(CHART, values, strict=True)
        # Severity 1 is information: a chart without an icon.
        found = [m for m in report["messages"] if m["severity"] > 1]
        check(not found and not report["errors"], f"{name}: lint: {found} {report['errors']}")


def schemas(name, objects):
    for document in objects:
        if document["apiVersion"] == OPERATOR:
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except Exception as error:
                what = getattr(error, "message", error)
                check(False, f"{name}: {document['kind']} {document['metadata']['name']}: Kubernetes {version}: {what}")


def operator_objects(objects, modules):
    """The Prometheus operator's own definitions, and the keys that they would drop unsaid."""
    mine = [document for document in objects if document["apiVersion"] == OPERATOR]
    check(len(mine) == 2, f"{len(mine)} objects of the operator")
    done = subprocess.run(["node", ROOT / "tests/ops/operator.mjs", modules], input=json.dumps(mine), capture_output=True, text=True)
    check(done.returncode == 0 and not done.stdout, f"monitoring: {done.stdout}{done.stderr}")
    known = {"port", "path", "interval", "scrapeTimeout", "relabelings"}
    for document in mine:
        for endpoint in document["spec"].get("endpoints", []):
            check(set(endpoint) <= known, f"monitoring: {set(endpoint) - known} of an endpoint")


def pods(objects):
    for document in objects:
        if document["kind"] in ("Deployment", "StatefulSet"):
            yield document, document["spec"]["template"]


def restricted(name, objects):
    """The restricted profile of the Pod Security Standards, rule by rule."""
    for document, template in pods(objects):
        spec = template["spec"]
        where = f"{name}: {document['metadata']['name']}"
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            check(not spec.get(field), f"{where}: {field}")
        check(spec.get("automountServiceAccountToken") is False, f"{where}: mounts the account's token")
        allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
        for volume in spec.get("volumes", []):
            kinds = set(volume) - {"name"}
            check(kinds <= allowed, f"{where}: volume {volume['name']} is {kinds}")
        pod = spec.get("securityContext", {})
        check(not pod.get("sysctls"), f"{where}: sysctls")
        for container in spec["containers"] + spec.get("initContainers", []):
            context = container.get("securityContext", {})
            inherited = {**pod, **context}
            check(context.get("allowPrivilegeEscalation") is False, f"{where}: allowPrivilegeEscalation")
            check(not context.get("privileged"), f"{where}: privileged")
            check(inherited.get("runAsNonRoot") is True, f"{where}: runAsNonRoot")
            check(inherited.get("runAsUser", 1) != 0, f"{where}: runs as root")
            check(inherited.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"), f"{where}: seccompProfile")
            check("ALL" in context.get("capabilities", {}).get("drop", []), f"{where}: capabilities")
            check(set(context.get("capabilities", {}).get("add", [])) <= {"NET_BIND_SERVICE"}, f"{where}: added capabilities")
            check(context.get("procMount", "Default") == "Default", f"{where}: procMount")
            check(context.get("readOnlyRootFilesystem") is True, f"{where}: readOnlyRootFilesystem")
            check(all("hostPort" not in port for port in container.get("ports", [])), f"{where}: hostPort")


def coherent(name, objects):
    """What no schema sees: names and selectors that must meet."""
    keys = [(o["kind"], o["metadata"]["name"]) for o in objects]
    check(len(keys) == len(set(keys)), f"{name}: an object twice: {sorted(keys)}")
    by_kind = {}
    for document in objects:
        by_kind.setdefault(document["kind"], {})[document["metadata"]["name"]] = document
        for label in document["metadata"]["labels"].values():
            check(re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", str(label)), f"{name}: label {label!r}")
    labels = {d["metadata"]["name"]: t["metadata"]["labels"] for d, t in pods(objects)}

    def selected(selector):
        return [pod for pod, has in labels.items() if all(has.get(k) == v for k, v in selector.items())]

    check(len(labels) == 3, f"{name}: workloads: {sorted(labels)}")
    for document, template in pods(objects):
        own = document["metadata"]["name"]
        check(selected(document["spec"]["selector"]["matchLabels"]) == [own], f"{name}: {own} selects others")
        container = template["spec"]["containers"][0]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"] for volume in template["spec"]["volumes"]}
        check(mounted <= volumes, f"{name}: {own}: mounts without a volume: {mounted - volumes}")
        variables = [entry["name"] for entry in container["env"]]
        check(len(variables) == len(set(variables)), f"{name}: {own}: a variable twice: {variables}")
        ports = {port["name"] for port in container["ports"]}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            check(container[probe]["httpGet"]["port"] in ports, f"{name}: {own}: {probe}")
        for source in [v["configMap"]["name"] for v in template["spec"]["volumes"] if v["name"] == "config"]:
            check(source in by_kind["ConfigMap"], f"{name}: {own}: there is no ConfigMap {source}")
        account = template["spec"]["serviceAccountName"]
        check(account == "default" or account in by_kind.get("ServiceAccount", {}), f"{name}: {own}: account {account}")
        if document["kind"] == "StatefulSet":
            service = by_kind["Service"].get(document["spec"]["serviceName"])
            check(service and service["spec"]["clusterIP"] == "None", f"{name}: {own}: needs a headless service")
    for kind, selector in (("Service", lambda d: d["spec"]["selector"]),
                           ("PodDisruptionBudget", lambda d: d["spec"]["selector"]["matchLabels"]),
                           ("NetworkPolicy", lambda d: d["spec"]["podSelector"]["matchLabels"])):
        for own, document in by_kind.get(kind, {}).items():
            # The router's metrics have a service of their own.
            expected = own.removesuffix("-http") if kind == "Service" else own
            check(selected(selector(document)) == [expected], f"{name}: {kind} {own} selects {selected(selector(document))}")
    published = {own for own, document in by_kind["Service"].items() if any(p["name"] != "grpc" for p in document["spec"]["ports"])
                 and (document["spec"]["type"] != "ClusterIP" or "annotations" in document["metadata"])}
    check(not published, f"{name}: metrics are published by {published}")
    for own, document in by_kind.get("HorizontalPodAutoscaler", {}).items():
        target = document["spec"]["scaleTargetRef"]["name"]
        check(target in by_kind["Deployment"], f"{name}: the autoscaler's target {target}")
        check("replicas" not in by_kind["Deployment"][target]["spec"], f"{name}: {target} has replicas beside an autoscaler")
    for own, document in by_kind.get("ServiceMonitor", {}).items():
        wanted = document["spec"]["selector"]["matchLabels"]
        port = document["spec"]["endpoints"][0]["port"]
        found = [s for s in by_kind["Service"].values() if wanted.items() <= s["metadata"]["labels"].items()
                 and port in [p["name"] for p in s["spec"]["ports"]]]
        check(len(found) == 3, f"{name}: the monitor finds {len(found)} services")


def particular(sets):
    """What single sets of values are there for."""
    def container(objects, component):
        return next(t["spec"]["containers"][0] for d, t in pods(objects) if d["metadata"]["name"].endswith(component))

    def environment(objects, component):
        return {entry["name"]: entry for entry in container(objects, component)["env"]}

    objects = render(sets["default"])
    instance = environment(objects, "aggregator").get("TRACER__SOURCE__INSTANCE_ID", {})
    check(instance.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath") == "metadata.name", "default: the pod's name is no instance id")
    for component in ("trainer", "inference"):
        check("TRACER__SOURCE__INSTANCE_ID" not in environment(objects, component), f"default: {component} has an instance id")
    check("TRACER__SOURCE__INSTANCE_ID" not in environment(render(sets["minimal"]), "aggregator"), "minimal: an instance id")

    secure = environment(render(sets["secure-kafka"]), "aggregator")
    check(secure["TRACER__SOURCE__SASL__USERNAME"]["valueFrom"]["secretKeyRef"] == {"name": "kafka-user", "key": "user"}, "secure-kafka: user")
    check(secure["TRACER__SOURCE__TLS__CA"]["value"] == "/run/secrets/kafka-tls/ca.crt", "secure-kafka: authority")
    check(secure["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"]["key"] == "secret-key", "secure-kafka: store")

    router = environment(render(sets["secure-kafka"]), "inference")
    check(router["TRACER__SECURITY__CLIENT_CA"]["value"] == "/run/secrets/router-tls/ca.crt", "secure-kafka: clients' authority")
    check(router["TRACER__SECURITY__TOKENS"]["value"] == "/run/secrets/router-tokens/tokens", "secure-kafka: tokens")
    check(not any(name.startswith("TRACER__SECURITY") for name in secure), "secure-kafka: the aggregator has the router's secrets")

    metrics = [m["type"] for o in render(sets["autoscaling"]) if o["kind"] == "HorizontalPodAutoscaler" for m in o["spec"]["metrics"]]
    check(metrics == ["Resource", "Pods"], f"autoscaling: metrics {metrics}")

    objects = render(sets["monitoring"])
    made = next(o for o in objects if o["kind"] == "PrometheusRule")["spec"]["groups"]
    source = yaml.safe_load((CHART / "monitoring/rules.yml").read_text())["groups"]
    expected = copy.deepcopy(source)
    for group in expected:
        group["rules"] = [r for r in group["rules"] if r.get("alert") != "TracerNoTraces"]
        for rule in group["rules"]:
            if "alert" in rule:
                rule["annotations"]["runbook_url"] = "https://example.com/tracer/" + rule["annotations"]["runbook"]
    check(made == expected, "monitoring: the PrometheusRule is not monitoring/rules.yml")
    boards = {o["metadata"]["name"]: o for o in objects if o["kind"] == "ConfigMap" and "grafana_dashboard" in o["metadata"]["labels"]}
    for path in (CHART / "monitoring/dashboards").glob("*.json"):
        data = boards.get(f"tracer-{path.stem}", {}).get("data", {}).get(f"tracer-{path.name}", "null")
        check(json.loads(data) == json.loads(path.read_text()), f"monitoring: dashboard {path.name} is another one in its ConfigMap")

    objects = render({**sets["default"], "startupProbe": {"failureThreshold": 300},
                      "inference": {"service": {"type": "LoadBalancer", "clusterIP": "", "annotations": {"a": "b"}}}})
    coherent("load balancer", objects)
    balanced = {o["metadata"]["name"]: [p["port"] for p in o["spec"]["ports"]] for o in objects
                if o["kind"] == "Service" and o["spec"]["type"] == "LoadBalancer"}
    check(balanced == {"tracer-inference": [50051]}, f"load balancer: {balanced}")
    check(container(objects, "trainer")["startupProbe"]["failureThreshold"] == 300, "startupProbe: failureThreshold")

    long = render(sets["default"], name="a-release-with-a-rather-long-name-of-fifty-chars-x")
    coherent("long name", long)
    check(all(len(o["metadata"]["name"]) <= 63 for o in long), "a long release name makes names that are too long")


REFUSED = {
    "an unknown key": {"agregator": {"replicas": 2}},
    "an unknown key below": {"aggregator": {"replica": 2}},
    "fewer trainers than none": {"trainer": {"replicas": -1}},
    "a number where text is wanted": {"config": 7},
    "an unknown mechanism": {"kafka": {"sasl": {"existingSecret": "x", "mechanism": "GSSAPI"}}},
    "an environment without a name": {"extraEnv": [{"value": "x"}]},
    "an autoscaler without a metric": {"inference": {"autoscaling": {"enabled": True, "cpuUtilization": 0}}},
    "fewer at the most than at the least": {"inference": {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 2}}},
    "a certificate without its key": {"kafka": {"tls": {"existingSecret": "x", "certificateKey": "tls.crt"}}},
}


def refused():
    for what, values in REFUSED.items():
        try:
            render(values)
        except helm_python.HelmError:
            continue
        check(False, f"{what} is taken")


def leaves(values, prefix=()):
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*prefix, key))
        else:
            yield ".".join((*prefix, key)), value


def described():
    """Every key of values.yaml with its comment: what stands right above it."""
    text = (CHART / "values.yaml").read_text()
    comments, path, comment, block = {}, [], [], None
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if block is not None and (not line.strip() or indent > block):
            continue
        block = None
        if not line.strip():
            comment = []
        elif line.strip().startswith("#"):
            comment.append(line.strip().lstrip("#").strip())
        elif found := re.match(r"( *)([A-Za-z]+):(.*)", line):
            depth = len(found[1]) // 2
            path = [*path[:depth], found[2]]
            comments[".".join(path)] = " ".join(comment)
            comment = []
            if found[3].strip() in ("|", ">"):
                block = indent
    return comments


SHARED = {
    "resources": "Of the container",
    "nodeSelector": "Of the pods",
    "tolerations": "Of the pods",
    "affinity": "Of the pods",
    "topologySpreadConstraints": "Of the pods, in the place of topologySpread",
    "priorityClassName": "Of the pods",
    "podLabels": "Labels of its pods",
    "podAnnotations": "Annotations of its pods",
    "extraEnv": "Environment of its container, after that of all",
    "extraVolumes": "Volumes of its pods",
    "extraVolumeMounts": "Their mounts",
}


def meaning_of(key, comments):
    """A key's comment after those of the tables it stands in, but for the section's own."""
    parts = key.split(".")
    said = [comments.get(".".join(parts[:n]), "") for n in range(2, len(parts) + 1)] or [comments[key]]
    shared = next((SHARED[part] for part in parts if part in SHARED and len(parts) > 1), "")
    meaning = " ".join(filter(None, said)) or shared
    check(meaning, f"values.yaml: {key} has no comment")
    return meaning.replace("|", "\\|")


def readme():
    comments, values = described(), yaml.safe_load((CHART / "values.yaml").read_text())
    general = {key: value for key, value in values.items() if not (isinstance(value, dict) and value)}
    sections = [("General", "", leaves(general))] + [
        (f"`{key}`", comments[key], leaves({key: value})) for key, value in values.items() if key not in general]
    lines = [(ROOT / "tests/ops/chart-readme.md").read_text().rstrip()]
    for title, about, entries in sections:
        lines += ["", f"### {title}", ""] + ([about, ""] if about else [])
        lines += ["| value | default | meaning |", "| --- | --- | --- |"]
        for key, default in entries:
            shown = "see values.yaml" if isinstance(default, str) and "\n" in default else f"`{json.dumps(default)}`"
            lines.append(f"| `{key}` | {shown} | {meaning_of(key, comments)} |")
    return "\n".join(lines) + "\n"


def configs(sets, binary):
    """The binary takes the configuration and the variables of each pod."""
    count = 0
    for name, values in sets.items():
        objects = render(values)
        toml = next(o for o in objects if o["kind"] == "ConfigMap" and "tracer.toml" in o["data"])["data"]["tracer.toml"]
        for _, template in pods(objects):
            container = template["spec"]["containers"][0]
            with tempfile.TemporaryDirectory() as directory:
                path = pathlib.Path(directory, "tracer.toml")
                path.write_text(toml)
                # What comes from a secret or from the pod has some value there.
                environment = {entry["name"]: entry.get("value", "x" * 40) for entry in container["env"]}
                # A command that reads the configuration, and then finds nothing to do.
                done = subprocess.run([binary, "--config", path, "scan", path.with_name("nothing")],
                                      env=environment, capture_output=True, text=True)
                check(done.returncode == 1 and "nothing" in done.stderr, f"{name}: {container['name']}: {done.stderr}")
            flags = subprocess.run([binary, *container["args"][2:], "--help"], capture_output=True, text=True)
            check(flags.returncode == 0, f"{name}: there is no command {container['args'][2:]}")
            count += 1
    if not failures:
        print(f"chart: the configuration and environment of {count} pods are taken by the binary")


def main(arguments):
    if arguments[:1] == ["configs"]:
        configs(value_sets(), arguments[1])
    elif arguments[:1] == ["readme"]:
        text, path = readme(), CHART / "README.md"
        if "--write" in arguments:
            path.write_text(text)
        check(path.exists() and path.read_text() == text, "helm/tracer/README.md is not what the values say: tests/ops/chart.py readme --write")
    elif arguments[:1] == ["check"]:
        sets = value_sets()
        lint(sets)
        count = 0
        for name, values in sets.items():
            objects = render(values)
            count += len(objects)
            schemas(name, objects)
            restricted(name, objects)
            coherent(name, objects)
        operator_objects(render(sets["monitoring"]), arguments[1])
        particular(sets)
        refused()
        if not failures:
            print(f"chart: {len(sets)} sets of values linted, rendered into {count} objects, valid for Kubernetes "
                  f"{', '.join(VERSIONS)}, restricted; {len(REFUSED)} bad ones refused")
    else:
        sys.exit(__doc__)
    for failure in failures:
        print(f"chart: {failure}", file=sys.stderr)
    sys.exit(bool(failures))


main(sys.argv[1:])
