"""Walks runbooks: each alert here is caused on the running stack, seen to fire, and resolved by
what its page says.

The rules are those of the installation with shorter times, as hours cannot be waited for;
which windows make sense is promtool's to say (alerts.yml).
"""

import hashlib
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
SECOND = "inference-2"


def files():
    return {PROMETHEUS: (monitoring.ROOT / "compose/prometheus.yml").read_text(),
            RULES: (monitoring.MONITORING / "rules.yml").read_text()}


def shortened(rules):
    rules = re.sub(r"(?<=for: )\w+", "4s", rules)
    rules = re.sub(r"(?<=interval: )\w+", "2s", rules)
    rules = re.sub(r"(?<=[^\w\[]offset )(\w+)", lambda found: SHORTER[found[1]], rules)
    return re.sub(r"(?<=\[)(\d+[smhd])(?=\])", lambda found: SHORTER[found[1]], rules)


class Walks:
    # Loads come after what looks at coverage: they ask far more, of what nothing is known.
    ALERTS = ["CoverageDrop", "NoTraces", "Lag", "RefitFailing", "ShedLoad", "AgreementBelowTarget", "VersionSkew"]

    def __init__(self, services, prometheus):
        """Before anything removes the traces of the demo from Kafka."""
        self.services, self.prometheus = services, prometheus
        said = services.kafka("kafka-console-consumer", "--topic traces --from-beginning --timeout-ms 15000 2>/dev/null")
        self.traces = [line for line in said.splitlines() if line.startswith('{"')]
        assert len(self.traces) > 2000, f"{len(self.traces)} traces of the demo"

    # What every walk needs -------------------------------------------------------------

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

    def log(self):
        """The deployment log of the task."""
        names = sorted(self.listed(f"pipelines/{TASK}/log"))
        return [json.loads(self.object(f"pipelines/{TASK}/log/{name}")) for name in names if name.endswith(".json")]

    def again(self, name, **environment):
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
        self.services.wait(name, "service_healthy")

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

    # The runbooks -----------------------------------------------------------------------

    def coverage_drop(self):
        """A caller sends what is unlike the traces, and then what it sent before."""
        usual = [json.loads(trace)["input"] for trace in self.traces[:400]]
        coverage = f'installation_task:tracer_coverage:ratio_rate1d{{task="{TASK}"}}'
        caller = self.ask(usual)
        began = time.time()
        # The alert looks at what was usual an hour (here a minute) ago.
        self.sees("coverage of a minute ago", lambda: self.value(f"{coverage} offset 1m") > 0.1 and time.time() > began + 20)
        usually = self.value(coverage)
        self.services.end(caller)
        caller = self.ask([f"wo bleibt denn bloss mein bestelltes paeckchen nummer {n} ?" for n in range(100)])
        self.fires("CoverageDrop")
        reasons = {reason: self.value(f'sum(increase(tracer_routes_total{{task="{TASK}",decision="deferred",reason="{reason}"}}[30s]))')
                   for reason in ("low_score", "out_of_distribution", "suspended", "no_pipeline", "no_embedding", "embedder_mismatch", "no_text")}
        grown = max(reasons, key=reasons.get)
        assert grown in ("out_of_distribution", "low_score") and reasons[grown] > 10, reasons
        self.services.end(caller)
        caller = self.ask(usual)
        self.resolved("CoverageDrop")
        self.services.end(caller)
        return f"coverage was {usually:.2f}; another language came, {grown} grew; the caller was corrected"

    def no_traces(self):
        self.replay(self.traces[:50])
        self.fires("NoTraces")
        status, said = self.readyz("aggregator")
        assert status == 200, said
        assert self.value("tracer_consumer_lag") == 0, "there is a lag: somebody writes"
        self.replay(self.traces[:50])
        self.resolved("NoTraces")
        return "readyz was 200 and the lag 0: the producer was started again"

    def lag(self):
        """The store does not answer while traces come."""
        self.services.stop("s3", how=signal.SIGKILL)
        self.replay(self.traces * 3)
        self.fires("Lag")
        self.sees("readyz is 503", lambda: self.readyz("aggregator")[0] == 503)
        said = self.readyz("aggregator")[1]
        assert "cannot write a shard" in self.services.log("aggregator", 200), self.services.log("aggregator")
        self.services.up(["s3"])
        self.services.wait("s3", "service_healthy")
        self.resolved("Lag")
        self.sees("the lag is 0", lambda: self.value("tracer_consumer_lag") == 0)
        self.sees("readyz is 200", lambda: self.readyz("aggregator")[0] == 200)
        return f"readyz said {said.strip().splitlines()[-1]!r}; the store came back, and the lag went to 0 by itself"

    def refit_failing(self):
        """A shard is damaged."""
        where = "traces/traces"
        partition = sorted(self.listed(where))[0]
        shard = sorted(name for name in self.listed(f"{where}/{partition}") if name.endswith(".parquet"))[0]
        path = f"{where}/{partition}/{shard}"
        content = self.object(path)
        # Whole at its ends, so that it is the rows that cannot be read.
        half = len(content) // 2
        self.object(path, "PUT", content[:half] + bytes(64) + content[half + 64:])
        # As many as make a refit due: one that is asked for is tried once.
        self.replay(self.traces)
        self.fires("RefitFailing")
        said = [line for line in self.services.log("trainer", 400).splitlines() if "refit failed" in line]
        assert said, self.services.log("trainer")
        verified = self.tracer("shards", "verify", code=1)
        assert shard.removesuffix(".parquet").lstrip("0") in verified or shard in verified, verified
        self.object(path, "PUT", content)
        self.tracer("shards", "verify")
        self.resolved("RefitFailing")
        return f"the log said {json.loads(said[-1])['error']!r}; tracer shards verify named the shard; it was restored"

    def shed_load(self):
        """More callers than are let in."""
        self.again("inference", TRACER__INFERENCE__MAX_IN_FLIGHT="2")
        bench = ["tracer", "bench", "route", "--addr", "http://inference:50051", "--task", TASK, "--rounds", "100", "--seconds", "1"]
        load = lambda: self.services.inside("demo", bench, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        caller = load()
        self.fires("ShedLoad")
        reasons = {reason: self.value(f'sum(increase(tracer_requests_rejected_total{{reason="{reason}"}}[30s]))')
                   for reason in ("overloaded", "deadline_exceeded")}
        assert reasons["overloaded"] > 10, reasons
        self.services.end(caller)
        self.again("inference", TRACER__INFERENCE__MAX_IN_FLIGHT=None)
        caller = load()
        self.resolved("ShedLoad")
        self.services.end(caller)
        return f"{reasons['overloaded']:.0f} refused as overloaded within half a minute; the limit was raised, the load stayed"

    def agreement_below_target(self):
        """Somebody publishes, past the gate, a version that says itself that it agrees too little."""
        log = self.log()
        versions = [int(name[1:]) for name in self.listed(f"pipelines/{TASK}") if re.fullmatch(r"v\d+", name)]
        good = int(self.value(f'tracer_pipeline_version{{task="{TASK}"}}'))
        bad = max(versions) + 1
        old, new = (f"pipelines/{TASK}/v{version:06}" for version in (good, bad))
        manifest = json.loads(self.object(f"{old}/manifest.json"))
        low = {"agreement": 0.85, "agreement_lower": 0.82}
        for name, entry in manifest["files"].items():
            content = self.object(f"{old}/{name}")
            if name == "model.safetensors":
                content = with_shadow(content, low)
                entry.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
            self.object(f"{new}/{name}", "PUT", content)
        manifest.update(version=bad, author="somebody")
        manifest["shadow"].update(low)
        self.object(f"{new}/manifest.json", "PUT", json.dumps(manifest).encode())
        seq = log[-1]["seq"] + 1
        entry = {**log[-1], "seq": seq, "author": "somebody", "nonce": f"test-{seq}", "event": {"kind": "published", "version": bad}}
        self.object(f"pipelines/{TASK}/log/{seq:020}.json", "PUT", json.dumps(entry).encode())
        self.fires("AgreementBelowTarget")
        kinds = [alert["labels"]["kind"] for alert in self.prometheus.api("alerts")["alerts"]
                 if alert["labels"]["alertname"] == "TracerAgreementBelowTarget"]
        assert kinds == ["shadow"], kinds
        last = [entry for entry in self.log() if entry["event"]["kind"] == "published"][-1]
        assert last["author"] == "somebody" and last["event"]["version"] == bad, last
        self.tracer("rollback", "--task", TASK, "--to", str(good), "--reason", "a test")
        self.resolved("AgreementBelowTarget")
        return f"the log said that somebody published version {bad}; the task was rolled back to {good}"

    def version_skew(self):
        """A second replica loses its way to the store, and a version is published."""
        self.services.replica(SECOND, "inference")
        self.services.up([SECOND])
        self.services.wait(SECOND, "service_healthy")
        address = self.services.address[SECOND]
        self.configure(lambda text: text.replace('"inference:8080"', f'"inference:8080", "{address}:8080"'))
        self.sees("both replicas are scraped", lambda: self.value("count(tracer_pipeline_suspended{task='support'})") == 2)
        route = ["ip", "netns", "exec", SECOND, "ip", "route"]
        subprocess.run([*route, "add", "blackhole", self.services.address["s3"]], check=True)
        before = int(self.value(f'tracer_pipeline_version{{task="{TASK}"}}'))
        self.tracer("pipelines", "export", "--task", TASK, "--out", "/tmp/version.tar")
        self.tracer("pipelines", "import", "/tmp/version.tar", "--reason", "a test")
        self.fires("VersionSkew")
        behind = {series["metric"]["instance"] for series in
                  self.prometheus.api("query", query=f'tracer_pipeline_version{{task="{TASK}"}} == {before}')["result"]}
        assert behind == {f"{address}:8080"}, behind
        self.sees("readyz says that the registry cannot be read", lambda: "cannot be read" in self.readyz(SECOND)[1])
        status, said = self.readyz(SECOND)
        assert status == 200, f"it serves on, and is ready: {status} {said}"
        # The restart that the page names: it comes back the same, and gets no traffic.
        self.services.stop(SECOND)
        self.services.start(SECOND)
        self.sees("the replica is not ready", lambda: self.readyz(SECOND)[0] == 503 and "registry cannot be read" in self.readyz(SECOND)[1])
        subprocess.run([*route, "del", "blackhole", self.services.address["s3"]], check=True)
        self.services.wait(SECOND, "service_healthy")
        self.resolved("VersionSkew")
        return (f"{said.strip().splitlines()[-1]!r} said the replica at version {before}; it came back from a restart the same, "
                "unready; with the way to the store it took over the latest")

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
            how = getattr(self, re.sub("(?<!^)([A-Z])", r"_\1", alert).lower())()
            print(f"compose: {alert} fired, and was resolved by its runbook in {time.monotonic() - began:.0f} s: {how}", flush=True)


def with_shadow(model, shadow):
    """A model whose card says other figures of the shadow split."""
    size = int.from_bytes(model[:8], "little")
    header = json.loads(model[8:8 + size])
    pipeline = json.loads(header["__metadata__"]["tracer.pipeline"])
    pipeline["card"]["shadow"].update(shadow)
    header["__metadata__"]["tracer.pipeline"] = json.dumps(pipeline)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + model[8 + size:]
