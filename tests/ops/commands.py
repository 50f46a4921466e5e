"""Every command of Tracer that a page of documentation names is there, with its flags.

    commands.py TRACER
"""

import functools
import pathlib
import re
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[2]
# Between `tracer` and the end of the command.
COMMAND = re.compile(r"(?:^|[\s(;&]|\./)(?<!install )tracer ((?:[a-z-]|\$\(|--[a-z])[^|;&>#\n`)]*)")


@functools.cache
def help_of(tracer, *words):
    """What `--help` says; None where there is no such command."""
    ended = subprocess.run([tracer, *words, "--help"], capture_output=True, text=True)
    return ended.stdout if ended.returncode == 0 else None


def subcommands(text):
    section = re.search(r"^Commands:\n(.*?)(\n\n|\Z)", text, re.M | re.S)
    return re.findall(r"^  ([a-z-]+)", section[1], re.M) if section else []


def wrong(tracer, command):
    words, path = command.split(), []
    while words and (known := subcommands(help_of(tracer, *path))):
        if words[0].startswith("-"):
            break
        if words[0] not in known:
            return f"there is no command {' '.join([*path, words[0]])!r}"
        path.append(words.pop(0))
    text = help_of(tracer, *path)
    for flag in (re.match(r"(--?[a-zA-Z-]+)", word)[1] for word in words if re.match(r"--?[a-zA-Z]", word)):
        if not re.search(rf"(^|[\s,]){re.escape(flag)}\b", text):
            return f"`tracer {' '.join(path)}` has no {flag}"
    return None


def commands(page):
    text = page.read_text()
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", text, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            yield from (found[1] for found in COMMAND.finditer(line.split(" #")[0]))
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
    for code in re.findall(r"`(tracer [^`]*)`", prose):
        yield code.replace("\n", " ").removeprefix("tracer ")


def main(tracer):
    # Code and changelog speak of commands in other ways.
    pages = [SOURCE / "README.md", *(SOURCE / "docs").rglob("*.md"), *(SOURCE / "helm").rglob("*.md")]
    bad, count = [], 0
    for page in pages:
        for command in commands(page):
            # `tracer COMMAND`, and patterns of several commands.
            if re.match(r"[A-Z<]", command) or "|" in command.split()[0]:
                continue
            count += 1
            if why := wrong(tracer, command):
                bad.append(f"{page.relative_to(SOURCE)}: tracer {command.strip()}: {why}")
    assert wrong(tracer, "no-such-command") and wrong(tracer, "scan --no-such-flag x") and not wrong(tracer, "scan x --html y")
    if bad:
        sys.exit("commands:\n  " + "\n  ".join(bad))
    print(f"commands: {count} in {len(pages)} pages, and each is there with its flags")


main(sys.argv[1])
