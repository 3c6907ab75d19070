"""Validates the files of images/ and .github/ against the schemas of the programs that read them.

    schemas.py WHEELS IMAGES
    schemas.py WHEELS IMAGES FILE       prints the documents of one of them as JSON
    schemas.py WHEELS IMAGES --sbom DIR validates the bills of materials in a directory

WHEELS is a directory with the wheels that tools.toml lists: three contain schemas, two are modules. A schema that
accepts everything would check nothing, so invalid variants of each file must be rejected.
"""

import copy
import json
import sys
import tempfile
import zipfile
from pathlib import Path

# Each file with its invalid variants: the number of the document, a path in it, and the value to set there. None removes
# the path.
FILES = {
    "../.github/workflows/release.yml": [
        (0, "jobs/build/strategy/matrix", None),
        (0, "jobs/build/step", []),
        (0, "jobs/build/steps/0/use", "actions/checkout"),
        (0, "jobs/publish/permissions/packages", "wriet"),
        (0, "jobs/plan/outputs/jobs", ["a"]),
        (0, "on/workflow_dispatsh", {}),
    ],
    "../.github/workflows/test.yml": [
        (0, "jobs/smoke/needs", {}),
        (0, "jobs/code/runs_on", "ubuntu-24.04"),
        (0, "concurrency/cancel", True),
    ],
    "../.github/workflows/canary.yml": [
        (0, "on/schedule/0/cron", 1),
        (0, "jobs/qemu/runs-on", None),
    ],
    "../.github/dependabot.yml": [
        (0, "version", 1),
        (0, "updates/0/package-ecosystem", "crates"),
        (0, "updates/0/schedule/interval", "often"),
    ],
    "../.github/ISSUE_TEMPLATE/bug.yml": [
        (0, "body/1/type", "textfield"),
        (0, "description", None),
        (0, "body/1/validations/required", "yes"),
    ],
    "../.github/ISSUE_TEMPLATE/program.yml": [
        (0, "body", []),
        (0, "body/0/id", 1),
    ],
    "../.github/ISSUE_TEMPLATE/config.yml": [
        (0, "blank_issues_enabled", "yes"),
        (0, "contact_links/0/url", None),
    ],
    "action/action.yml": [
        (0, "inputs/platforms/default", ["all"]),
        (0, "inputs/platforms/defualt", "all"),
        (0, "outputs/platforms/value", None),
        (0, "runs/using", "compsite"),
        (0, "runs/steps/0/env/QUS_IMAGE", ["all"]),
        (0, "runs/steps/0/comand", "install.sh"),
    ],
    "compose.yaml": [
        (0, "service", {}),
        (0, "services/qus/privilege", True),
        (0, "services/qus/privileged", ["yes"]),
        (0, "services/qus/restart", 1),
        (0, "services/qus/healthcheck/intervall", "1m"),
    ],
    "daemonset.yaml": [
        (0, "metadata/lables", {}),
        (1, "kind", "Daemonset"),
        (1, "spec/selector", None),
        (1, "spec/template/spec/hostPid", True),
        (1, "spec/template/spec/hostPID", "yes"),
        (1, "spec/template/spec/tolerations", {"operator": "Exists"}),
        (1, "spec/template/spec/containers/0/args", "install all"),
        (1, "spec/template/spec/containers/0/resources/requests/memory", []),
        (1, "spec/template/spec/containers/0/readinessProbe/exec/comand", []),
    ],
}


class Schemas:
    """The schemas in the wheels."""

    def __init__(self, wheels):
        self.files = {}
        for wheel in wheels.glob("*.whl"):
            archive = zipfile.ZipFile(wheel)
            self.files.update((name, archive) for name in archive.namelist())

    def read(self, name):
        if name not in self.files:
            raise ValueError(f"no wheel contains {name}")
        return json.loads(self.files[name].read(name))

    def kubernetes(self, name):
        """The strict schema of the newest version of Kubernetes."""
        suffix = f"-local-strict/{name}.json"
        found = [file for file in self.files if file.endswith(suffix)]
        if not found:
            raise ValueError(f"Kubernetes has no schema {name}")
        minor = lambda file: int(file.removesuffix(suffix).split(".")[-2])
        return self.read(max(found, key=minor))

    def of(self, file, document):
        if file == "daemonset.yaml":
            return self.kubernetes("-".join([document["kind"].lower(), *document["apiVersion"].split("/")]))
        kinds = {
            "../.github/workflows/": "github-workflows",
            "../.github/dependabot": "dependabot",
            "../.github/ISSUE_TEMPLATE/config": "github-issue-config",
            "../.github/ISSUE_TEMPLATE/": "github-issue-forms",
            "action/": "github-actions",
        }
        name = next((name for start, name in kinds.items() if file.startswith(start)), "compose-spec")
        return closed(self.read(f"check_jsonschema/builtin_schemas/vendor/{name}.json"))


def closed(schema):
    """Replaces `unevaluatedProperties`, which the validator does not support and ignores, so that it would accept any
    key: a definition that combines others with `allOf` gets their properties and `additionalProperties`."""
    definitions = schema.get("$defs", {})
    for definition in definitions.values():
        if definition.pop("unevaluatedProperties", True) is False:
            definition["additionalProperties"] = False
            for part in definition.pop("allOf"):
                part = definitions[part["$ref"].removeprefix("#/$defs/")]
                for key in ("properties", "patternProperties"):
                    definition[key] = {**part.get(key, {}), **definition.get(key, {})}
    return schema


def find_error(schemas, compiled, file, document):
    """The first error in a document; None if it is valid."""
    import fastjsonschema

    try:
        schema = schemas.of(file, document)
    except (KeyError, ValueError) as error:
        return str(error)
    key = json.dumps(schema)
    if key not in compiled:
        handlers = {"https": lambda _: schemas.kubernetes("_definitions")}
        compiled[key] = fastjsonschema.compile(schema, handlers=handlers, use_formats=False, use_default=False)
    try:
        compiled[key](document)
    except fastjsonschema.JsonSchemaException as error:
        return str(error)


def variant(document, path, value):
    """A copy with another value at a path, or without the path if the value is None."""
    document = copy.deepcopy(document)
    place, *steps = document, *path.split("/")
    for step in steps[:-1]:
        place = place[int(step) if isinstance(place, list) else step]
    if value is None:
        del place[steps[-1]]
    else:
        place[steps[-1]] = value
    return document


def documents_of(file):
    from ruamel.yaml import YAML

    return list(YAML(typ="safe", pure=True).load_all(file))


def check_sbom(wheels, dir):
    import fastjsonschema

    schemas, findings = Schemas(wheels), []
    # The schema of CycloneDX refers to others by their names.
    handlers = {"http": lambda uri: schemas.read(f"lib4sbom/schemas/cyclonedx/{uri.rpartition('/')[2]}")}
    names = {".spdx.json": "spdx/2.3-schema", ".cdx.json": "cyclonedx/bom-1.6.schema"}
    for ending, name in names.items():
        schema = schemas.read(f"lib4sbom/schemas/{name}.json")
        validate = fastjsonschema.compile(schema, handlers=handlers, use_formats=False, use_default=False)
        files = sorted(dir.glob(f"*{ending}"))
        if not files:
            findings.append(f"there is no *{ending}")
        for file in files:
            document = json.loads(file.read_text())
            for changed in (document, {**document, "packages": 1, "components": 1}):
                try:
                    validate(changed)
                    if changed is not document:
                        findings.append(f"{file.name}: the schema accepts anything")
                except fastjsonschema.JsonSchemaException as error:
                    if changed is document:
                        findings.append(f"{file.name}: {error}")
    if findings:
        sys.exit("\n".join(findings))


def main(wheels, images):
    schemas, compiled, findings, count = Schemas(wheels), {}, [], 0
    for file, variants in FILES.items():
        documents = documents_of(images / file)
        for number, document in enumerate(documents):
            count += 1
            if why := find_error(schemas, compiled, file, document):
                findings.append(f"{file}, document {number}: {why}")
        for number, path, value in variants:
            if find_error(schemas, compiled, file, variant(documents[number], path, value)) is None:
                findings.append(f"{file}, document {number}: the schema accepts {path} = {value}")
    if findings:
        sys.exit("\n".join(findings))
    print(f"{count} documents are valid, and {sum(map(len, FILES.values()))} invalid variants are rejected")


if __name__ == "__main__":
    wheels, images, *file = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as modules:
        for module in ("fastjsonschema", "ruamel"):
            for wheel in wheels.glob(f"{module}*.whl"):
                zipfile.ZipFile(wheel).extractall(modules)
        sys.path.insert(0, modules)
        if file and str(file[0]) == "--sbom":
            check_sbom(wheels, file[1])
        elif file:
            json.dump(documents_of(images / file[0]), sys.stdout)
        else:
            main(wheels, images)
