"""Reads a Dockerfile as far as deploy/images/Dockerfile goes, and carries out its stages without a container engine.

A build stage runs in an overlay of this machine's own root, in the place of the image that it begins from; a runtime stage is
laid out in a folder. What a stage asks beyond that is an error here, never passed over."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path


class Stage:
    def __init__(self, name, base, platform):
        self.name, self.base, self.platform, self.steps = name, base, platform, []

    def all(self, keyword):
        return [text for word, text in self.steps if word == keyword]

    def one(self, keyword):
        found = self.all(keyword)
        assert found, f"stage {self.name} has no {keyword}"
        return found[-1]


def parse(path):
    """The arguments before the first stage, with their defaults; and the stages by name, in order."""
    lines = [line for line in Path(path).read_text().splitlines() if not line.lstrip().startswith("#")]
    instructions = [line.strip() for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines() if line.strip()]
    arguments, stages = {}, {}
    for line in instructions:
        word, text = line.split(None, 1)
        word, text = word.upper(), re.sub(r"  +(?=[^'\"]*$)", " ", text.strip())
        if word == "FROM":
            found = re.fullmatch(r"(?:--platform=(\S+) )?(\S+) AS (\S+)", text)
            assert found, f"FROM {text}: give the stage a name"
            platform, base, name = found.groups()
            stages[name] = Stage(name, expand(base, arguments), platform)
        elif not stages:
            assert word == "ARG", f"{word} before the first FROM"
            name, _, default = text.partition("=")
            arguments[name] = expand(default.strip('"'), arguments)
        else:
            list(stages.values())[-1].steps.append((word, text))
    return arguments, stages


def expand(text, values):
    return re.sub(r"\$\{?(\w+)\}?", lambda found: values.get(found[1], ""), text)


def flags(text):
    """The leading --name=value of an instruction, and its other words."""
    words = shlex.split(text)
    given = [word for word in words if word.startswith("--")]
    return dict(word[2:].split("=", 1) for word in given), [word for word in words if word not in given]


def context(root, to):
    """Copies what .dockerignore lets into the context. Patterns: `*`, and names of files and folders after `!`."""
    patterns = [line for line in (root / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert patterns[0] == "*" and all(p.startswith("!") for p in patterns[1:]), ".dockerignore: `*`, then `!` and names"
    for name in (pattern[1:] for pattern in patterns[1:]):
        for found in root.glob(name):
            target = to / found.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(found, target, symlinks=True) if found.is_dir() else shutil.copy2(found, target)


def build(stages, name, root, scratch, given, mounts=()):
    """Carries out build stage `name`, and those that it begins from, in `root`: an overlay's merged folder."""
    # Cargo is where this machine has it; in the official image it is in /usr/local/cargo/bin.
    cargo = Path(shutil.which("cargo") or "/usr/local/cargo/bin/cargo").parent
    chain, values = [stages[name]], {"PATH": f"{cargo}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(Path.home())}
    # As a container engine does: how this machine gets to the network, and where its Rust is, is no part of the image.
    network = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy") or name in ("SSL_CERT_FILE", "CARGO_HTTP_CAINFO", "CARGO_HOME", "RUSTUP_HOME")}
    while chain[0].base in stages:
        chain.insert(0, stages[chain[0].base])
    folder = "/"
    for stage in chain:
        for word, text in stage.steps:
            if word == "ARG":
                key, _, default = text.partition("=")
                values[key] = given.get(key, default.strip('"'))
            elif word == "ENV":
                key, _, value = text.partition("=")
                values[key] = expand(value.strip('"'), values)
            elif word == "WORKDIR":
                folder = text
                (root / folder[1:]).mkdir(parents=True, exist_ok=True)
            elif word == "COPY":
                assert text == ". .", f"COPY {text} in stage {stage.name}"
                context(scratch, root / folder[1:])
                for source, target in mounts:
                    (root / target[1:]).mkdir(parents=True, exist_ok=True)
                    subprocess.run(["mount", "--bind", source, root / target[1:]], check=True)
            elif word == "RUN":
                command = re.sub(r"^(--mount=\S+\s+)+", "", text)
                chroot = ["chroot", root, "/bin/sh", "-c", f"cd {folder}\n{command}"]
                done = subprocess.run(chroot, env=network | values | given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                assert done.returncode == 0, f"exit code {done.returncode}: RUN {command}\n{done.stdout[-2000:]}"
            else:
                raise AssertionError(f"{word} in build stage {stage.name}")


def lay_out(stage, builders, root):
    """Copies what runtime stage `stage` copies into `root`, with its owners, and answers the image's configuration."""
    values, config = {}, {"labels": {}, "volumes": [], "ports": []}
    for word, text in stage.steps:
        if word == "ARG":
            key, _, default = text.partition("=")
            values[key] = default.strip('"')
        elif word == "COPY":
            option, (source, target) = flags(text)
            found, place = builders[option["from"]] / source[1:], root / target[1:]
            owner = option.get("chown", "0:0").split(":")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(found, place) if found.is_dir() else shutil.copy2(found, place)
            os.chown(place, int(owner[0]), int(owner[1]))
        elif word == "LABEL":
            config["labels"] |= dict(pair.split("=", 1) for pair in shlex.split(expand(text, values)))
        elif word in ("ENTRYPOINT", "CMD", "VOLUME"):
            config[{"VOLUME": "volumes"}.get(word, word.lower())] = json.loads(text)
        elif word == "EXPOSE":
            config["ports"] = text.split()
        elif word in ("USER", "WORKDIR"):
            config[word.lower()] = text
        else:
            raise AssertionError(f"{word} in {stage.name}, whose image has no shell: only a build stage may do that")
    return config
