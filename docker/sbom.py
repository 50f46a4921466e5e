"""Writes what the binary is made of: a bill of materials, and the licences of others.

    sbom.py DIRECTORY [TARGET]

DIRECTORY gets tracer.cdx.json (CycloneDX 1.6) and THIRD-PARTY-LICENSES.txt. TARGET is the
platform, this machine's unless it is named. Run in the workspace; the crates must have been
fetched, as they are after a build. Neither file has the time or the machine in it: the same
sources give the same bytes.

What is linked into the binary has the scope `required`. Crates that only run while it is
built (build scripts, macros) are `excluded`, as CycloneDX calls that, and have no licence in the
list: nothing of them is passed on.
"""

import json
import pathlib
import re
import subprocess
import sys

PACKAGE = "tracer"
# Files that say under which terms a crate, or what it brings along, may be passed on.
TERMS = re.compile(r"(licen[cs]es?|copying|copyright|notice|unlicense)([-._].*)?", re.I)
# Sources of others that crates bring along, one folder deep, and the version's place in theirs.
BUNDLED = {"rdkafka-sys": "librdkafka", "zstd-sys": "zstd", "aws-lc-sys": "aws-lc"}
BUNDLED_LICENCE = {"librdkafka": "BSD-2-Clause", "zstd": "BSD-3-Clause"}


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], check=True, capture_output=True, text=True).stdout


def names(target, edges):
    """Names and versions of what the package stands on, over some kinds of edges."""
    listed = cargo("tree", "--locked", "--package", PACKAGE, "--target", target, "--edges", edges,
                   "--prefix", "none", "--format", "{p}", "--no-dedupe")
    return {tuple(line.split()[:2]) for line in listed.splitlines() if line}


def reference(package):
    """A package URL, which is a component's name in the document."""
    return f"pkg:cargo/{package['name']}@{package['version'].replace('+', '%2B')}"


def licence(package):
    # An old way of writing OR.
    return (package["license"] or "").replace("/", " OR ")


def component(package, scope, checksums):
    made = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "scope": scope,
        "purl": reference(package),
    }
    if package["description"]:
        made["description"] = " ".join(package["description"].split())
    if checksum := checksums.get((package["name"], package["version"])):
        made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if expression := licence(package):
        made["licenses"] = [{"expression": expression}]
    if package["repository"]:
        made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    # What is in a crate and not of it: the C library that it is a wrapper of.
    if (inner := BUNDLED.get(package["name"])) and "+" in package["version"]:
        version = package["version"].split("+")[1].removeprefix(f"{inner}.")
        made["components"] = [{
            "type": "library",
            "bom-ref": f"{reference(package)}#{inner}",
            "name": inner,
            "version": version,
            "licenses": [{"expression": BUNDLED_LICENCE[inner]}],
        }]
    return made


def terms(package):
    """The texts of a crate's licences, by their paths in it."""
    root = pathlib.Path(package["manifest_path"]).parent
    folders = [root, *(root / name for name in [BUNDLED.get(package["name"])] if name)]
    found = {}
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.is_file() and TERMS.fullmatch(path.name):
                found[str(path.relative_to(root))] = path.read_text(errors="replace").strip()
    if named := package["license_file"]:
        found.setdefault(named, (root / named).read_text(errors="replace").strip())
    return found


def main(directory, target):
    metadata = json.loads(cargo("metadata", "--locked", "--format-version", "1", "--filter-platform", target))
    packages = {package["id"]: package for package in metadata["packages"]}
    linked = names(target, "normal,no-proc-macro")
    built = names(target, "normal,build")
    lock = pathlib.Path(metadata["workspace_root"], "Cargo.lock").read_text()
    checksums = {(name, version): digest for name, version, digest in re.findall(
        r'name = "(.*)"\nversion = "(.*)"\nsource = ".*"\nchecksum = "(.*)"', lock)}

    def scope(package):
        key = (package["name"], "v" + package["version"])
        return "required" if key in linked else "excluded" if key in built else None

    ours = [p for p in packages.values() if p["name"] == PACKAGE and not p["source"]]
    assert len(ours) == 1, ours
    kept = sorted((p for p in packages.values() if scope(p) and p is not ours[0]), key=lambda p: (p["name"], p["version"]))
    missing = built - {(p["name"], "v" + p["version"]) for p in packages.values()}
    assert not missing, f"cargo's tree and its metadata differ: {missing}"

    in_it = {p["id"] for p in kept} | {ours[0]["id"]}
    edges = []
    for node in sorted(metadata["resolve"]["nodes"], key=lambda node: reference(packages[node["id"]])):
        if node["id"] in in_it:
            # Not what only its tests need.
            on = {dep["pkg"] for dep in node["deps"] if any(kind["kind"] != "dev" for kind in dep["dep_kinds"])}
            edges.append({"ref": reference(packages[node["id"]]),
                          "dependsOn": sorted(reference(packages[id]) for id in on & in_it)})
    application = component(ours[0], "required", checksums) | {"type": "application"}
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": application, "properties": [{"name": "tracer:target", "value": target}]},
        "components": [component(p, scope(p), checksums) for p in kept],
        "dependencies": edges,
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tracer.cdx.json").write_text(json.dumps(document, indent=1) + "\n")

    # Each text once, with the crates that come under it.
    crates, texts = [], {}
    for package in (p for p in kept if scope(p) == "required" and p["source"]):
        crates.append(f"{package['name']} {package['version']}: {licence(package) or 'see its text below'}")
        found = terms(package)
        if not found:
            crates[-1] += " (the crate has no text of its own)"
        for path, text in found.items():
            texts.setdefault(text, []).append(f"{package['name']} {package['version']} ({path})")
    parts = [f"The binary `{PACKAGE}` contains code of others. These crates are in it, under these licences:\n",
             *(f"  {line}" for line in crates), ""]
    for text, holders in texts.items():
        parts += ["=" * 78, *(f"  {holder}" for holder in holders), "=" * 78, "", text, ""]
    (directory / "THIRD-PARTY-LICENSES.txt").write_text("\n".join(parts))
    print(f"{len(crates)} crates are linked in, {sum(scope(p) == 'excluded' for p in kept)} more run while it is built; "
          f"{len(texts)} different texts of licences")


if __name__ == "__main__":
    host = re.search(r"^host: (.*)$", subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout, re.M)[1]
    main(pathlib.Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else host)
