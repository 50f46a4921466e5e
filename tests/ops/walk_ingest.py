"""Walks the runbooks of ingest, of load and of processes that end."""

import json
import re
import signal
import subprocess

from walk import TASK


class Ingest:
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
        assert self.said("aggregator", "cannot write a shard"), self.services.log("aggregator")
        self.services.up(["s3"])
        self.services.wait("s3", "service_healthy")
        self.resolved("Lag")
        self.sees("the lag is 0", lambda: self.value("tracer_consumer_lag") == 0)
        self.sees("readyz is 200", lambda: self.readyz("aggregator")[0] == 200)
        return f"readyz said {said.strip().splitlines()[-1]!r}; the store came back, and the lag went to 0 by itself"

    def dead_letters(self):
        """The limit of inputs is shorter than what comes."""
        listed = lambda: json.loads(self.tracer("dead-letters", "list", "--json"))
        stored, letters = self.rows(), listed()["letters"]
        self.again("aggregator", TRACER__LIMITS__MAX_INPUT_BYTES="10")
        sent = self.traces[:400]
        self.replay(sent)
        self.fires("DeadLetters")
        self.sees("all of them are dead letters", lambda: listed()["letters"] == letters + len(sent))
        found = listed()
        (reason,) = found["by_reason"]
        error = found["shown"][-1]["error"]
        assert "input" in error and "10" in error, error
        assert self.value(f'sum(increase(tracer_traces_rejected_total{{reason="{reason}"}}[5m]))') > 0, reason
        self.again("aggregator", TRACER__LIMITS__MAX_INPUT_BYTES=None)
        replayed = json.loads(self.tracer("dead-letters", "replay", "--json"))
        assert replayed["sent"] == len(sent), (replayed, found)
        self.sees("what was rejected is stored", lambda: self.rows() == stored + len(sent))
        self.resolved("DeadLetters")
        again = json.loads(self.tracer("dead-letters", "replay", "--json"))
        assert again["sent"] == 0, again
        return f"the letters said {error!r}; the limit was raised, and {replayed['sent']} were sent back, once"

    def position_lost(self):
        """Records are removed before they are read."""
        code = self.services.stop("aggregator")
        assert code == 0, f"the aggregator ended with {code}:\n{self.services.log('aggregator')}"
        self.replay(self.traces[:600])
        everything = [{"topic": "traces", "partition": partition, "offset": -1} for partition in range(3)]
        self.services.kafka("kafka-delete-records", "--offset-json-file removed",
                            removed=json.dumps({"partitions": everything, "version": 1}))
        self.services.up(["aggregator"])
        self.fires("PositionLost")
        said = self.readyz("aggregator")[1]
        assert "records were removed before they were read" in said, said
        # Those of a partition that comes late are found later.
        wanted, reset = self.rows() + 60, set()
        self.replay(self.traces[:60])

        def reads_on():
            for partition in set(re.findall(r"traces-(\d+): the log has ", self.readyz("aggregator")[1])) - reset:
                self.tracer("aggregator", "reset", "--topic", "traces", "--partition", partition, "--to", "beginning", "--reason", "a test")
                reset.add(partition)
            return self.rows() == wanted

        self.sees("all partitions are read again", reads_on)
        self.resolved("PositionLost")
        self.services.wait("aggregator", "service_healthy")
        return f"readyz said that records were removed before they were read; {len(reset)} partitions were reset, none was stopped for it"

    def source_failing(self):
        self.services.stop("kafka", how=signal.SIGKILL)
        self.fires("SourceFailing")
        status, said = self.readyz("aggregator")
        line = next((line for line in said.splitlines() if "kafka: no broker answers" in line), None)
        assert line, f"{status} {said}"
        self.services.up(["kafka"])
        self.services.wait("kafka", "service_healthy")
        self.resolved("SourceFailing")
        self.sees("readyz is 200", lambda: self.readyz("aggregator")[0] == 200)
        return f"readyz said {line.strip()!r}; Kafka came back, and the aggregator went on by itself"

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

    def replica_down(self):
        """A replica is configured wrongly, and does not start any more."""
        self.services.stop("inference")
        settings = self.services.services["inference"]["environment"]
        settings["TRACER__INFERENCE__MAX_BATCH"] = "0"
        self.services.start("inference")
        code = self.services.processes.pop("inference").wait(60)
        self.fires("ReplicaDown")
        said = self.said("inference", "TRACER__INFERENCE__MAX_BATCH|inference.max_batch")
        assert code == 64 and said, f"it ended with {code}: {self.services.log('inference')}"
        self.again("inference", TRACER__INFERENCE__MAX_BATCH=None)
        self.resolved("ReplicaDown")
        return f"it ended with {code}, and its log said {said[-1].strip()!r}; that was corrected"
