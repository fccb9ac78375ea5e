"""See `run`."""

import argparse
import concurrent.futures
import functools
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

import custom
import links
import programs
import readme
import restricted
import tools
import typos

# It would read all definitions anew for each document.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)
VERSIONS = ["1.29.0", kubernetes_validate.latest_version()]
# deploy/ has the originals; a chart can only read what is in it, so it has links, which Helm follows.
LINKS = tools.CHARTS / "tidemark/files"


class Results:
    def __init__(self):
        self.passed, self.failures, self.skipped = 0, [], []

    def check(self, name, problems):
        """One check, which passes without problems."""
        problems = [str(problem).strip() for problem in problems]
        if problems:
            self.failures.append(name)
            print(f"FAILED {name}")
            for problem in problems[:20]:
                print("       " + problem.replace("\n", "\n       "))
        else:
            self.passed += 1

    def skip(self, what):
        self.skipped.append(what)


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def at_once(function, arguments):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda each: function(*each), arguments))


class World:
    """What checks look at: both Helms, all charts, and everything rendered, made once."""

    def __init__(self, helms):
        self.helms, self.charts = helms, tools.charts()
        self.applications = [chart for chart in self.charts if not chart.library]
        self.shapes = [(helm, chart, file) for helm in helms for chart in self.applications for file in [None, *chart.shapes()]]
        self._rendered = None

    def rendered(self):
        """(name, Helm, chart, shape, answer) of each shape."""
        if self._rendered is None:
            answers = at_once(lambda helm, chart, file: helm.template(chart.folder.name, *(["--values", file] if file else [])), self.shapes)
            self._rendered = [
                (f"{chart.name}, {file.name if file else 'defaults'}, Helm {helm.version}", helm, chart, file, answer)
                for (helm, chart, file), answer in zip(self.shapes, answers)
            ]
        return self._rendered

    def documents(self):
        for name, helm, chart, file, answer in self.rendered():
            if answer.returncode == 0:
                yield name, chart, documents(answer.stdout)


def lint(world, results):
    runs = [(helm, chart, file) for helm in world.helms for chart in world.charts for file in ([None] if chart.library else [None, *chart.shapes()])]
    answers = at_once(lambda helm, chart, file: helm.run("lint", "--strict", helm.charts / chart.folder.name, *(["--values", file] if file else [])), runs)
    for (helm, chart, file), done in zip(runs, answers):
        results.check(f"lint {chart.name}, {file.name if file else 'defaults'}, Helm {helm.version}", [done.stdout + done.stderr] if done.returncode else [])
    with tempfile.TemporaryDirectory() as folder:
        for helm in world.helms:
            for chart in world.charts:
                target = Path(folder) / helm.version / chart.name
                done = helm.run("package", helm.charts / chart.folder.name, "--destination", target)
                results.check(f"package {chart.name}, Helm {helm.version}", [] if done.returncode == 0 and list(target.glob("*.tgz")) else [done.stderr])


def render(world, results):
    for name, _, chart, _, answer in world.rendered():
        results.check(f"render {name}", [answer.stderr] if answer.returncode else [])
    # Both Helms make the same.
    newest = {name.rsplit(", ", 1)[0]: found for name, _, found in world.documents() if name.endswith(world.helms[-1].version)}
    for name, _, found in world.documents():
        if not name.endswith(world.helms[-1].version):
            shape = name.rsplit(", ", 1)[0]
            key = lambda document: (document["kind"], document["metadata"]["name"])
            same = sorted(found, key=key) == sorted(newest.get(shape, []), key=key)
            results.check(f"both Helms render the same of {shape}", [] if same else ["they differ"])
    for chart in world.applications:
        results.check(f"{chart.name} has ci/*-values.yaml", [] if chart.shapes() else ["none"])


def schemas(world, results):
    judged, customs = {}, set()
    for name, _, found in world.documents():
        problems = []
        for document in found:
            text = yaml.safe_dump(document, sort_keys=True)
            if text not in judged:
                judged[text] = list(of_document(document, customs))
            problems += judged[text]
        results.check(f"schemas of {name}", problems)
    print(f"schemas: {len(judged)} different documents, each by {' and '.join(VERSIONS)}; without an official schema, and so checked for structure alone: {', '.join(sorted(customs))}")


def of_document(document, customs):
    place = f"{document['kind']}/{document['metadata'].get('name')}"
    if not document["metadata"].get("name"):
        yield f"{place} has no name"
    for key, value in (document["metadata"].get("labels") or {}).items():
        if not isinstance(value, str) or len(value) > 63:
            yield f"{place}: the label {key} is {value!r}"
    found = custom.problems(document)
    if found is not None:
        customs.add(document["kind"])
        yield from (f"{place}: {problem}" for problem in found)
        return
    for version in VERSIONS:
        try:
            used = kubernetes_validate.validate(document, version, strict=True)
            if version.startswith(used) is False:
                yield f"{place}: judged by {used} in place of {version}"
        except kubernetes_validate.SchemaNotFoundError as error:
            yield f"{place}: {error.message}"
        except kubernetes_validate.ValidationError as error:
            yield f"{place}, Kubernetes {version}: {'.'.join(map(str, error.absolute_path))}: {error.message[:400]}"


def mistakes(world, results):
    for helm in world.helms:
        for chart in world.applications:
            values = yaml.safe_load((chart.folder / "values.yaml").read_text())
            wrong, names = typos.misspelled(chart.name, values)
            done = helm.template(chart.folder.name, "--values", "-", text=yaml.safe_dump(wrong))
            message = done.stderr
            for name in names:
                results.check(f"{chart.name}, Helm {helm.version}, refuses the key {name}", [] if done.returncode and re.search(rf"\b{name}\b", message) else [f"it is taken, or not named: {message[:300]}"])
        pairs = [(helm, chart, text) for chart in world.applications for text in typos.WRONG.get(chart.name, [])]
        for (_, chart, text), done in zip(pairs, at_once(lambda helm, chart, text: helm.template(chart.folder.name, "--set", text), pairs)):
            by_schema = done.returncode != 0 and "meet the specifications of the schema" in done.stderr
            results.check(f"{chart.name}, Helm {helm.version}, refuses {text}", [] if by_schema else [done.stderr[:300] or "it is taken"])
        triples = [(helm, chart, text, part) for chart in world.applications for text, part in typos.REFUSED.get(chart.name, [])]
        for (_, chart, text, part), done in zip(triples, at_once(lambda helm, chart, text, part: helm.template(chart.folder.name, "--set", text), triples)):
            results.check(f"{chart.name}, Helm {helm.version}, refuses {text}, and says {part!r}", [] if done.returncode and part in done.stderr else [done.stderr[:300] or "it is taken"])


def pods(world, results):
    judged = set()
    for name, _, found in world.documents():
        problems, count = [], 0
        for document in found:
            for pod, metadata, spec in restricted.pods(document):
                count += 1
                problems += [f"{pod}: {problem}" for problem in [*restricted.problems(metadata, spec), *restricted.beyond(spec)]]
                judged.add(pod)
        results.check(f"restricted pods of {name}", problems or ([] if count else ["no pod at all"]))


def together(world, results):
    for name, _, chart, file, answer in world.rendered():
        if answer.returncode == 0:
            values = (chart.folder / "values.yaml").read_text() + (file.read_text() if file else "")
            results.check(f"what is rendered fits together: {name}", links.problems(documents(answer.stdout), values))


def readmes(world, results):
    for chart in world.charts:
        file, values = chart.folder / "README.md", chart.folder / "values.yaml"
        try:
            text = file.read_text()
            made = readme.filled(text, values.read_text())
        except (OSError, readme.Undocumented) as error:
            results.check(f"README of {chart.name}", [error])
            continue
        wrong = "it has no marks for the table" if made is None else "its table is not that of values.yaml: run tests/helm/run --write" if made != text else None
        results.check(f"README of {chart.name}", [wrong] if wrong else [])


def originals():
    """Links in the chart, and where each must lead."""
    rules = [file for file in sorted((tools.ROOT / "deploy/alerts").glob("*.yaml")) if not file.name.endswith(".test.yaml")]
    wanted = {LINKS / ("alerts.yaml" if len(rules) == 1 else f"alerts-{file.name}"): file for file in rules}
    for file in sorted((tools.ROOT / "deploy/grafana").glob("*.json")):
        wanted[LINKS / "dashboards" / file.name] = file
    return wanted


def files(world, results):
    wanted = originals()
    there = {file for file in LINKS.rglob("*") if file.is_file()}
    for link, original in wanted.items():
        same = link.is_symlink() and link.resolve() == original.resolve()
        results.check(f"{link.relative_to(tools.ROOT)} is a link to {original.relative_to(tools.ROOT)}", [] if same else ["it is missing, or leads elsewhere"])
    results.check("nothing else is in helm/tidemark/files", [f"{file} has no original" for file in sorted(there - set(wanted))])
    for helm in world.helms:
        done = helm.template("tidemark", "--set", "prometheusRule.enabled=true,dashboards.enabled=true")
        found = documents(done.stdout)
        kept = [document["spec"] for document in found if document["kind"] == "PrometheusRule"]
        rules = [yaml.safe_load(original.read_text()) for link, original in wanted.items() if link.name.startswith("alerts")]
        results.check(f"PrometheusRule holds the rules, Helm {helm.version}", [] if kept == rules else ["it differs from deploy/alerts"])
        boards = {key: text for document in found if "-dashboard-" in document["metadata"]["name"] for key, text in document["data"].items()}
        sources = {original.name: original.read_text() for original in wanted.values() if original.suffix == ".json"}
        results.check(f"ConfigMaps hold the dashboards, Helm {helm.version}", [] if boards == sources else ["they differ from deploy/grafana"])
        # A chart without these files renders all the same.
        bare = helm.charts.parent / "bare"
        if not bare.exists():
            shutil.copytree(helm.charts / "tidemark", bare, ignore=shutil.ignore_patterns("files"))
        done = helm.run("template", "rel", bare, "--set", "prometheusRule.enabled=true,dashboards.enabled=true")
        results.check(f"renders without files/, Helm {helm.version}", [done.stderr] if done.returncode else [])


def reference(world, results):
    """`config` in the schema has exactly the keys of the program's reference, but those that the chart sets."""
    own = {"data_dir", "catalog", "catalog_source", "listen.quic", "listen.tcp", "listen.http", "tls.ca", "tls.certificate", "tls.key", "archive.folder"}
    text = (tools.ROOT / "deploy/docs/configuration.md").read_text().split("<!-- collector -->")[1].split("<!-- /collector -->")[0]
    keys = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `") and "[[" not in line.split("`")[1]}
    schema = yaml.safe_load((tools.CHARTS / "tidemark/values.schema.json").read_text())["properties"]["config"]["properties"]
    there = set()
    for key, part in schema.items():
        there |= {f"{key}.{inner}" for inner in part["properties"]} if "properties" in part else {key}
    results.check("config has every key of configuration.md", [f"missing: {key}" for key in sorted(keys - own - there)])
    results.check("config has no other key", [f"unknown: {key}" for key in sorted(there - keys)])
    for chart in world.charts:
        file = chart.folder / "values.schema.json"
        try:
            jsonschema.Draft7Validator.check_schema(yaml.safe_load(file.read_text()))
            results.check(f"{chart.name}: values.schema.json is a schema", [])
        except (OSError, jsonschema.SchemaError) as error:
            results.check(f"{chart.name}: values.schema.json is a schema", [error])


CHECKS = {
    "lint": lint, "render": render, "schemas": schemas, "typos": mistakes, "restricted": pods, "links": together, "readme": readmes, "files": files, "reference": reference,
    "programs": programs.check,
}


def write():
    for chart in tools.charts():
        file = chart.folder / "README.md"
        try:
            made = readme.filled(file.read_text(), (chart.folder / "values.yaml").read_text()) if file.exists() else None
        except readme.Undocumented as error:
            print(f"{chart.name}: {error}")
            continue
        if made is None:
            print(f"{chart.name} has no README.md with marks")
        elif made != file.read_text():
            file.write_text(made)
            print(f"wrote {file.relative_to(tools.ROOT)}")


def main():
    arguments = argparse.ArgumentParser(prog="tests/helm/run")
    arguments.add_argument("--only", default=",".join(CHECKS), help="of " + ", ".join(CHECKS))
    arguments.add_argument("--write", action="store_true")
    given = arguments.parse_args()
    if given.write:
        write()
        return 0
    names = given.only.split(",")
    if unknown := [name for name in names if name not in CHECKS]:
        arguments.error(f"no check is called {', '.join(unknown)}; there are {', '.join(CHECKS)}")
    results, started = Results(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tidemark-helm-") as work:
        world = World(tools.helms(work))
        for name in names:
            before = results.passed, len(results.failures)
            CHECKS[name](world, results)
            print(f"=== {time.monotonic() - started:4.0f} s  {name}: {results.passed - before[0]} passed, {len(results.failures) - before[1]} failed", flush=True)
    for what in results.skipped:
        print(f"skipped: {what}")
    for name in results.failures:
        print(f"failed: {name}")
    print(f"{results.passed} passed, {len(results.failures)} failed")
    return 1 if results.failures else 0


sys.exit(main())
