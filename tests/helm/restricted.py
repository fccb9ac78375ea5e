"""The `restricted` pod security standard, rule by rule (https://kubernetes.io/docs/concepts/security/pod-security-standards/).

What a pod says holds for a container that does not say otherwise, as the standard has it.
"""

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
}
SELINUX = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def pods(document):
    """The pod that a document makes, as (name, pod spec)."""
    kind = document["kind"]
    name = f"{kind}/{document['metadata']['name']}"
    if kind == "Pod":
        yield name, document["metadata"], document["spec"]
    elif kind == "CronJob":
        template = document["spec"]["jobTemplate"]["spec"]["template"]
        yield name, template.get("metadata", {}), template["spec"]
    elif kind in {"Deployment", "StatefulSet", "DaemonSet", "Job", "ReplicaSet"}:
        template = document["spec"]["template"]
        yield name, template.get("metadata", {}), template["spec"]


def problems(metadata, spec):
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield f"{key} is set"
    if spec.get("securityContext", {}).get("windowsOptions", {}).get("hostProcess"):
        yield "it is a host process"
    for key in metadata.get("annotations") or {}:
        if key.startswith("container.apparmor.security.beta.kubernetes.io/"):
            yield "AppArmor by annotation"
    for volume in spec.get("volumes", []):
        kinds = set(volume) - {"name"}
        if not kinds or kinds - VOLUMES:
            yield f"the volume {volume['name']} is of a kind that is not allowed: {sorted(kinds)}"
    pod = spec.get("securityContext", {})
    for sysctl in pod.get("sysctls", []):
        if sysctl["name"] not in SYSCTLS:
            yield f"the sysctl {sysctl['name']}"
    if pod.get("runAsUser") == 0:
        yield "the pod runs as root"
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind, []):
            for problem in of_container(container, pod):
                yield f"{container['name']}: {problem}"


def of_container(container, pod):
    own = container.get("securityContext", {})
    effective = lambda key: own.get(key, pod.get(key))
    if own.get("privileged"):
        yield "it is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if effective("runAsNonRoot") is not True:
        yield "runAsNonRoot is not true"
    if own.get("runAsUser") == 0:
        yield "it runs as root"
    if (effective("seccompProfile") or {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        yield "no seccomp profile"
    if (effective("appArmorProfile") or {}).get("type", "RuntimeDefault") not in {"RuntimeDefault", "Localhost"}:
        yield "AppArmor is off"
    if (effective("seLinuxOptions") or {}).get("type") not in SELINUX:
        yield "a type of SELinux that is not allowed"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield "capabilities are not dropped"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"capabilities are added: {capabilities['add']}"
    if own.get("procMount", "Default") != "Default":
        yield "procMount"
    for port in container.get("ports", []):
        if port.get("hostPort"):
            yield f"the host's port {port['hostPort']}"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        for way in ("httpGet", "tcpSocket"):
            if container.get(probe, {}).get(way, {}).get("host"):
                yield f"{probe} goes to another host"


def beyond(spec):
    """What the charts promise besides the standard, of containers that run the project's programs."""
    for kind in ("initContainers", "containers"):
        for container in spec.get(kind, []):
            if "/tidemark/" not in container["image"]:
                continue
            if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
                yield f"{container['name']}: the root file system can be written to"
            if "memory" not in container.get("resources", {}).get("limits", {}):
                yield f"{container['name']}: no memory limit"
