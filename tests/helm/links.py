"""Whether what was rendered fits together: selectors find pods, ports are there, and what pods mount is made by somebody.

A Secret, ConfigMap or claim may come from the chart, from a Certificate or the hook job, or be named by the values file.
"""

import re

import restricted

# The agent's Secret and claim, which whoever uses the library chart makes.
GIVEN = {("Secret", "rel-tidemark-agent"), ("PersistentVolumeClaim", "rel-journal")}
WORKLOADS = {"StatefulSet", "Deployment", "DaemonSet"}
IDENTITY = re.compile(r"tidemark://(agent|drainer)/[A-Za-z0-9._-]+")


def problems(documents, values):
    """`values` is the values file's text."""
    by_kind = lambda kind: [document for document in documents if document["kind"] == kind]
    running = [document["spec"]["template"] for document in documents if document["kind"] in WORKLOADS]
    others = [metadata for document in documents if document["kind"] not in WORKLOADS for _, metadata, _ in restricted.pods(document)]
    for service in by_kind("Service"):
        name, spec = f"Service/{service['metadata']['name']}", service["spec"]
        found = [pod for pod in running if selects(spec["selector"], pod["metadata"]["labels"])]
        if not found:
            yield f"{name} selects no pod"
        if any(selects(spec["selector"], metadata.get("labels", {})) for metadata in others):
            yield f"{name} selects the pod of a job or test"
        for pod in found:
            for port in spec.get("ports", []):
                if (port["targetPort"], port.get("protocol", "TCP")) not in ports(pod["spec"]):
                    yield f"{name}: no container has the port {port['targetPort']} ({port.get('protocol', 'TCP')})"
    for kind, place in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        for document in by_kind(kind):
            if not any(selects(document["spec"][place]["matchLabels"], pod["metadata"]["labels"]) for pod in running):
                yield f"{kind}/{document['metadata']['name']} selects no pod"
    for policy in by_kind("NetworkPolicy"):
        yield from of_policy(policy, running)
    for document in by_kind("ServiceMonitor"):
        wanted = document["spec"]["selector"]["matchLabels"]
        found = [service for service in by_kind("Service") if selects(wanted, service["metadata"].get("labels", {}))]
        if len(found) != 1:
            yield f"ServiceMonitor/{document['metadata']['name']} selects {len(found)} Services"
        elif not {endpoint["port"] for endpoint in document["spec"]["endpoints"]} <= {port["name"] for port in found[0]["spec"]["ports"]}:
            yield f"ServiceMonitor/{document['metadata']['name']} names a port that its Service lacks"
    yield from of_routes(documents, by_kind("Service"))
    for certificate in by_kind("Certificate"):
        for uri in certificate["spec"].get("uris", []):
            if not IDENTITY.fullmatch(uri):
                yield f"Certificate/{certificate['metadata']['name']}: {uri} is no agent's name"
    yield from of_pods(documents, values)


def selects(wanted, labels):
    return bool(wanted) and all(labels.get(key) == value for key, value in wanted.items())


def ports(spec):
    found = set()
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        for port in container.get("ports", []):
            protocol = port.get("protocol", "TCP")
            found |= {(port["containerPort"], protocol), (port.get("name"), protocol)}
    return found


def of_policy(policy, running):
    """What the policy lets in to are ports of the pods, and all that their Services and probes need are among them."""
    name = f"NetworkPolicy/{policy['metadata']['name']}"
    there = {port for pod in running if selects(policy["spec"]["podSelector"]["matchLabels"], pod["metadata"]["labels"]) for port in ports(pod["spec"])}
    for rule in policy["spec"].get("ingress", []):
        for port in rule.get("ports", []):
            if (port["port"], port.get("protocol", "TCP")) not in there:
                yield f"{name} lets in to {port['port']} ({port.get('protocol', 'TCP')}), which no container has"


def of_routes(documents, services):
    named = {(service["metadata"]["name"], key) for service in services for port in service["spec"].get("ports", []) for key in (port["name"], port["port"])}
    for document in documents:
        used = []
        if document["kind"] == "Ingress":
            backends = [path["backend"]["service"] for rule in document["spec"]["rules"] for path in rule["http"]["paths"]]
            used = [(backend["name"], backend["port"].get("name", backend["port"].get("number"))) for backend in backends]
        elif document["kind"] == "HTTPRoute":
            used = [(backend["name"], backend["port"]) for rule in document["spec"]["rules"] for backend in rule["backendRefs"]]
        for backend in used:
            if backend not in named:
                yield f"{document['kind']}/{document['metadata']['name']}: there is no Service {backend[0]} with the port {backend[1]}"


def of_pods(documents, values):
    names = lambda kind: {document["metadata"]["name"] for document in documents if document["kind"] == kind}
    keys = {document["metadata"]["name"]: set(document.get("data", {})) for document in documents if document["kind"] == "ConfigMap"}
    made = {document["spec"]["secretName"] for document in documents if document["kind"] == "Certificate"} | names("Secret")
    for document in documents:
        for _, _, spec in restricted.pods(document):
            for container in [*spec.get("initContainers", []), *spec["containers"]]:
                arguments = container.get("args", [])
                if arguments[:3] == ["create", "secret", "generic"]:
                    made.add(arguments[3])
    given = lambda name: re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", values) is not None
    for document in documents:
        for pod, _, spec in restricted.pods(document):
            account = spec.get("serviceAccountName", "default")
            if account != "default" and account not in names("ServiceAccount") and not given(account):
                yield f"{pod}: nobody makes the ServiceAccount {account}"
            volumes = {volume["name"] for volume in spec.get("volumes", [])}
            volumes |= {claim["metadata"]["name"] for claim in document["spec"].get("volumeClaimTemplates", [])}
            for container in [*spec.get("initContainers", []), *spec["containers"]]:
                for mount in container.get("volumeMounts", []):
                    if mount["name"] not in volumes:
                        yield f"{pod}, {container['name']}: there is no volume {mount['name']}"
            for kind, name, items in references(spec):
                if kind == "ConfigMap" and name in keys:
                    yield from (f"{pod}: the ConfigMap {name} has no {key}" for key in items if key not in keys[name])
                elif kind == "Secret" and name in made or given(name) or (kind, name) in GIVEN:
                    continue
                elif kind == "PersistentVolumeClaim" and (name in names(kind) or name.startswith("data-")):
                    continue
                else:
                    yield f"{pod}: nobody makes the {kind} {name}"


def references(spec):
    """(kind, name, keys) of what the pod's volumes are made of."""
    for volume in spec.get("volumes", []):
        sources = volume["projected"]["sources"] if "projected" in volume else [volume]
        for source in sources:
            if "configMap" in source:
                yield "ConfigMap", source["configMap"]["name"], [item["key"] for item in source["configMap"].get("items", [])]
            elif "secret" in source:
                yield "Secret", source["secret"].get("name") or source["secret"]["secretName"], []
            elif "persistentVolumeClaim" in source:
                yield "PersistentVolumeClaim", source["persistentVolumeClaim"]["claimName"], []
