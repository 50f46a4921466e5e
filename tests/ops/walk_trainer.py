"""Walks the runbooks of the trainer: refits, and the watch over the audits."""

import contextlib
import http.server
import json
import signal
import threading
import time
import urllib.error

# A task beside the demo's. Its labels are nothing that could be learned, so that no version
# of it is ever published; its texts are embedded by a server that can be slow.
OTHER = "other"


class Embedder:
    """An embedding server that takes its time, of the kind that text-embeddings-inference is."""

    def __init__(self, address):
        self.seconds = 0.0
        embedder = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["inputs"]
                time.sleep(embedder.seconds)
                body = json.dumps([[len(text), text.count("e"), text.count("a"), 1.0] for text in texts]).encode()
                # Whoever asked may be gone.
                with contextlib.suppress(OSError):
                    self.send_response(200)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer((address, 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://{address}:{server.server_port}"


class Trainer:
    def refit_failing(self):
        """A shard is damaged."""
        where = "traces/traces"
        partition = sorted(self.listed(where))[0]
        shard = sorted(name for name in self.listed(f"{where}/{partition}") if name.endswith(".parquet"))[0]
        path = f"{where}/{partition}/{shard}"
        content = self.object(path)
        self.object(path, "PUT", damaged(content))
        # As many as make a refit due: one that is asked for is tried once.
        self.replay(self.traces)
        self.fires("RefitFailing")
        said = self.said("trainer", "refit failed")
        assert said, self.services.log("trainer")
        verified = self.tracer("shards", "verify", code=1)
        assert shard.removesuffix(".parquet").lstrip("0") in verified or shard in verified, verified
        self.object(path, "PUT", content)
        self.tracer("shards", "verify")
        self.resolved("RefitFailing")
        return f"the log said {json.loads(said[-1])['error']!r}; tracer shards verify named the shard; it was restored"

    def audits_not_read(self):
        """A shard that came after the version is damaged."""
        where = "traces/traces"
        shards = lambda: {f"{where}/{partition}/{name}" for partition in self.listed(where)
                          for name in self.listed(f"{where}/{partition}") if name.endswith(".parquet")}
        code = self.services.stop("trainer")
        assert code == 0, f"the trainer ended with {code}:\n{self.services.log('trainer')}"
        before = shards()
        self.stored(self.traces[:60])
        path = sorted(shards() - before)[-1]
        content = self.object(path)
        self.object(path, "PUT", damaged(content))
        self.again("trainer", TRACER__TRAINER__POLL_INTERVAL_MS="1000")
        self.fires("AuditsNotRead")
        said = self.said("trainer", "cannot look at the audits, trying again")
        assert said, self.services.log("trainer")
        verified = self.tracer("shards", "verify", code=1)
        assert path.split("/")[-1] in verified, verified
        self.object(path, "PUT", content)
        self.tracer("shards", "verify")
        self.resolved("AuditsNotRead")
        self.again("trainer", TRACER__TRAINER__POLL_INTERVAL_MS=None)
        return f"the log said {json.loads(said[-1])['error']!r}; tracer shards verify named the shard; it was restored"

    # A refit that takes long ------------------------------------------------------------

    def unlearnable(self, count):
        """Traces of the other task, of texts that were not embedded yet."""
        self.made = getattr(self, "made", 0)
        texts = [json.loads(trace)["input"] for trace in self.traces[:count]]
        traces = [json.dumps({"task": OTHER, "input": f"{text} {self.made + number}", "teacher": "yn"[number % 2]})
                  for number, text in enumerate(texts)]
        self.made += count
        return traces

    def with_slow_embedder(self, **settings):
        """The trainer embeds the other task's texts, 16 in two seconds, and looks more often."""
        if not hasattr(self, "embedder"):
            self.embedder = Embedder("10.99.0.254")
        self.embedder.seconds = 2.0
        task = f"TRACER__TASKS__{OTHER.upper()}__"
        self.slow = {f"{task}EMBEDDER__KIND": "http", f"{task}EMBEDDER__API": "tei", f"{task}EMBEDDER__NAME": "slow",
                     f"{task}EMBEDDER__URL": self.embedder.url, f"{task}EMBEDDER__DIMENSION": "4",
                     f"{task}EMBEDDER__MAX_BATCH": "16", f"{task}REFIT_AFTER_TRACES": "200",
                     f"{task}CANDIDATES__ONLY": '["dense_logistic"]', "TRACER__TRAINER__POLL_INTERVAL_MS": "1000", **settings}
        self.again("trainer", **self.slow)

    def end_slow_embedder(self):
        """The embedder is quick again, and the refit gets to its end."""
        self.embedder.seconds = 0.0
        self.sees("the refit ends", lambda: not self.stage(OTHER))

    def forget_slow_embedder(self):
        self.again("trainer", **dict.fromkeys(self.slow))

    def stage(self, task):
        """What the refit of a task is at; None without one."""
        series = self.prometheus.api("query", query=f'tracer_refit_stage{{task="{task}"}} == 1')["result"]
        return series[0]["metric"]["stage"] if series else None

    def lease(self, task):
        """The last entry of a task's lease."""
        while True:
            last = max(name for name in self.listed(f"leases/{task}") if name.endswith(".json"))
            try:
                return json.loads(self.object(f"leases/{task}/{last}"))
            except urllib.error.HTTPError as error:
                # It was renewed just now.
                assert error.code == 404, error

    def holder(self, task):
        """The service whose process has a task; None without one."""
        lease = self.lease(task)
        names = [name for name, process in self.services.processes.items() if lease["holder"].startswith(f"{name}-{process.pid}-")]
        return names[0] if lease["held"] and names else None

    def refit_overdue(self):
        """The only trainer is busy with another task."""
        self.with_slow_embedder()
        # Both are due when it looks next, and what is asked for comes first.
        trainer = self.services.processes["trainer"]
        trainer.send_signal(signal.SIGSTOP)
        self.stored(self.traces + self.unlearnable(400))
        self.tracer("refit", "--task", OTHER, "--reason", "a test")
        trainer.send_signal(signal.SIGCONT)
        self.fires("RefitOverdue")
        late = {alert["labels"]["task"] for alert in self.prometheus.api("alerts")["alerts"]
                if alert["labels"]["alertname"] == "TracerRefitOverdue"}
        assert late == {"support"}, late
        status, said = self.readyz("trainer")
        assert status == 200, said
        assert self.stage(OTHER) == "reading" and not self.stage("support")
        assert not self.lease("support")["held"], self.lease("support")
        second = self.second("trainer")
        self.resolved("RefitOverdue")
        assert [line for line in self.said(second, "refit begins") if json.loads(line)["task"] == "support"], self.services.log(second)
        assert self.stage(OTHER) == "reading", "the first one is no longer busy: it may have been that"
        self.end_slow_embedder()
        self.sees("the refit of support ends", lambda: not self.stage("support"))
        self.without(second)
        self.forget_slow_embedder()
        return "the only trainer was busy with another task, as the stage of that said; a second replica took the task"

    def refit_stuck(self):
        """An embedder is slow."""
        self.with_slow_embedder()
        self.stored(self.unlearnable(800))
        self.fires("RefitStuck")
        self.sees("a line of the log", lambda: self.said("trainer", r'"refit"| refit '))
        line = json.loads(self.said("trainer", r'"refit"| refit ')[-1])
        assert (line["task"], line["stage"], line["step"]) == (OTHER, "reading", "embedding"), line
        assert line["total"] - line["done"] > 100, line
        # A restart alone begins the same again.
        code = self.services.stop("trainer")
        assert code == 0, f"the trainer ended with {code}:\n{self.services.log('trainer')}"
        assert not self.lease(OTHER)["held"], self.lease(OTHER)
        self.services.up(["trainer"])
        self.sees("the refit begins anew", lambda: self.lease(OTHER)["held"])
        self.fires("RefitStuck")
        self.end_slow_embedder()
        self.resolved("RefitStuck")
        assert [line for line in self.said("trainer", "refit refused") if json.loads(line)["task"] == OTHER], self.services.log("trainer")
        self.forget_slow_embedder()
        return (f"the log said {line['step']} {line['done']} of {line['total']}: the embedder was slow; "
                "a restart gave the task back and began anew, and with a quick embedder the refit got to its end")

    def trainer_lost(self):
        """A trainer is killed in a refit; the one that takes over gets no CPU for a while."""
        self.with_slow_embedder(TRACER__TRAINER__LEASE_MS="3000")
        self.second("trainer")
        takeovers = lambda: self.value(f'sum(tracer_refit_takeovers_total{{task="{OTHER}"}})')
        self.stored(self.unlearnable(800))
        self.sees("the refit is under way", lambda: self.stage(OTHER) and self.holder(OTHER))
        first = self.holder(OTHER)
        lost = [self.lease(OTHER)["holder"]]
        self.services.stop(first, how=signal.SIGKILL)
        self.sees("another takes it over", lambda: self.holder(OTHER) and takeovers() == 1)
        second = self.holder(OTHER)
        assert second != first, first
        self.again(first)
        lost.append(self.lease(OTHER)["holder"])
        self.services.processes[second].send_signal(signal.SIGSTOP)
        self.sees("it is taken over again", lambda: self.holder(OTHER) == first)
        self.services.processes[second].send_signal(signal.SIGCONT)
        self.fires("TrainerLost")
        # Who had it: one pod is gone, the other one runs on and says nothing.
        named = [json.loads(line)["from"] for name in (first, second)
                 for line in self.said(name, "its trainer has not been heard of for too long: taking over")]
        assert sorted(named) == sorted(lost), (named, lost)
        assert self.services.processes[second].poll() is None
        assert not self.said(second, "cannot renew the lease"), self.services.log(second)
        # A longer lease: the same is no loss any more.
        self.slow.update(TRACER__TRAINER__LEASE_MS="30000")
        for name in (second, first):
            self.again(name, healthy=False, **self.slow)
        self.sees("the refit is under way", lambda: self.holder(OTHER))
        third = self.lease(OTHER)["holder"]
        process = self.services.processes[self.holder(OTHER)]
        process.send_signal(signal.SIGSTOP)
        time.sleep(8)
        process.send_signal(signal.SIGCONT)
        self.end_slow_embedder()
        self.resolved("TrainerLost")
        assert self.lease(OTHER)["holder"] == third, "the task was taken over all the same"
        self.without("trainer-2")
        self.forget_slow_embedder()
        return (f"the log named {lost[0]!r}, which was gone, and {lost[1]!r}, which ran on and said nothing: it was without CPU; "
                "with a longer lease the same took the task from nobody")


def damaged(shard):
    """Whole at its ends, so that it is the rows that cannot be read."""
    footer = int.from_bytes(shard[-8:-4], "little") + 8
    return shard[:4] + bytes(len(shard) - 4 - footer) + shard[-footer:]
