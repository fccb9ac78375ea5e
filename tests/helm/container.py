"""Runs one rendered container of the collector as a node would, and asks it what its probes ask; with a rendered agent beside it,
an event goes through both to a bill. Started by programs.py as

    unshare --mount --net python container.py < job.json

with mounts and a network of its own: nothing outside is touched, and the rendered ports are free. The root holds the program and
the libraries that it is linked to, read-only; the user is that of the security context. One JSON object a line answers.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

SECONDS_MAX = 20


class Stopped(Exception):
    """What comes after a failure is not asked."""


def say(name, problem=None):
    print(json.dumps({"name": name, "problem": problem}), flush=True)
    if problem:
        raise Stopped


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


def root_of(job):
    """A root with what the image has, and the pod's volumes."""
    root = Path(job["work"]) / "root"
    root.mkdir(parents=True)
    mount("--make-rprivate", "/")
    mount("--bind", str(root), str(root))
    for name in ("lib", "lib64", "usr/lib"):
        source = Path("/") / name
        if source.exists():
            target = root / name
            target.mkdir(parents=True)
            mount("--bind", str(source), str(target))
    for name in ("dev", "proc"):
        (root / name).mkdir()
        mount("--rbind", f"/{name}", str(root / name))
    (root / "program").touch()
    mount("--bind", job["program"], str(root / "program"))
    for path, source in job["mounts"].items():
        target = root / path.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        mount("--bind", source, str(target))
        if path in job["read_only"]:
            mount("-o", "remount,bind,ro", str(target))
    mount("-o", "remount,bind,ro", str(root))
    return root


def command(job, root, arguments):
    user = f"{job['user']}:{job['group']}"
    return ["chroot", f"--userspec={user}", f"--groups={job['group']}", str(root), "/program", *arguments]


def environment(job):
    return {"PATH": os.environ["PATH"], **job["environment"]}


def check_config(job, root):
    done = subprocess.run(command(job, root, job["check"]), env=environment(job), capture_output=True, text=True, timeout=SECONDS_MAX)
    say("check-config takes it", None if done.returncode == 0 else done.stdout + done.stderr)


def ask(host, port, path, headers=None):
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}{path}", headers=headers or {}), timeout=2) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return None, str(error)


def until(ask_it):
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        good, told = ask_it()
        if good or time.monotonic() > deadline:
            return None if good else told
        time.sleep(0.05)


def serve(job, root):
    log = Path(job["work"]) / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(command(job, root, job["serve"]), env=environment(job), stderr=errors)
    try:
        for host in job["hosts"]:
            for probe in job["probes"]:
                problem = until(lambda: (lambda answer: (answer[0] == 200, f"{answer}"))(ask(host, probe["port"], probe["path"])))
                say(f"{probe['name']} {probe['path']} is answered at {host}", problem and problem + "\n" + log.read_text())
            say(f"agents can connect over TCP at {host}", until(lambda: connects(host, 8129)))
        asked = subprocess.run(command(job, root, job["ready"]), env=environment(job), capture_output=True, text=True, timeout=SECONDS_MAX)
        say("the test that asks whether it is ready passes", None if asked.returncode == 0 else asked.stdout + asked.stderr)
        listening = Path("/proc/self/net/udp").read_text() + Path("/proc/self/net/udp6").read_text()
        say("it listens for QUIC", None if ":1FC1 " in listening else "no socket of UDP 8129")
        if job.get("agent"):
            to_a_bill(job)
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=job["grace_seconds"])
        say("SIGTERM ends it in order, within the pod's grace", None if code == 0 else f"exit code {code}: {log.read_text()}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def connects(host, port):
    try:
        socket.create_connection((host.strip("[]"), port), timeout=2).close()
        return True, None
    except OSError as error:
        return False, str(error)


def to_a_bill(job):
    """One event by datagram and one by the acknowledged socket, through the rendered agent, with a certificate of the hook job."""
    agent = job["agent"]
    root, log = root_of(agent), Path(agent["work"]) / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(command(agent, root, agent["run"]), env=environment(agent), stderr=errors)
    try:
        for probe in agent["probes"]:
            problem = until(lambda: (lambda answer: (answer[0] == 200, f"{answer}"))(ask("127.0.0.1", probe["port"], probe["path"])))
            say(f"the agent: {probe['name']} {probe['path']} is answered", problem and problem + "\n" + log.read_text())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
            door.sendto(b"api.calls:1500|c|#customer:acme,id:one", ("127.0.0.1", 8125))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            door.settimeout(SECONDS_MAX)
            door.connect(agent["events_socket"])
            door.sendall(b"api.calls:1000|c|#customer:acme,id:two\n")
            answer = door.recv(1024).decode()
        say("the agent's socket says that an event is on disk", None if "durable" in answer else answer)

        def billed():
            answer = ask("127.0.0.1", 8130, "/v1/customers/acme/bill", {"Authorization": f"Bearer {job['token']}"})
            return answer[0] == 200 and json.loads(answer[1])["total"] == "1.00", f"{answer}\n{log.read_text()}"

        say("what was sent to the agent is on a bill", until(billed))
        hook = subprocess.run(command(agent, root, agent["pre_stop"]), env=environment(agent), capture_output=True, text=True, timeout=SECONDS_MAX)
        near = json.loads(ask("127.0.0.1", agent["probes"][0]["port"], "/status")[1])["stop_is_near"]
        say("the agent: its hook before the stop is taken", None if hook.returncode == 0 and near else f"{near}: {hook.stdout}{hook.stderr}")
        process.terminate()
        code = process.wait(timeout=agent["grace_seconds"])
        say("the agent: SIGTERM ends it in order, within the pod's grace", None if code == 0 else f"exit code {code}: {log.read_text()}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def main():
    job = json.load(sys.stdin)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    root = root_of(job)
    try:
        check_config(job, root)
        if job.get("serve"):
            serve(job, root)
    except Stopped:
        pass


main()
