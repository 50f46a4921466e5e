"""Every relative link of every page of Markdown leads somewhere, and so does its anchor."""

import pathlib
import re
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[2]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def prose(text):
    """The page without its code."""
    return re.sub(r"`[^`\n]*`", lambda code: "x" * len(code[0]), re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S))


def anchors(page):
    """The names of its headings, as the usual renderers make them."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.M | re.S)
    found = set()
    for heading in re.findall(r"^#+ +(.*)$", text, re.M):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-")
        number = next(n for n in range(100) if (f"{name}-{n}" if n else name) not in found)
        found.add(f"{name}-{number}" if number else name)
    return found


def broken(page, text):
    for target in LINK.findall(prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or SOURCE not in [file, *file.parents]:
            yield f"{target}: there is no such file"
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            yield f"{target}: {file.name} has no such heading"


def main():
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=SOURCE,
                            check=True, capture_output=True, text=True).stdout.split("\n")
    # The beginning of helm/tracer/README.md, whose links are looked at there.
    part = "tests/ops/chart-readme.md"
    pages = [SOURCE / name for name in filter(None, listed) if name != part and (SOURCE / name).exists()]
    wrong = [f"{page.relative_to(SOURCE)}: {what}" for page in pages for what in broken(page, page.read_text())]
    # It tells a wrong link from a right one.
    readme = SOURCE / "README.md"
    for bad in ("[x](docs/no-such-page.md)", "[x](ARCHITECTURE.md#no-such-heading)", "[x](../../etc/passwd)"):
        assert list(broken(readme, bad)), bad
    assert not list(broken(readme, "[x](ARCHITECTURE.md#code-map) `[x](nowhere.md)`"))
    # Every page of the documentation can be reached from its index.
    index = (SOURCE / "docs/README.md").read_text()
    for page in pages:
        if page.parent in (SOURCE / "docs", SOURCE / "docs/operating") and page.name != "README.md":
            name = str(page.relative_to(SOURCE / "docs"))
            if f"]({name})" not in index:
                wrong.append(f"docs/README.md does not name {name}")
    if wrong:
        sys.exit("links:\n  " + "\n  ".join(wrong))
    print(f"links: all of {len(pages)} pages lead somewhere")


main()
