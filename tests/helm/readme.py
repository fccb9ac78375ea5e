"""A README's table of values, made of a chart's values.yaml.

A key's meaning is the block of comment lines right above it, at its own depth. A table of keys has a row where it has a comment
or is empty. Every key without children must have one. In README.md the table stands between two marks:

    <!-- values:begin -->
    <!-- values:end -->
"""

import json
import re

import yaml

BEGIN, END = "<!-- values:begin -->", "<!-- values:end -->"
KEY = re.compile(r"^( *)([A-Za-z0-9_.\-\"']+):(?:\s|$)")


class Undocumented(Exception):
    pass


def table(text):
    lines = ["| value | default | meaning |", "|---|---|---|"]
    missing = []
    for path, value, meaning in rows(text):
        whole = not isinstance(value, dict) or not value
        if whole and not meaning:
            missing.append(path)
        if meaning:
            shown = default(value) if whole else ""
            lines.append(f"| `{path}` | {shown} | {cell(meaning)} |")
    if missing:
        raise Undocumented("without a comment: " + ", ".join(missing))
    return "\n".join(lines)


def rows(text):
    """Each key's path, value and meaning, in the file's order."""
    values = yaml.safe_load(text) or {}
    path, comment = [], []
    skipping = None
    for line in text.splitlines():
        bare = line.strip()
        depth = len(line) - len(line.lstrip())
        if skipping is not None and bare and depth <= skipping:
            skipping = None
        if skipping is not None:
            continue
        if not bare:
            comment = []
        elif bare.startswith("#"):
            words = re.sub(r"^# ?(-- )?", "", bare)
            comment = comment + [(depth, words)]
        elif match := KEY.match(line):
            path = [step for step in path if step[0] < depth] + [(depth, match[2].strip("\"'"))]
            names = [name for _, name in path]
            value = values
            for name in names:
                value = value[name]
            meaning = " ".join(words for at, words in comment if at == depth)
            yield ".".join(names), value, meaning
            comment = []
            # What is below a text or a list is no key of values.
            if not isinstance(value, dict):
                skipping = depth
        else:
            comment = []


def default(value):
    if value == "" or value is None:
        return "" if value is None else '`""`'
    shown = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    if "\n" in shown or len(shown) > 120:
        return "see values.yaml"
    return f"`{shown}`".replace("|", "\\|")


def cell(words):
    return words.replace("|", "\\|")


def filled(readme, text):
    """The README with the table in its place; `None` where it has no marks."""
    if BEGIN not in readme or END not in readme:
        return None
    head, rest = readme.split(BEGIN, 1)
    _, tail = rest.split(END, 1)
    return f"{head}{BEGIN}\n\n{table(text)}\n\n{END}{tail}"
