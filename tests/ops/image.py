"""Goes through the Dockerfile without a container engine: its stages as plain commands.

    image.py WORK BUILDER ROOT

WORK is kept between runs: the build stage's directory, so that what did not change is not
built again. BUILDER and ROOT are bare Debians (debootstrap) of the releases that the build stage
and the runtime stage begin at. BUILDER has a C++ compiler, make and Python, which is less than the
build stage's image has, and is lent Rust by this machine. The binary ends up in
ROOT/usr/local/bin/tracer, where it is run as the image would run it. With TRACER_TEST_BINARY,
a file, that one takes its place, and the build stage is not run.
"""

import hashlib
import json
import os
import pathlib
import re
import shlex
import shutil
import string
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[2]


def instructions():
    """The Dockerfile as stages: a name, the image it begins at, and (word, rest) in order."""
    text = re.sub(r"^\s*#.*\n", "", (SOURCE / "Dockerfile").read_text(), flags=re.M)
    stages = []
    for line in filter(None, re.sub(r"\\\n", " ", text).splitlines()):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            image, _, name = re.fullmatch(r"(\S+)( AS (\S+))?", rest).groups()
            stages.append((name, image, []))
        else:
            stages[-1][2].append((word, rest.strip()))
    return stages


def ignored(path, patterns):
    """Whether .dockerignore leaves a file out: the last pattern that fits it, or a folder
    it is in, decides."""
    out = False
    for pattern in patterns:
        negated, pattern = pattern.startswith("!"), pattern.lstrip("!").strip("/")
        expression = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{expression}(/.*)?", path):
            out = not negated
    return out


def context(directory):
    """The files that an engine would be sent."""
    patterns = [line for line in (SOURCE / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=SOURCE,
                            check=True, capture_output=True, text=True).stdout.split("\n")
    # Folders that git does not list may be there all the same.
    files = [name for name in filter(None, listed) if (SOURCE / name).is_file() and not ignored(name, patterns)]
    for name in files:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(SOURCE / name, directory / name)
    return files


def tree(directory):
    digest = hashlib.sha256()
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(directory)} {path.stat().st_mode:o}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def overlay(origin, directory):
    """COPY: what is the same stays, so that cargo sees what changed."""
    for path in (p for p in origin.rglob("*") if p.is_file()):
        target = directory / path.relative_to(origin)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_bytes() != path.read_bytes():
            # With its time, as COPY does.
            shutil.copy2(path, target)


class Builder:
    """The build stage's image: a bare Debian with this machine's Rust, and no network. What cargo
    wants from a registry is fetched before, from outside."""

    def __init__(self, root, toolchain, work):
        self.root, self.work = root, work
        release = re.search(r'VERSION_CODENAME=(\w+)', (root / "etc/os-release").read_text())[1]
        # The image's tag is the version; the workspace asks for the same one.
        version, wanted = re.fullmatch(r"rust:([\d.]+)-(\w+)", toolchain).groups()
        assert release == wanted, f"the root is {release}, the image {toolchain}"
        assert f'channel = "{version}"' in (SOURCE / "rust-toolchain.toml").read_text(), f"the image builds with {version}"
        self.environment = {**os.environ, "RUSTUP_TOOLCHAIN": version}
        assert self.rustc("--version").split()[1] == version, f"this machine has no Rust {version}"
        self.rust = self.rustc("--print", "sysroot")
        self.cargo_home = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))

    def rustc(self, *arguments):
        said = subprocess.run(["rustc", *arguments], check=True, capture_output=True, text=True, env=self.environment)
        return said.stdout.strip()

    def run(self, command, directory, variables):
        assert directory == self.work
        subprocess.run(["cargo", "fetch", "--quiet", "--locked"], cwd=directory, check=True, env=self.environment)
        # Of this machine they see compiler and fetched crates, and change neither.
        mounts = {self.rust: ("opt/rust", "ro"), self.cargo_home / "registry": ("opt/cargo/registry", "ro"), directory: ("src", "rw"),
                  **{f"/dev/{name}": (f"dev/{name}", "rw") for name in ("null", "zero", "random", "urandom")}}
        script = "mount --make-rprivate /\n"
        for source, (target, mode) in mounts.items():
            inner = self.root / target
            make = "mkdir -p" if pathlib.Path(source).is_dir() else "touch"
            script += f"{make} {shlex.quote(str(inner))}; mount -o bind,{mode} {shlex.quote(str(source))} {shlex.quote(str(inner))}\n"
        environment = {"PATH": "/opt/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin", "CARGO_HOME": "/opt/cargo", "CARGO_NET_OFFLINE": "true",
                       "HOME": "/root", "TERM": "dumb", **variables}
        inside = ["chroot", str(self.root), "env", "-i", *(f"{key}={value}" for key, value in environment.items()),
                  "sh", "-euc", f"cd /src; {command}"]
        script += f"mount -t proc proc {shlex.quote(str(self.root / 'proc'))}\nexec {shlex.join(inside)}"
        return run(script, directory, ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"])


def run(command, directory, around=()):
    process = subprocess.Popen([*around, "sh", "-euc", command], cwd=directory, stderr=subprocess.PIPE, text=True)
    said = []
    for line in process.stderr:
        print(line, end="", file=sys.stderr, flush=True)
        said.append(line)
    assert process.wait() == 0, f"{command}: ended with {process.returncode}"
    return "".join(said)


def skeleton(stage, sent, directory):
    overlay(sent, directory)
    for word, rest in stage[2]:
        if word == "RUN":
            run(rest, directory)


def build(stages, work, root):
    by_name = {name: (name, image, steps) for name, image, steps in stages}
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        sent = scratch / "context"
        files = context(sent)
        megabytes = sum((sent / name).stat().st_size for name in files) / 1e6
        assert megabytes < 20, f"the context has {megabytes:.0f} MB"
        for secret in (".git", "target", "tests", "tracer.toml"):
            assert not (sent / secret).exists(), f"{secret} is sent to the engine"

        # The layer of the dependencies is kept over changes of the code, and of the code alone.
        skeletons = {}
        for change, name in ((None, None), ("code", "services/tracer/src/main.rs"), ("manifest", "services/tracer/Cargo.toml")):
            changed = scratch / f"context-{change}"
            shutil.copytree(sent, changed)
            if name:
                with open(changed / name, "a") as file:
                    file.write("\n# changed\n" if name.endswith("toml") else "\n// changed\n")
            directory = scratch / f"skeleton-{change}"
            skeleton(by_name["skeleton"], changed, directory)
            skeletons[change] = tree(directory)
        assert skeletons["code"] == skeletons[None], "a change of the code builds the dependencies anew"
        assert skeletons["manifest"] != skeletons[None], "a change of a manifest leaves the dependencies as they are"

        if given := os.environ.get("TRACER_TEST_BINARY"):
            return pathlib.Path(given), len(files), megabytes

        # The build stage, over what an earlier run left.
        binary = work / "target/release/tracer"
        binary.unlink(missing_ok=True)
        for old in ("libs", "services", "proto"):
            shutil.rmtree(work / old, ignore_errors=True)
        builder = Builder(root, by_name["build"][1], work)
        built, arguments, variables = 0, {}, {}
        shutil.rmtree(work / "target/sbom", ignore_errors=True)
        for word, rest in by_name["build"][2]:
            if word in ("ARG", "ENV"):
                name, _, value = rest.partition("=")
                into = arguments if word == "ARG" else variables
                into[name] = string.Template(value.strip('"')).substitute(arguments)
            elif word == "COPY":
                overlay(scratch / "skeleton-None" if rest.startswith("--from=skeleton") else sent, work)
            elif word == "RUN":
                said = builder.run(rest, work, variables)
                if "cargo build" not in rest:
                    continue
                built += 1
                if built == 1:
                    empty = subprocess.run([binary], capture_output=True).returncode
                    assert empty == 0, "the first build is not of empty crates"
                else:
                    compiled = set(re.findall(r"Compiling (\S+) v", said))
                    assert "tracer" in compiled, "the second build finds nothing to do"
                    others = {name for name in compiled if not re.match(r"tracer(-|$)", name)}
                    assert not others, f"the layer of the dependencies does not hold {sorted(others)}"
    assert binary.exists(), "the build stage leaves no binary"
    # What the last stage copies beside it. tests/run supply validates both.
    bill = json.loads((work / "target/sbom/tracer.cdx.json").read_text())
    assert len(bill["components"]) > 200, f"the bill of materials lists {len(bill['components'])} crates"
    notices = (work / "target/sbom/THIRD-PARTY-LICENSES.txt").read_text()
    assert "librdkafka" in notices and "Apache License" in notices, "licences are missing"
    return binary, len(files), megabytes


def runtime(stage, binary, root):
    """The last stage, in ROOT. Its packages were installed with ROOT."""
    release = re.search(r'VERSION_CODENAME=(\w+)', (root / "etc/os-release").read_text())[1]
    assert release in stage[1], f"the root is {release}, the image {stage[1]}"
    steps = dict((word, rest) for word, rest in stage[2] if word != "COPY" and word != "RUN")
    target = root / "usr/local/bin/tracer"
    target.unlink(missing_ok=True)
    shutil.copyfile(binary, target)
    target.chmod(0o755)
    user = steps["USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), f"USER {user}"
    inside = ["chroot", f"--userspec={user}", str(root)]
    missing = subprocess.run([*inside, "ldd", "/usr/local/bin/tracer"], check=True, capture_output=True, text=True).stdout
    assert "not found" not in missing, missing
    assert (root / "etc/ssl/certs/ca-certificates.crt").stat().st_size > 100_000, "there are no certificates"

    check = re.search(r"CMD (\[.*\])$", steps["HEALTHCHECK"])[1]
    command = shlex.join(json.loads(check))
    entry = shlex.join([*json.loads(steps["ENTRYPOINT"]), "up"])
    script = f"""
        cd {shlex.quote(steps["WORKDIR"])}
        if {command} 2>/dev/null; then echo 'healthy before it runs'; exit 1; fi
        {entry} >/tmp/up.log 2>&1 & pid=$!
        n=0
        until {command} 2>/dev/null; do
            n=$((n + 1)); [ $n -lt 300 ] || {{ echo 'never healthy'; cat /tmp/up.log; exit 1; }}
            kill -0 $pid || {{ cat /tmp/up.log; exit 1; }}
            sleep 0.1
        done
        [ "$(id -u):$(id -g)" = "{user}" ] || exit 1
        kill -TERM $pid; wait $pid || {{ echo "ended with $?"; cat /tmp/up.log; exit 1; }}
        if {command} 2>/dev/null; then echo 'healthy after the end'; exit 1; fi
        rm -rf /tmp/up.log /tmp/tracer-data
    """
    # A network of its own: the ports are the usual ones, whatever else runs here.
    isolated = f"ip link set lo up && exec {shlex.join([*inside, 'bash', '-c', script])}"
    subprocess.run(["unshare", "--net", "sh", "-c", isolated], check=True)
    bare = subprocess.run([*inside, *json.loads(steps["ENTRYPOINT"]), *json.loads(steps["CMD"])], capture_output=True, text=True)
    assert bare.returncode == 0 and "Usage:" in bare.stdout, bare


def main(work, builder, root):
    stages = instructions()
    work.mkdir(parents=True, exist_ok=True)
    binary, files, megabytes = build(stages, work, builder)
    runtime(stages[-1], binary, root)
    run = "the build stage NOT run (TRACER_TEST_BINARY)" if os.environ.get("TRACER_TEST_BINARY") else f"{len(stages)} stages run, the build in a bare Debian without network"
    print(f"image: {run} ({files} files, {megabytes:.1f} MB sent); the dependency layer outlives changes of the "
          f"code; in a bare {stages[-1][1]} tracer runs as a user without rights and its health check tells up from down")


main(*(pathlib.Path(argument).resolve() for argument in sys.argv[1:]))
