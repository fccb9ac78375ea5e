"""What was rendered, given to the real programs: the hook job's command lines, and the collector's container with its files.

Skipped, with the reason, where the programs are not built, or where mount and network namespaces cannot be made.
"""

import http.server
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import yaml

import tools

HERE = Path(__file__).parent
# Of these shapes the container is started; of all of them the configuration is checked.
SERVED = {"secret-values.yaml", "load-balancer-values.yaml", "archive-values.yaml", "sandbox-values.yaml"}


def check(world, results):
    target = Path(os.environ.get("TIDEMARK_TARGET", tools.ROOT / "target/debug")).absolute()
    collector, agent = target / "tidemark-collector", target / "tidemark-agent"
    if not collector.exists():
        results.skip(f"programs: {collector} is not built")
        return
    with tempfile.TemporaryDirectory(prefix="tidemark-helm-programs-") as work:
        made = generated(world, results, Path(work), collector)
        if not made:
            return
        if reason := no_namespaces():
            results.skip(f"programs: the rendered containers were not started: {reason}")
            return
        newest = world.helms[-1].version
        for name, helm, chart, file, answer in world.rendered():
            if chart.name == "tidemark" and helm.version == newest and answer.returncode == 0:
                started(world, results, name, file, [found for found in yaml.safe_load_all(answer.stdout) if found], made, collector, agent)


def no_namespaces():
    if os.geteuid() != 0:
        return "this is not root"
    if not shutil.which("ip"):
        return "`ip` is missing (on Debian: iproute2)"
    done = subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else None


class ApiServer(http.server.BaseHTTPRequestHandler):
    """Takes Secrets, and nothing else, as the hook job's Role has it."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        secret = json.loads(body) if self.headers["Content-Type"] == "application/json" else {}
        allowed = self.path.split("?")[0] == "/api/v1/namespaces/billing/secrets" and secret
        if allowed:
            self.server.secrets.append(secret)
        answer = body if allowed else b'{"kind":"Status","apiVersion":"v1","status":"Failure","code":403}'
        self.send_response(201 if allowed else 403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_PATCH = do_DELETE = lambda self: self.send_error(403)

    def log_message(self, *_):
        pass


def generated(world, results, work, collector):
    """Runs each container of the hook job, against a server that takes Secrets alone; the folder of what it made."""
    helm = world.helms[-1]
    answer = helm.template("tidemark", "--set", "certificates.generate.agents={shop,edge-1}")
    found = [document for document in yaml.safe_load_all(answer.stdout) if document]
    job = next(document for document in found if document["kind"] == "Job" and document["metadata"]["name"].endswith("-certificates"))
    spec = job["spec"]["template"]["spec"]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), ApiServer)
    server.secrets = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folder = work / "certificates"
    problems = []
    # The older kubectl of the two sends JSON; the newer one sends protobuf, which this server does not read.
    for container in [*spec["initContainers"], *spec["containers"]]:
        arguments = [text.replace("/certificates", str(folder)) for text in container["args"]]
        program = [collector] if container["name"] == "make" else [world.helms[0].kubectl, "--server", f"http://127.0.0.1:{server.server_port}"]
        done = subprocess.run([*program, *arguments], env={"PATH": os.environ["PATH"], "HOME": str(work / "home")}, capture_output=True, text=True, timeout=30)
        if done.returncode:
            problems.append(f"{container['name']}: {done.stderr}")
    server.shutdown()
    server.server_close()
    results.check("the hook job's command lines make the certificates and their Secrets", problems)
    kept = {secret["metadata"]["name"]: secret for secret in server.secrets}
    results.check("the hook job makes a Secret for the collector and for each agent", [] if set(kept) == {"rel-tidemark-tls", "rel-tidemark-agent-shop", "rel-tidemark-agent-edge-1"} else [sorted(kept)])
    results.check(
        "these Secrets are of the type and with the keys that pods mount",
        [f"{name}: {secret.get('type')}, {sorted(secret.get('data', {}))}" for name, secret in kept.items() if secret.get("type") != "kubernetes.io/tls" or set(secret["data"]) != {"ca.crt", "tls.crt", "tls.key"}],
    )
    again = subprocess.run([collector, "dev-certs", folder / "made"], capture_output=True, text=True, timeout=30)
    results.check("what the hook job made is not made anew over it", [] if again.returncode == 1 and "exists" in again.stderr else [again.stderr])
    return None if problems else folder / "made"


def started(world, results, name, file, found, certificates, collector, agent):
    """Checks the configuration of a shape, and starts its container."""
    stateful = next(document for document in found if document["kind"] == "StatefulSet")
    pod = stateful["spec"]["template"]["spec"]
    container = pod["containers"][0]
    maps = {document["metadata"]["name"]: document["data"] for document in found if document["kind"] == "ConfigMap"}
    user, group = pod["securityContext"]["runAsUser"], pod["securityContext"]["fsGroup"]
    with tempfile.TemporaryDirectory(prefix="tidemark-helm-pod-") as work:
        work = Path(work)
        work.chmod(0o755)
        token = secrets.token_hex(32)
        mounts, read_only = {}, []
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for number, mount in enumerate(container["volumeMounts"]):
            folder = work / f"volume-{number}"
            folder.mkdir()
            os.chown(folder, 0, group)
            folder.chmod(0o2770)
            if "projected" in volumes.get(mount["name"], {}):
                project(folder, volumes[mount["name"]]["projected"], maps, certificates, token, group)
            mounts[mount["mountPath"]] = str(folder)
            if mount.get("readOnly"):
                read_only.append(mount["mountPath"])
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        probes = [{"name": kind, "path": container[kind]["httpGet"]["path"], "port": ports[container[kind]["httpGet"]["port"]]} for kind in ("startupProbe", "livenessProbe", "readinessProbe")]
        tests = {document["spec"]["containers"][0]["name"]: document["spec"]["containers"][0]["args"] for document in found if document["kind"] == "Pod"}
        api = next(document for document in found if document["kind"] == "Service" and document["metadata"]["name"].endswith("-api"))
        address = f"http://{api['metadata']['name']}.{api['metadata']['namespace']}.svc:{api['spec']['ports'][0]['port']}"
        stopped = stateful["spec"]["replicas"] == 0
        results.check(f"programs, {name}: a test asks whether it is ready, unless it is stopped for maintenance", [] if ("ready" in tests) != stopped else [sorted(tests)])
        # In here the Service's name and port are this machine's, and the container's.
        ready = [text.replace(address, f"http://127.0.0.1:{ports[api['spec']['ports'][0]['targetPort']]}") for text in tests.get("ready", [])]
        assert stopped or ready != tests["ready"], f"the test asks {tests['ready']}, and the API's Service is {address}"
        serve = file is not None and file.name in SERVED
        job = {
            "work": str(work), "program": str(collector), "mounts": mounts, "read_only": read_only, "user": user, "group": group,
            "environment": {entry["name"]: entry["value"] for entry in container.get("env", [])}, "check": tests["check-config"], "ready": ready,
            "serve": container["args"] if serve else None, "probes": probes, "grace_seconds": pod["terminationGracePeriodSeconds"],
            "hosts": ["127.0.0.1", "[::1]"] if file and file.name == "load-balancer-values.yaml" else ["127.0.0.1"],
        }
        if file and file.name == "secret-values.yaml" and agent.exists():
            job["token"] = token
            job["agent"] = sidecar(world, work / "agent", certificates, agent)
        done = subprocess.run(["unshare", "--mount", "--net", sys.executable, HERE / "container.py"], input=json.dumps(job), capture_output=True, text=True, timeout=180)
        for line in done.stdout.splitlines():
            answer = json.loads(line)
            if "--features cloud-archive" in (answer["problem"] or ""):
                results.skip(f"programs, {name}: this collector is built without `--features cloud-archive`")
                continue
            results.check(f"programs, {name}: {answer['name']}", [answer["problem"]] if answer["problem"] else [])
        results.check(f"programs, {name}: the run ends", [done.stderr] if done.returncode else [])


def sidecar(world, work, certificates, agent):
    """The agent's container of the example application, with its volumes, as container.py takes it."""
    # All in one network: the collector's Service is this machine.
    answer = world.helms[-1].template("tidemark-agent-example", "--set", "tidemark-agent.collectors={127.0.0.1:8129}")
    assert answer.returncode == 0, answer.stderr
    pod = next(document for document in yaml.safe_load_all(answer.stdout) if document and document["kind"] == "Deployment")["spec"]["template"]["spec"]
    container = next(each for each in pod["initContainers"] if each["name"] == "tidemark-agent")
    user, group = container["securityContext"]["runAsUser"], pod["securityContext"]["fsGroup"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {}
    for mount in container["volumeMounts"]:
        folder = work / mount["name"]
        folder.mkdir(parents=True)
        os.chown(folder, 0, group)
        folder.chmod(0o2770 if mount["name"] == "tidemark-journal" else 0o2775)
        for key, name in {"ca.crt": "ca.pem", "tls.crt": "shop.pem", "tls.key": "shop.key"}.items() if "secret" in volumes[mount["name"]] else []:
            shutil.copy(certificates / name, folder / key)
            os.chown(folder / key, 0, group)
            (folder / key).chmod(0o440)
        mounts[mount["mountPath"]] = str(folder)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    name, *pre_stop = container["lifecycle"]["preStop"]["exec"]["command"]
    assert name == "tidemark-agent", f"the image holds tidemark-agent alone, in its PATH, and not {name}"
    events = Path(environment["TIDEMARK_AGENT__DOORS__EVENTS"])
    return {
        "work": str(work), "program": str(agent), "mounts": mounts, "read_only": [mount["mountPath"] for mount in container["volumeMounts"] if mount.get("readOnly")],
        "user": user, "group": group, "environment": environment, "run": container["args"], "grace_seconds": pod["terminationGracePeriodSeconds"],
        "probes": [{"name": kind, "path": container[kind]["httpGet"]["path"], "port": ports[container[kind]["httpGet"]["port"]]} for kind in ("startupProbe", "livenessProbe")],
        "pre_stop": pre_stop, "events_socket": str(Path(mounts[str(events.parent)]) / events.name),
    }


def project(folder, projected, maps, certificates, token, group):
    """Writes a projected volume's files; Secrets that are not the chart's are made up."""
    sample = (tools.ROOT / "deploy/examples/catalog.toml").read_text()
    pem = {"tls/ca.crt": "ca.pem", "tls/tls.crt": "collector.pem", "tls/tls.key": "collector.key"}
    for source in projected["sources"]:
        (kind, about), = source.items()
        for item in about["items"]:
            file = folder / item["path"]
            file.parent.mkdir(exist_ok=True)
            file.parent.chmod(0o755)
            if kind == "configMap":
                text = maps.get(about["name"], {}).get(item["key"], sample)
            else:
                text = (certificates / pem[item["path"]]).read_text() if item["path"] in pem else f"{token}\n"
            file.write_text(text)
            os.chown(file, 0, group)
            file.chmod(projected["defaultMode"])
