"""Mistakes in values, each of which the schema must refuse.

**Keys**: each key of values.yaml is misspelled, in one file for the chart; the refusal must name every one of them. Tables whose
keys are not ours (labels, Kubernetes' own parts) are named in `FREE`. **Values**: the list `WRONG`, one run of Helm each.
"""

import re

# Below these a key may be anything: the API server judges it.
FREE = {
    "tidemark": [
        "commonLabels", "podAnnotations", "podLabels", "podSecurityContext", "securityContext", "nodeSelector", "affinity", "*.annotations", "*.labels",
        "topologySpreadConstraints",
    ],
    "tidemark-agent-example": [
        "podAnnotations", "podLabels", "*.annotations", "*.labels", "nodeSelector", "affinity", "global", "*podSecurityContext", "*securityContext", "*.selector", "*resources.limits",
        "*resources.requests",
    ],
}

# `--set` of each: a value that is wrong, or a key that values.yaml does not show.
WRONG = {
    "tidemark": [
        "replicas=2", "replicas=0", "image.pullPolicy=Sometimes", "image.digest=2c26b46b", "image.repository=",
        "config.log_format=yaml", "config.shutdown_grace=10", "config.shutdown_grace=10sec", "config.billing.schedule=hourly", "config.billing.grace=2 days",
        "config.billing.tax_service=https://taxes", "config.session.sesions_max=10", "config.session.sessions_max=many", "config.session.receive_window=1 MB",
        "config.ledger.fold_age=5", "config.ledger.cache_bytes=1 GiB", "config.archive.url=http://bucket", "config.archive.folder=/archive",
        "config.reconcile.every=on", "config.data_dir=/data", "config.listen.http=0.0.0.0:80", "config.tls.key=/key", "config.streams.retire_after=never",
        "catalog.source=database", "catalog.file=catalog.toml", "certificates.source=cert-manager", "certificates.generate.agents[0]=ca",
        "certificates.generate.agents[0]=Shop", "certificates.generate.agents=null,certificates.generate.agents=shop", "certificates.certManager.duration=90",
        "certificates.certManager.agents[0].nmae=shop", "certificates.certManager.issuerRef.nam=ca", "certificates.secret.name=Not_A_Name",
        "api.tokens[0].name=me", "api.tokens[0].name=me,api.tokens[0].secretName=s", "api.tokens[0].name=me,api.tokens[0].sha256=abc",
        "api.tokens[0].name=me,api.tokens[0].role=root,api.tokens[0].secretName=s,api.tokens[0].secretKey=k",
        "api.tokens[0].name=me,api.tokens[0].token=0123456789abcdef", "api.tokens[0].name=a/b,api.tokens[0].secretName=s,api.tokens[0].secretKey=k",
        "persistence.accessMode=ReadWriteMany", "persistence.size=big", "persistence.whenDeleted=Keep", "service.agents.type=ExternalName",
        "service.agents.port=0", "service.agents.port=70000", "service.api.port=http", "service.ipFamilies[0]=IPv5", "service.ipFamilyPolicy=Dual",
        "service.quic.type=ClusterIP", "service.agents.externalTrafficPolicy=local", "networkPolicy.agentsFrom[0].podSelectr.a=b",
        "networkPolicy.apiFrom[0].ipBlock.cdir=10.0.0.0/8", "networkPolicy.enabled=yes", "ingress.hosts=tidemark.example.com",
        "httpRoute.parentRefs[0].nam=public", "terminationGracePeriodSeconds=5", "startupProbe.httpGet.path=/", "livenessProbe.periodSeconds=0",
        "readinessProbe.initialDelay=3", "resources.limit.memory=1Gi", "resources.limits.memry=1Gi", "extraArgs[0]=--config", "extraEnv[0].nam=A",
        "extraVolumes[0].emptyDir.medium=Memory", "maintenance.args=fsck", "serviceMonitor.interval=30", "prometheusRule.enabled=maybe",
        "dashboards.namespace=Monitoring Team", "fullnameOverride=Tidemark", "topologySpreadConstraints[0].maxSkw=1", "serviceAccount.automout=true",
        "podDisruptionBudget.maxUnavailable=2",
    ],
}

# What the schema cannot say, templates refuse: `--set`, and what the message must hold.
REFUSED = {
    "tidemark": [
        ("config.shutdown_grace=5m", "needs at least 315"),
        ("terminationGracePeriodSeconds=20", "needs at least 25"),
        ("certificates.source=secret", "certificates.secret.name"),
        ("certificates.source=certManager,certificates.certManager.createIssuer=false", "issuerRef.name"),
        ("certificates.source=certManager,certificates.certManager.agents[0].name=a,certificates.certManager.agents[0].namespace=other", "ClusterIssuer"),
        ("archive.enabled=true,config.archive.url=s3://a/b", "exclude each other"),
        ("config.billing.tax_service=http://taxes", "networkPolicy.egress.to"),
        ("config.certificate.anchor_url=http://anchors", "networkPolicy.egress.to"),
        ("ingress.enabled=true", "ingress.hosts"),
        ("httpRoute.enabled=true", "httpRoute.parentRefs"),
        ("maintenance.enabled=true,persistence.enabled=false", "maintenance needs persistence"),
    ],
}


def is_free(chart, path):
    for pattern in FREE.get(chart, []):
        expression = re.escape(pattern).replace(r"\*", ".*")
        if re.fullmatch(expression + r"(\..*)?", path):
            return True
    return False


def misspelled(chart, values):
    """The same tables with a wrong key beside each key, and these wrong keys. Their numbers tell apart those of one name."""
    names = []

    def of(table, path):
        copy = {}
        for key, value in table.items():
            place = f"{path}.{key}" if path else key
            names.append(f"{key}X{len(names)}")
            copy[names[-1]] = value
            if isinstance(value, dict) and value and not is_free(chart, place):
                copy[key] = of(value, place)
        return copy

    return of(values, ""), names
