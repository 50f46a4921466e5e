"""Checks docker/sbom.py's bill of materials, and that deny.toml refuses what it should.

    supply.py CARGO-DENY WORK
"""

import json
import pathlib
import re
import subprocess
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

SOURCE = pathlib.Path(__file__).resolve().parents[2]
VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)


def bill(directory):
    subprocess.run([sys.executable, "docker/sbom.py", str(directory)], cwd=SOURCE, check=True)
    return (directory / "tracer.cdx.json").read_text()


def check_bill(work):
    text = bill(work / "first")
    error = VALIDATOR.validate_str(text)
    assert error is None, f"no valid CycloneDX: {error}"
    document = json.loads(text)
    # The validator tells wrong from right.
    for spoil in (lambda d: d["components"][0].pop("name"), lambda d: d.update(colour="blue"),
                  lambda d: d["components"][0].update(scope="maybe")):
        spoilt = json.loads(text)
        spoil(spoilt)
        assert VALIDATOR.validate_str(json.dumps(spoilt)) is not None, "the validator takes anything"

    # By another way than the script's: the lock file, and the manifests of the workspace.
    lock = (SOURCE / "Cargo.lock").read_text()
    locked = {(name, version) for name, version in re.findall(r'name = "(.*)"\nversion = "(.*)"', lock)}
    listed = {(c["name"], c["version"]): c for c in document["components"]}
    assert set(listed) <= locked, f"not in Cargo.lock: {set(listed) - locked}"
    for (name, version), component in listed.items():
        ours = name.startswith("tracer-") or name == "openssl-sys"
        assert ours or "hashes" in component, f"{name} {version} has no checksum"
        assert component.get("licenses"), f"{name} {version} has no licence"
    linked = {name for (name, _), component in listed.items() if component["scope"] == "required"}
    for manifest in SOURCE.glob("*/*/Cargo.toml"):
        section = re.search(r"^\[dependencies\]\n(.*?)(^\[|\Z)", manifest.read_text(), re.M | re.S)
        for line in section[1].splitlines() if section else []:
            name = re.match(r"[\w-]+", line)
            macro = name and name[0] in ("async-trait",)
            if name and "optional = true" not in line and not macro:
                assert name[0] in linked, f"{manifest.relative_to(SOURCE)} needs {name[0]}, which the bill does not list as linked"
    for never in ("proptest", "rcgen", "boon"):
        assert never not in {name for name, _ in listed}, f"{never} is of the tests alone"
    references = {c["bom-ref"] for c in document["components"]} | {document["metadata"]["component"]["bom-ref"]}
    for edge in document["dependencies"]:
        assert {edge["ref"], *edge["dependsOn"]} <= references, edge
    assert {e["ref"] for e in document["dependencies"]} == references, "a component without its edges"
    assert "librdkafka" in {inner["name"] for c in document["components"] for inner in c.get("components", [])}

    notices = (work / "first/THIRD-PARTY-LICENSES.txt").read_text()
    for (name, version), component in listed.items():
        if component["scope"] == "required" and "hashes" in component:
            assert f"  {name} {version}: " in notices, f"{name} {version} has no line in the licences"
    for holder in ("librdkafka/LICENSE", "zstd/LICENSE", "aws-lc/LICENSE"):
        assert holder in notices, f"the text of {holder} is missing"
    assert bill(work / "second") == text, "the same sources give another bill"
    return len(listed), len(linked)


def check_refusals(deny, work):
    """Each part of deny.toml refuses something, once the exception for it is gone."""
    rules = (SOURCE / "deny.toml").read_text()
    for check, old, new in (
        ("licenses", '    "MIT",\n', ""),
        ("bans", r'.*"syn@2".*\n', ""),
        ("sources", r'unknown-registry = "deny"', 'unknown-registry = "deny"\nallow-registry = []'),
    ):
        changed, times = re.subn(old, new, rules)
        assert times == 1, old
        file = work / f"{check}.toml"
        file.write_text(changed)
        ended = subprocess.run([deny, "--locked", "--config", file, "check", "--hide-inclusion-graph", check],
                               cwd=SOURCE, capture_output=True, text=True)
        assert ended.returncode != 0 and f"{check} FAILED" in ended.stderr + ended.stdout, f"{check}: {ended}"


def main(deny, work):
    work.mkdir(parents=True, exist_ok=True)
    listed, linked = check_bill(work)
    check_refusals(deny, work)
    print(f"supply: a valid CycloneDX document of {listed} crates, {linked} of them linked in, each with its checksum and "
          f"licence; the same bytes twice; deny.toml refuses a licence, a duplicate and a source that it does not name")


main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
