"""Walks the runbooks of what serves: versions, and what the router does with them."""

import hashlib
import json
import re
import subprocess
import time

from walk import TASK


class Versions:
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

    def task_suspended(self):
        """Somebody suspends the task."""
        self.tracer("suspend", "--task", TASK, "--author", "somebody", "--reason", "the labels are being renamed")
        self.fires("TaskSuspended")
        last = self.deployments()[-1]
        assert (last["author"], last["event"]["kind"]) == ("somebody", "suspended"), last
        assert "labels are being renamed" in json.dumps(last), last
        answer = self.services.inside("demo", ["tracer", "route", "--task", TASK, "--json", "--", "where is my parcel?"],
                                      stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        said = json.loads(answer.communicate(timeout=60)[0])
        assert said["reason"] == "suspended", said
        self.tracer("resume", "--task", TASK, "--reason", "they are renamed")
        self.resolved("TaskSuspended")
        return "the log said that somebody did it, and why; they were asked, and the task was resumed"

    def version_not_loaded(self):
        """A model is gone from the store when a replica starts."""
        version = int(self.value(f'tracer_pipeline_version{{task="{TASK}"}}'))
        model = f"pipelines/{TASK}/v{version:06}/model.safetensors"
        content = self.object(model)
        self.object(model, "DELETE")
        self.again("inference")
        self.fires("VersionNotLoaded")
        status, said = self.readyz("inference")
        line = next((line for line in said.splitlines() if f"task {TASK}: version {version} cannot be loaded" in line), None)
        assert line, f"{status} {said}"
        self.object(model, "PUT", content)
        self.resolved("VersionNotLoaded")
        self.sees(f"version {version} serves", lambda: self.value(f'tracer_pipeline_version{{task="{TASK}"}}') == version)
        return f"readyz said {line.strip()!r}; the object was restored"

    def agreement_below_target(self):
        return f"{self.shadow_below_target()}. Then, live: {self.live_below_target()}"

    def kinds_below_target(self):
        return [alert["labels"]["kind"] for alert in self.prometheus.api("alerts")["alerts"]
                if alert["labels"]["alertname"] == "TracerAgreementBelowTarget"]

    def shadow_below_target(self):
        """Somebody publishes, past the gate, a version that says itself that it agrees too little."""
        log = self.deployments()
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
        assert self.kinds_below_target() == ["shadow"], self.kinds_below_target()
        last = [entry for entry in self.deployments() if entry["event"]["kind"] == "published"][-1]
        assert last["author"] == "somebody" and last["event"]["version"] == bad, last
        self.tracer("rollback", "--task", TASK, "--to", str(good), "--reason", "a test")
        self.resolved("AgreementBelowTarget")
        return f"the log said that somebody published version {bad}; the task was rolled back to {good}"

    def live_below_target(self):
        """The teacher calls a label otherwise, and nobody suspends the task."""
        version = int(self.value(f'tracer_pipeline_version{{task="{TASK}"}}'))
        self.again("trainer", TRACER__TASK_DEFAULTS__AUTO_SUSPEND="false")
        traces = [json.loads(trace) for trace in self.traces]
        old = traces[0]["teacher"]
        renamed = [{"task": TASK, "input": trace["input"], "teacher": f"{old}-renamed"} for trace in traces if trace["teacher"] == old]
        echo = {"pipeline_version": version, "decision": "handled", "label": old, "score": 0.99, "audit": True, "propensity": 0.02}
        self.replay(json.dumps({**trace, "routing": echo}) for trace in renamed[:20])
        self.fires("AgreementBelowTarget")
        assert self.kinds_below_target() == ["live"], self.kinds_below_target()
        assert self.value(f'tracer_live_evidence_ratio{{task="{TASK}"}}') >= 1
        assert self.said("trainer", "the promise is broken, but auto_suspend is off"), self.services.log("trainer")
        # Until then handle less.
        self.tracer("suspend", "--task", TASK, "--reason", "the teacher has changed")
        self.resolved("AgreementBelowTarget")
        assert self.value(f'tracer_live_evidence_ratio{{task="{TASK}"}}') >= 1
        # Everything is deferred now: what comes is a fair sample of what the teacher says.
        now = [json.dumps({"task": TASK, "input": trace["input"], "teacher": trace["teacher"].replace(old, f"{old}-renamed")}) for trace in traces]
        self.stored(now)
        self.tracer("refit", "--task", TASK, "--reason", "the teacher has changed", "--wait")
        self.sees("a later version serves", lambda: self.value(f'tracer_pipeline_version{{task="{TASK}"}}') > version)
        self.sees("it is suspended no more", lambda: self.value(f'tracer_pipeline_suspended{{task="{TASK}"}}') == 0)
        self.sees("there is no evidence against it", lambda: self.value(f'tracer_live_evidence_ratio{{task="{TASK}"}}') < 1)
        self.resolved("AgreementBelowTarget")
        self.again("trainer", TRACER__TASK_DEFAULTS__AUTO_SUSPEND=None)
        return "audits proved it; the task was suspended, and the refit on what came meanwhile ended that"

    def version_skew(self):
        """A second replica loses its way to the store, and a version is published."""
        second = self.second("inference")
        route = ["ip", "netns", "exec", second, "ip", "route"]
        subprocess.run([*route, "add", "blackhole", self.services.address["s3"]], check=True)
        before = int(self.value(f'tracer_pipeline_version{{task="{TASK}"}}'))
        self.tracer("pipelines", "export", "--task", TASK, "--out", "/tmp/version.tar")
        self.tracer("pipelines", "import", "/tmp/version.tar", "--reason", "a test")
        self.fires("VersionSkew")
        behind = {series["metric"]["instance"] for series in
                  self.prometheus.api("query", query=f'tracer_pipeline_version{{task="{TASK}"}} == {before}')["result"]}
        assert behind == {f"{self.services.address[second]}:8080"}, behind
        self.sees("readyz says that the registry cannot be read", lambda: "cannot be read" in self.readyz(second)[1])
        status, said = self.readyz(second)
        assert status == 200, f"it serves on, and is ready: {status} {said}"
        # The restart that the page names: it comes back the same, and gets no traffic.
        self.services.stop(second)
        self.services.start(second)
        self.sees("the replica is not ready", lambda: self.readyz(second)[0] == 503 and "registry cannot be read" in self.readyz(second)[1])
        subprocess.run([*route, "del", "blackhole", self.services.address["s3"]], check=True)
        self.services.wait(second, "service_healthy")
        self.resolved("VersionSkew")
        self.without(second)
        return (f"{said.strip().splitlines()[-1]!r} said the replica at version {before}; it came back from a restart the same, "
                "unready; with the way to the store it took over the latest")


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
