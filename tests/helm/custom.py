"""Custom resources, which have no schema among Kubernetes' own: what must and may stand in them, as far as charts here use it.

This is a check of structure written here from each resource's documentation, not its official schema.
"""

TEXT, WHOLE, FLAG = str, int, bool


def table(**keys):
    """A key that ends with `_` must be there."""
    return keys


def many(shape):
    return [shape]


ANY = object()
ISSUER = table(name_=TEXT, kind=TEXT, group=TEXT)
KEY = table(algorithm=TEXT, size=WHOLE, encoding=TEXT, rotationPolicy=TEXT)
CERTIFICATE = table(
    secretName_=TEXT, issuerRef_=ISSUER, commonName=TEXT, isCA=FLAG, duration=TEXT, renewBefore=TEXT, privateKey=KEY,
    usages=many(TEXT), dnsNames=many(TEXT), ipAddresses=many(TEXT), uris=many(TEXT),
)
ENDPOINT = table(port_=TEXT, path=TEXT, interval=TEXT, scrapeTimeout=TEXT, relabelings=many(ANY), metricRelabelings=many(ANY), scheme=TEXT, honorLabels=FLAG)
PORT_OF_POD = table(port=TEXT, portNumber=WHOLE, path=TEXT, interval=TEXT, scrapeTimeout=TEXT, relabelings=many(ANY), metricRelabelings=many(ANY), scheme=TEXT)
SELECTOR = table(matchLabels=ANY, matchExpressions=many(ANY))
NAMESPACES = table(any=FLAG, matchNames=many(TEXT))
RULE = table(alert=TEXT, record=TEXT, expr_=TEXT, **{"for": TEXT}, keep_firing_for=TEXT, labels=ANY, annotations=ANY)
PARENT = table(name_=TEXT, namespace=TEXT, sectionName=TEXT, group=TEXT, kind=TEXT, port=WHOLE)
BACKEND = table(name_=TEXT, port_=WHOLE)
SPECS = {
    ("cert-manager.io/v1", "Certificate"): CERTIFICATE,
    ("cert-manager.io/v1", "Issuer"): table(selfSigned=ANY, ca=table(secretName_=TEXT)),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): table(endpoints_=many(ENDPOINT), selector_=SELECTOR, namespaceSelector=NAMESPACES, jobLabel=TEXT),
    ("monitoring.coreos.com/v1", "PodMonitor"): table(podMetricsEndpoints_=many(PORT_OF_POD), selector_=SELECTOR, namespaceSelector=NAMESPACES, jobLabel=TEXT),
    ("monitoring.coreos.com/v1", "PrometheusRule"): table(groups_=many(table(name_=TEXT, interval=TEXT, limit=WHOLE, labels=ANY, rules_=many(RULE)))),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): table(
        parentRefs_=many(PARENT), hostnames=many(TEXT), rules_=many(table(matches=many(ANY), filters=many(ANY), backendRefs_=many(BACKEND)))
    ),
}


def problems(document):
    """What is wrong with a custom resource; `None` if it is none that is known here."""
    spec = SPECS.get((document["apiVersion"], document["kind"]))
    if spec is None:
        return None
    found = list(of("spec", document.get("spec"), spec))
    if unknown := set(document) - {"apiVersion", "kind", "metadata", "spec"}:
        found.append(f"unknown keys {sorted(unknown)}")
    return found


def of(place, value, shape):
    if shape is ANY:
        return
    if isinstance(shape, list):
        if not isinstance(value, list) or not value:
            yield f"{place} is no list with entries"
            return
        for index, entry in enumerate(value):
            yield from of(f"{place}[{index}]", entry, shape[0])
        return
    if not isinstance(shape, dict):
        if type(value) is not shape:
            yield f"{place} is {value!r}, and should be of type {shape.__name__}"
        return
    if not isinstance(value, dict):
        yield f"{place} is no table"
        return
    known = {name.removesuffix("_"): inner for name, inner in shape.items()}
    for name in shape:
        if name.endswith("_") and name[:-1] not in value:
            yield f"{place} lacks {name[:-1]}"
    for name, inner in value.items():
        if name not in known:
            yield f"{place} has the unknown key {name}"
        else:
            yield from of(f"{place}.{name}", inner, known[name])
