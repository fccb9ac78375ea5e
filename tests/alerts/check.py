"""What deploy/alerts, deploy/grafana, deploy/docs/runbooks.md and deploy/docs/metrics.md say, against what is.

1. promtool passes the rules and their unit tests; each alert is tested to fire and to clear.
2. Each alert has severity, component, summary, description and an existing section of the runbooks; each section an alert.
3. Two real programs are started and sent usage: metrics.md names exactly what they answer, with types, labels and values.
4. Every metric in rules and dashboards exists, and every query of a dashboard runs in a real Prometheus.
5. The collector is stopped: the backlog alert fires. It is started again: the alert clears.

Needs no package. Thresholds and delays of step 5 are shortened in a copy of the rules, which the output says.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy/alerts"
DASHBOARDS = sorted((ROOT / "deploy/grafana").glob("*.json"))
RUNBOOKS = ROOT / "deploy/docs/runbooks.md"
METRICS = ROOT / "deploy/docs/metrics.md"
RUNBOOK_URL = "https://github.com/tidemark/tidemark/blob/main/deploy/docs/runbooks.md#"
OWN_METRIC = re.compile(r"\btidemark_(?:agent|collector)_[a-z0-9_]+")
# Whose values differ from one installation to the next; all others are named in metrics.md.
FREE_LABELS = {"stream", "agent", "version", "ledger"}
SEVERITIES = {"critical", "warning", "info"}

passed, failures = 0, []
started = time.monotonic()


def say(text):
    print(f"{time.monotonic() - started:5.1f} s  {text}", flush=True)


def check(name, problems):
    """One check: passes if there are no problems."""
    global passed
    problems = list(problems)
    if problems:
        failures.append(name)
        say(f"FAILED  {name}")
        for problem in problems:
            print(f"            {problem}", flush=True)
    else:
        passed += 1
        say(f"ok      {name}")


def until(what, seconds, condition):
    """Waits until the condition gives something, and returns that; None after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError):
            found = condition()
            if found:
                return found
        time.sleep(0.25)
    say(f"waited {seconds} s in vain for: {what}")
    return None


# ---- 1 and 2: files alone


def alerts_of_rules():
    """name -> (group, text) of each alert, from the file."""
    alerts, group = {}, ""
    for block in re.split(r"(?m)^(?=\s+- (?:name|alert): )", (ALERTS / "tidemark.rules.yaml").read_text()):
        if found := re.match(r"\s+- name: (\S+)", block):
            group = found[1]
        elif found := re.match(r"\s+- alert: (\S+)", block):
            alerts[found[1]] = (group, block)
    return alerts


def check_files(alerts):
    rules = str(ALERTS / "tidemark.rules.yaml")
    found = run("promtool", "check", "rules", rules)
    check("promtool check rules", [] if found.returncode == 0 else [found.stdout + found.stderr])
    texts = ""
    for tests in sorted(ALERTS.glob("*.test.yaml")):
        found = run("promtool", "test", "rules", str(tests))
        check(f"promtool test rules {tests.name}", [] if found.returncode == 0 else [found.stdout + found.stderr])
        texts += tests.read_text()
    check("each alert is tested to fire, and not to", untested(alerts, texts))
    check("each alert says what it must, and its runbook exists", incomplete(alerts))
    check("each section of the runbooks is of an alert, and complete", unfounded(alerts))
    check("links within runbooks.md and metrics.md lead somewhere", dead_links())
    for path in DASHBOARDS:
        check(f"{path.name} is complete", dashboard_problems(json.loads(path.read_text())))
    uids = [json.loads(path.read_text())["uid"] for path in DASHBOARDS]
    check("there are three dashboards, with ids of their own", [] if len(set(uids)) == 3 == len(uids) else [str(uids)])


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def untested(alerts, tests):
    cases = re.split(r"(?m)^\s+- eval_time: ", tests)[1:]
    for name in alerts:
        of_it = [case for case in cases if re.search(rf"alertname: {name}$", case, re.M)]
        fires = [index for index, case in enumerate(of_it) if "exp_labels" in case]
        if not fires:
            yield f"{name}: no test that it fires"
            continue
        if not any("exp_labels" not in case for case in of_it[: fires[0]]):
            yield f"{name}: no test that it does not fire before"
        if not any("exp_labels" not in case for case in of_it[fires[0] :]):
            yield f"{name}: no test that it clears"


def incomplete(alerts):
    anchors = headings(RUNBOOKS)
    for name, (_, text) in alerts.items():
        severity = re.search(r"severity: (\S+)", text)
        if not severity or severity[1] not in SEVERITIES:
            yield f"{name}: severity is none of {sorted(SEVERITIES)}"
        for key in ("component", "summary", "description"):
            if not re.search(rf"(?m)^\s+{key}: \S", text):
                yield f"{name}: no {key}"
        url = re.search(r"runbook_url: (\S+)", text)
        if not url or not url[1].startswith(RUNBOOK_URL):
            yield f"{name}: no runbook_url in {RUNBOOK_URL}"
        elif url[1][len(RUNBOOK_URL) :] not in anchors:
            yield f"{name}: {url[1]} leads to no heading of {RUNBOOKS.name}"
        elif url[1][len(RUNBOOK_URL) :] != name.lower():
            yield f"{name}: {url[1]} is another alert's"


def unfounded(alerts):
    for section in re.split(r"(?m)^### ", RUNBOOKS.read_text())[1:]:
        name, text = section.split("\n", 1)
        if name not in alerts:
            yield f"{name}: no such alert"
        for part in ("Means", "At risk", "Do", "Over"):
            if f"**{part}**:" not in text:
                yield f"{name}: no {part}"


def headings(path):
    """Anchors as GitHub makes them."""
    lines = re.findall(r"(?m)^#+ (.+)$", path.read_text())
    return {re.sub(r"[^a-z0-9 _-]", "", line.lower()).replace(" ", "-") for line in lines}


def dead_links():
    for page in (RUNBOOKS, METRICS):
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
            if target.startswith("http"):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.exists():
                yield f"{page.name}: {target}: no such file"
            elif anchor and anchor not in headings(file):
                yield f"{page.name}: {target}: no such heading"


def dashboard_problems(dashboard):
    if dashboard.get("schemaVersion", 0) < 39:
        yield "schemaVersion is below 39"
    for key in ("uid", "title", "description", "tags", "links"):
        if not dashboard.get(key):
            yield f"no {key}"
    names = [variable["name"] for variable in dashboard["templating"]["list"]]
    if names[0] != "datasource":
        yield "the first variable is not the data source"
    anchors, seen, room = headings(RUNBOOKS), set(), []
    for panel in dashboard["panels"]:
        title, grid = panel["title"], panel["gridPos"]
        if panel["id"] in seen:
            yield f"{title}: its id is taken"
        seen.add(panel["id"])
        for other, of_it in room:
            apart = (
                grid["x"] + grid["w"] <= of_it["x"] or of_it["x"] + of_it["w"] <= grid["x"]
                or grid["y"] + grid["h"] <= of_it["y"] or of_it["y"] + of_it["h"] <= grid["y"]
            )
            if not apart:
                yield f"{title}: lies over {other}"
        room.append((title, grid))
        if panel["type"] == "row":
            continue
        if not panel.get("description"):
            yield f"{title}: no description"
        if not panel["fieldConfig"]["defaults"].get("unit"):
            yield f"{title}: no unit"
        for link in panel.get("links", []):
            if link["url"].removeprefix(RUNBOOK_URL) not in anchors:
                yield f"{title}: {link['url']} leads nowhere"
        for holder in [panel, *panel["targets"]]:
            if holder["datasource"]["uid"] != "${datasource}":
                yield f"{title}: another data source than the variable"


def queries(dashboard):
    """(where, expression) of all panels and variables, with Grafana's variables replaced."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], filled(target["expr"])
    for variable in dashboard["templating"]["list"]:
        if found := re.match(r"label_values\((.+), \w+\)$", variable.get("definition", "")):
            yield f"variable {variable['name']}", filled(found[1])


def filled(expression):
    expression = expression.replace("$__rate_interval", "1m")
    return re.sub(r"\$\{?(?:job|instance)\}?", ".+", expression)


# ---- 3 to 5: real programs


class World:
    """A collector, an agent and a Prometheus, in a scratch folder."""

    def __init__(self, folder):
        self.folder, self.running = folder, {}
        self.agent_program = str(Path(os.environ["TIDEMARK_AGENT"]).resolve())
        self.collector_program = str(Path(os.environ["TIDEMARK_COLLECTOR"]).resolve())
        names = ("uplink", "api", "udp", "http", "admin", "prometheus")
        self.ports = dict(zip(names, free_ports(len(names))))

    def start(self, name, *command):
        log = (self.folder / f"{name}.log").open("ab")
        self.running[name] = subprocess.Popen(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )

    def stop(self, name):
        process = self.running.pop(name)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop_all(self):
        for name in list(self.running):
            self.stop(name)

    def make_files(self):
        subprocess.run(
            [self.collector_program, "dev-certs", "certs"], cwd=self.folder, check=True, capture_output=True, timeout=60
        )
        shutil.copy(ROOT / "deploy/examples/catalog.toml", self.folder / "catalog.toml")
        (self.folder / "archive").mkdir()
        ports = self.ports
        (self.folder / "collector.toml").write_text(f"""
data_dir = "ledger"
catalog = "catalog.toml"
[archive]
folder = "archive"
every = "1s"
[reconcile]
every = "1s"
[listen]
quic = "127.0.0.1:{ports['uplink']}"
http = "127.0.0.1:{ports['api']}"
[tls]
ca = "certs/ca.pem"
certificate = "certs/collector.pem"
key = "certs/collector.key"
""")
        (self.folder / "agent.toml").write_text(f"""
[uplink]
collectors = ["127.0.0.1:{ports['uplink']}"]
server_name = "localhost"
ca = "certs/ca.pem"
certificate = "certs/agent.pem"
key = "certs/agent.key"
[journal]
path = "journal.redb"
[doors]
udp = ["127.0.0.1:{ports['udp']}"]
http = ["127.0.0.1:{ports['http']}"]
unix_datagram = "dsd.socket"
dsd_stream = "dsd-stream.socket"
events = "events.socket"
[admin]
listen = "127.0.0.1:{ports['admin']}"
""")
        (self.folder / "prometheus.yml").write_text(f"""
global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}
rule_files: [rules.yaml]
scrape_configs:
  - job_name: tidemark-agent
    static_configs: [{{ targets: ["127.0.0.1:{ports['admin']}"] }}]
  - job_name: tidemark-collector
    static_configs: [{{ targets: ["127.0.0.1:{ports['api']}"] }}]
""")
        rules, delays = re.subn(r"(?m)^(\s+for:) \w+$", r"\1 2s", (ALERTS / "tidemark.rules.yaml").read_text())
        old, new = "tidemark_agent_oldest_unposted_age_seconds > 60\n", "tidemark_agent_oldest_unposted_age_seconds > 5\n"
        assert rules.count(old) == 1, "the threshold of TidemarkAgentBacklogOld is not where it was"
        (self.folder / "rules.yaml").write_text(rules.replace(old, new))
        say(f"live rules: all {delays} `for` are 2s, TidemarkAgentBacklogOld from 5 s on in place of 60; evaluated each second")

    def start_collector(self):
        self.start("collector", self.collector_program, "serve", "--config", "collector.toml")

    def start_agent(self):
        self.start("agent", self.agent_program, "run", "--config", "agent.toml")

    def start_prometheus(self):
        self.start(
            "prometheus", "prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=prometheus",
            f"--web.listen-address=127.0.0.1:{self.ports['prometheus']}", "--log.level=warn",
        )

    def send(self, *lines):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            for line in lines:
                udp.sendto(line.encode(), ("127.0.0.1", self.ports["udp"]))

    def scrape(self, name):
        return get(f"http://127.0.0.1:{self.ports[name]}/metrics")

    def sample(self, name, metric):
        found = re.search(rf"(?m)^{re.escape(metric)} (\S+)$", self.scrape(name))
        return float(found[1]) if found else None

    def ask(self, path, **parameters):
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        return json.loads(get(f"http://127.0.0.1:{self.ports['prometheus']}/api/v1/{path}{query}"))

    def firing(self):
        alerts = self.ask("alerts")["data"]["alerts"]
        return {alert["labels"]["alertname"]: alert["labels"] for alert in alerts if alert["state"] == "firing"}


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        # Prometheus says what is wrong with a query in the body.
        return error.read().decode()


def free_ports(count):
    """Ports that are free for TCP and UDP on loopback at this moment."""
    ports, held = [], []
    while len(ports) < count:
        tcp = socket.socket()
        tcp.bind(("127.0.0.1", 0))
        held.append(tcp)
        port = tcp.getsockname()[1]
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        held.append(udp)
        with contextlib.suppress(OSError):
            udp.bind(("127.0.0.1", port))
            ports.append(port)
    for one in held:
        one.close()
    return ports


class Seen:
    """All that was ever scraped: type, labels and their values of each metric, and the names of its samples."""

    def __init__(self):
        self.types, self.labels, self.values, self.samples = {}, {}, {}, set()

    def take(self, text):
        kind, base = "", ""
        for line in text.splitlines():
            if found := re.match(r"# TYPE (\S+) (\S+)", line):
                base, kind = found.groups()
            elif found := re.match(r"([a-z0-9_]+)(?:\{(.*)\})? \S+$", line):
                name = found[1]
                assert name.startswith(base), f"{name} follows the type of {base}"
                self.samples.add(name)
                labels = dict(re.findall(r'(\w+)="([^"]*)"', found[2] or ""))
                if kind == "histogram":
                    # Documented once, by the name that its buckets, sum and count share.
                    name = base
                    labels.pop("le", None)
                self.types[name] = kind
                self.labels.setdefault(name, set()).update(labels)
                for label, value in labels.items():
                    if label not in FREE_LABELS:
                        self.values.setdefault(label, set()).add(value)


def check_live(world, alerts):
    seen = Seen()
    world.make_files()
    world.start_collector()
    world.start_agent()
    check("an agent connects to a collector", connected(world))
    world.send(
        "api.calls:1:2:3|c|#customer:acme,region:eu", "unknown.meter:1|c|#customer:acme", "api.calls:1|c|#customer:acme,id:a",
        "api.calls:1|c|#customer:acme,id:a,colour:red", "api.calls:1|c", "api.calls:x|c|#customer:acme", "datadog.x:1|c",
    )
    posted = until("5 events are posted", 20, lambda: world.sample("admin", "tidemark_agent_posted_events_total") == 5)
    # Evidence travels in the next batch; the last one makes sure that there is one.
    world.send("api.calls:1|c|#customer:acme,region:eu")
    posted = posted and until("6 events are posted", 20, lambda: world.sample("api", "tidemark_collector_streams_posted_events_total") == 6)
    swept = until("a reconciliation", 20, lambda: "reconcile_last_seconds" in world.scrape("api"))
    check("events are posted, and reconciled", [] if posted and swept else ["see above"])
    # Metrics of billing runs begin with the first one. There is no seller, so that it issues nothing.
    first = time.strftime("%Y-%m-01", time.gmtime())
    bill = [world.collector_program, "bill", "--config", "collector.toml", "--period-end", first]
    ran = subprocess.run(bill, cwd=world.folder, capture_output=True, text=True, timeout=30, check=False)
    check("a billing run comes to its end", [] if ran.returncode in (0, 1) else [ran.stdout + ran.stderr])
    world.start_prometheus()
    up = until("both targets are up", 30, lambda: len(world.ask("query", query="up == 1")["data"]["result"]) == 2)
    check("a real Prometheus scrapes both", [] if up else [log_end(world, "prometheus")])
    until("some scrapes", 5, lambda: len(world.ask("query", query="up[1m]")["data"]["result"][0]["values"]) >= 4)
    for name in ("admin", "api"):
        seen.take(world.scrape(name))
    check_loaded(world, alerts)
    check_backlog(world, seen)
    check_queries(world)
    check_metrics(seen, alerts)


def connected(world):
    state = 'tidemark_agent_session_state{state="connected"}'
    if not until("a session", 30, lambda: world.sample("admin", state) == 1):
        yield log_end(world, "agent")
        yield log_end(world, "collector")


def log_end(world, name):
    return f"{name}: " + "\n".join((world.folder / f"{name}.log").read_text().splitlines()[-5:])


def check_loaded(world, alerts):
    groups = world.ask("rules")["data"]["groups"]
    loaded = {rule["name"]: rule for group in groups for rule in group["rules"]}
    problems = [f"{name} is not loaded" for name in alerts if name not in loaded]
    problems += [f"{name}: {rule['lastError']}" for name, rule in loaded.items() if rule.get("lastError")]
    check(f"Prometheus evaluates all {len(alerts)} alerts without an error", problems)
    critical = [name for name, labels in world.firing().items() if labels["severity"] == "critical"]
    check("in good order no critical alert fires", critical)


def check_backlog(world, seen):
    say("the collector is stopped")
    world.stop("collector")
    live, stop = time.monotonic(), ("TidemarkAgentBacklogOld", "TidemarkCollectorDown")

    def fires():
        world.send("api.calls:1|c|#customer:acme,region:eu")
        seen.take(world.scrape("admin"))
        return set(stop) <= set(world.firing())

    fired = until(f"{' and '.join(stop)} fire", 40, fires)
    check(f"without a collector {' and '.join(stop)} fire", [] if fired else [str(world.firing())])
    # Growth is measured over ten seconds.
    until("the time to full", 25, lambda: fires() is None or "tidemark_agent_time_to_full_seconds" in seen.types)
    say("the collector is started again")
    world.start_collector()
    cleared = until(f"{' and '.join(stop)} clear", 45, lambda: not set(stop) & set(world.firing()))
    check("with a collector they clear", [] if cleared else [str(world.firing()), log_end(world, "agent")])
    calm = until(
        "no critical alert fires", 20,
        lambda: not [name for name, labels in world.firing().items() if labels["severity"] == "critical"],
    )
    check("afterwards no critical alert fires", [] if calm else [str(world.firing())])
    same = until(
        "all is posted", 20,
        lambda: world.sample("admin", "tidemark_agent_accepted_events_total")
        == world.sample("api", "tidemark_collector_streams_posted_events_total"),
    )
    check("all that was accepted meanwhile is posted", [] if same else ["accepted and posted differ"])
    for name in ("admin", "api"):
        seen.take(world.scrape(name))
    took = time.monotonic() - live
    check("the live test takes less than 90 s", [] if took < 90 else [f"{took:.0f} s"])


def check_queries(world):
    for path in DASHBOARDS:
        problems, answered, asked = [], 0, 0
        for where, expression in queries(json.loads(path.read_text())):
            answer = world.ask("query", query=expression)
            asked += 1
            if answer["status"] != "success":
                problems.append(f"{where}: {answer.get('error')}: {expression}")
            elif answer["data"]["result"]:
                answered += 1
        check(f"{path.name}: all {asked} queries run ({answered} find something now)", problems)


def check_metrics(seen, alerts):
    documented = {}
    for name, kind, labels in re.findall(r"(?m)^\| `(tidemark_\w+)` \| (\w+) \|([^|]*)\|", METRICS.read_text()):
        documented[name] = (kind, set(re.findall(r"`(\w+)`", labels)))
    check(f"the programs answer all {len(documented)} metrics of {METRICS.name}", sorted(set(documented) - set(seen.types)))
    check(f"{METRICS.name} has all {len(seen.types)} metrics of the programs", sorted(set(seen.types) - set(documented)))
    both = sorted(set(documented) & set(seen.types))
    found = {name: (seen.types[name], seen.labels[name]) for name in both}
    differ = [f"{name}: {documented[name]} documented, {found[name]} found" for name in both if documented[name] != found[name]]
    check("types and labels are those documented", differ)
    words = set(re.findall(r"`([\w.]+)`", METRICS.read_text()))
    unknown = [f'{label}="{value}"' for label, values in seen.values.items() for value in sorted(values - words)]
    check("all label values that were seen are documented", unknown)
    absent = [
        f"{name}: {metric}"
        for name, (_, text) in alerts.items()
        for metric in sorted(set(OWN_METRIC.findall(text)) - seen.samples)
    ]
    check("every metric of the rules exists", absent)
    for path in DASHBOARDS:
        used = {metric for _, query in queries(json.loads(path.read_text())) for metric in OWN_METRIC.findall(query)}
        check(f"every one of {len(used)} metrics of {path.name} exists", sorted(used - seen.samples))


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    alerts = alerts_of_rules()
    check_files(alerts)
    with tempfile.TemporaryDirectory(prefix="tidemark-alerts-") as folder:
        world = World(Path(folder))
        try:
            check_live(world, alerts)
        except Exception as error:
            # What goes wrong here is a failed check too.
            check("the live test comes to its end", [repr(error)])
        finally:
            world.stop_all()
    if failures:
        print("failed: " + "; ".join(failures))
    print(f"{passed} passed, {len(failures)} failed")
    return 1 if failures else 0


sys.exit(main())
