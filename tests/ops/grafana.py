"""The dashboards fit Grafana's own types (grafana.ts), of the release that docker-compose.yml runs.

    grafana.py MODULES

MODULES holds node_modules with @grafana/schema and ts-json-schema-generator.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import jsonschema
import yaml

import monitoring

TYPES = ("dashboard", "row", "stat", "timeseries")
COMPILER = {"module": "esnext", "moduleResolution": "node", "skipLibCheck": True, "strict": True, "target": "es2020", "types": []}


def validators(modules):
    made = {}
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        (directory / "node_modules").symlink_to(modules / "node_modules")
        shutil.copy(monitoring.ROOT / "tests/ops/grafana.ts", directory)
        (directory / "tsconfig.json").write_text(json.dumps({"compilerOptions": COMPILER, "files": ["grafana.ts"]}))
        for name in TYPES:
            command = ["node", "node_modules/ts-json-schema-generator/bin/ts-json-schema-generator", "--tsconfig", "tsconfig.json",
                       "--path", "grafana.ts", "--type", name, "--expose", "none"]
            schema = subprocess.run(command, cwd=directory, check=True, stdout=subprocess.PIPE, text=True).stdout
            made[name] = jsonschema.Draft7Validator(json.loads(schema))
    return made


def wrong(validator, document, where):
    return [f"{where}: {'.'.join(map(str, error.absolute_path))}: {error.message[-200:]}" for error in validator.iter_errors(document)]


def main(modules):
    version = json.loads((modules / "node_modules/@grafana/schema/package.json").read_text())["version"]
    image = yaml.safe_load((monitoring.ROOT / "docker-compose.yml").read_text())["services"]["grafana"]["image"]
    assert image.endswith(f":{version}"), f"docker-compose.yml runs {image}, the types are of {version}"
    made, found, panels = validators(modules), [], 0
    for file, dashboard in monitoring.dashboards().items():
        found += wrong(made["dashboard"], dashboard, file)
        for panel in dashboard["panels"]:
            assert panel["type"] in TYPES, f"{file}: {panel['title']}: grafana.ts has no {panel['type']}"
            found += wrong(made[panel["type"]], panel, f"{file}: {panel['title']}")
            panels += 1
    # A schema that takes anything says nothing.
    for change in {"unit": 3}, {"custom": {"lineWidth": "thick"}}, {"custom": {"colour": "red"}}:
        panel = json.loads(json.dumps(next(p for p in dashboard["panels"] if p["type"] == "timeseries")))
        panel["fieldConfig"]["defaults"].update(change)
        assert wrong(made["timeseries"], panel, ""), f"{change} is taken"
    assert not found, "\n".join(found)
    print(f"grafana: {panels} panels of {len(monitoring.dashboards())} dashboards fit the types of Grafana {version}")


main(pathlib.Path(sys.argv[1]).resolve())
