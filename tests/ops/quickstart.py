"""Follows docs/quickstart.md: runs its shell blocks as they stand, section by section, looks for what a
newcomer should then see, and opens the pages it sends him to in headless Chromium.

    quickstart.py BINARY WORK

In place of the build the binary is put on the path, and Kafka is where TRACER_TEST_KAFKA says. What
needs Docker or a cluster is left to the other checks (live.py runs docker-compose.yml, chart.py the values
of the page). The ports are the usual ones, so it is started in a network of its own (tests/run does).
"""

import html
import os
import pathlib
import re
import subprocess
import sys

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/quickstart.md"
ELSEWHERE = ("cargo build", "docker compose", "helm install")
# A block that stays up until Ctrl-C, and what it says once it is up.
STAYS = {"tracer demo\n": "Still up"}
PATIENCE = 300


def sections(text):
    """The blocks of each section, by its number; before the first is the set-up."""
    parts = re.split(r"^## (\d)\. .*$", text, flags=re.M)
    blocks = lambda part: [b for b in re.findall(r"^```sh\n(.*?)^```", part, re.M | re.S) if not b.startswith(ELSEWHERE)]
    return {int(number): blocks(part) for number, part in zip(parts[1::2], parts[2::2])}


def script(blocks, before_the_end):
    """One shell for a section. What it leaves in the background ends as it should."""
    lines, jobs = ["set -eum"], "started=$(jobs -p)"
    for block in blocks:
        if said := STAYS.get(block):
            lines += [f"{block.strip()} >stays.out 2>&1 &", f"until grep -q '{said}' stays.out; do kill -0 %1; sleep 0.2; done"]
        else:
            head, kill, tail = block.partition("kill %1")
            lines += [head, *([before_the_end, jobs, kill + tail] if kill else [])]
    if STAYS.keys() & set(blocks):
        lines += [jobs, "kill -INT %1"]
    return "\n".join([*lines, 'for pid in ${started:-}; do wait "$pid"; done'])


class Newcomer:
    def __init__(self, binary, work):
        self.work = work
        path = work / "bin"
        path.mkdir()
        (path / "tracer").symlink_to(binary)
        self.environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}

    def follows(self, blocks, before_the_end=""):
        done = subprocess.run(["bash", "-c", script(blocks, before_the_end)], cwd=self.work, env=self.environment, timeout=PATIENCE,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        assert done.returncode == 0, f"ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def opens(self, address, *wanted):
        """A page as Chromium shows it, with nothing that a page's script would complain of."""
        done = subprocess.run([*CHROMIUM, "--dump-dom", address], cwd=self.work, capture_output=True, text=True, timeout=120, check=True)
        assert "CONSOLE" not in done.stderr, done.stderr
        text = html.unescape(re.sub(r"<[^>]+>", " ", done.stdout.replace("<wbr>", "")))
        missing = [words for words in wanted if words not in text]
        assert not missing, f"{address} does not show {missing}"
        return done.stdout.count("<svg")


CHROMIUM = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--log-level=0"]


def shows(said, *wanted):
    for expression in wanted:
        assert re.search(expression, said, re.M), f"{said}\n{expression!r} is not in it"


def main(binary, work):
    steps = sections(PAGE.read_text())
    assert list(steps) == [1, 2, 3, 4, 5], f"sections {list(steps)}"
    newcomer, handled = Newcomer(binary, work), r"^handled +track_delivery$"

    shows(newcomer.follows(steps[1]), handled, r'^tracer_coverage_ratio\{task="support"\} 0\.[5-9]')
    demo = (work / "stays.out").read_text()
    assert (work / "traces.jsonl").read_text().count("\n") == 6000
    shows(demo, r"^ +\d+ +6000 +passed", r"report of the latest refit, in a browser: /")

    said = newcomer.follows(steps[2])
    shows(said, r"^ +95\s%.*certifiable now", r"^ +0\.9 .*passed")
    plots = newcomer.opens((work / "scan.html").as_uri(), "support")

    # The console is there as long as it runs.
    console = "while ! curl -sf localhost:8080/ >/dev/null; do kill -0 %1; sleep 0.2; done; " + " ".join([*CHROMIUM, "--dump-dom",
              "http://localhost:8080/", ">console.html", "2>console.log"])
    said = newcomer.follows(steps[3], console)
    # What is asked for may come after what is due: version 1 or 2.
    series = [r'coverage_ratio\{task="support"\} 1$', r'teacher_agreement_lower\{task="support",kind="shadow"\} 0\.9',
              r'pipeline_version\{task="support"\} [12]$', r'routes_total\{task="support",decision="handled",reason=""\} 1$']
    shows(said, r"6000 rows", r"^support passed: version [12]$", handled, *(f"^tracer_{line}" for line in series))
    assert "support" in (work / "console.html").read_text() and "CONSOLE" not in (work / "console.log").read_text()
    report = re.findall(r"^tracer-data/\S+report\.html$", said, re.M)[-1]
    plots += newcomer.opens((work / report).as_uri(), "support", "track_delivery")
    assert plots > 3, f"{plots} plots in both reports"

    broker = os.environ["TRACER_TEST_KAFKA"]
    assert any("localhost:9092" in block for block in steps[4])
    shows(newcomer.follows([block.replace("localhost:9092", broker) for block in steps[4]]), r"6000 traces sent", r"^support passed: version [12]$",
          handled)
    print(f"quickstart: {sum(map(len, steps.values()))} blocks followed, from nothing to a certified version on Kafka; "
          f"{said.count('tracer_')} series in the terminal, console and reports ({plots} plots) in Chromium")


main(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve())
