#!/usr/bin/env python3
"""lint.py: reads a List of Kubernetes objects as JSON, and reports what kube-linter's default rules and
Polaris would report: one line per finding, exit code 1 if there is any. Rules have kube-linter's names.
kube-linter itself is not available through the module proxy."""

import json
import sys

LONG_RUNNING = {"Deployment", "StatefulSet", "DaemonSet"}
SECRET_WORDS = ("password", "secret", "token", "key")
findings = []


def find(rule, thing, what):
    findings.append(f"{thing['kind']}/{thing['metadata']['name']}: {rule}: {what}")


def pod_spec(thing):
    if thing["kind"] in LONG_RUNNING | {"Job"}:
        return thing["spec"]["template"]["spec"]
    return None


def lint_pods(thing, spec, accounts):
    security = spec.get("securityContext", {})
    if not security.get("runAsNonRoot"):
        find("run-as-non-root", thing, "the pod may run as root")
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        find("seccomp", thing, "no seccomp profile")
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            find(name, thing, "shares it with its node")
    for volume in spec.get("volumes", []):
        if "hostPath" in volume:
            find("host-mounts", thing, f"volume {volume['name']} is a path of the node")
    account = spec.get("serviceAccountName", "default")
    if thing["kind"] in LONG_RUNNING and account == "default":
        find("default-service-account", thing, "the namespace's own account")
    if account != "default" and account not in accounts:
        find("non-existent-service-account", thing, account)
    for container in spec["containers"]:
        lint_container(thing, container)


def lint_container(thing, container):
    name = container["name"]
    image = container["image"].rsplit("/", 1)[-1]
    if ":" not in image or image.endswith(":latest"):
        find("latest-tag", thing, f"{name}: {container['image']}")
    security = container.get("securityContext", {})
    if not security.get("readOnlyRootFilesystem"):
        find("no-read-only-root-fs", thing, name)
    if security.get("privileged"):
        find("privileged-container", thing, name)
    if security.get("allowPrivilegeEscalation") is not False:
        find("privilege-escalation-container", thing, name)
    if "ALL" not in security.get("capabilities", {}).get("drop", []):
        find("drop-net-raw-capability", thing, f"{name} keeps capabilities")
    resources = container.get("resources", {})
    for kind, what in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory")):
        if what not in resources.get(kind, {}):
            find(f"unset-{what}-requirements", thing, f"{name} has no {kind}.{what}")
    if thing["kind"] in LONG_RUNNING:
        for probe in ("livenessProbe", "readinessProbe"):
            if probe not in container:
                find(f"no-{probe}", thing, name)
    for variable in container.get("env", []):
        if "value" in variable and any(word in variable["name"].lower() for word in SECRET_WORDS):
            find("env-var-secret", thing, f"{name}: {variable['name']}")


def lint_workload(thing, things):
    labels = thing["spec"]["template"]["metadata"].get("labels", {})
    wanted = thing["spec"]["selector"]["matchLabels"]
    if not wanted.items() <= labels.items():
        find("mismatching-selector", thing, wanted)
    if thing["spec"].get("replicas", 1) < 2:
        return
    affinity = thing["spec"]["template"]["spec"].get("affinity", {})
    if thing["kind"] == "StatefulSet" and "podAntiAffinity" not in affinity:
        find("no-anti-affinity", thing, "its pods may stand on one node")
    budgets = [one for one in things if one["kind"] == "PodDisruptionBudget"
               and one["spec"]["selector"]["matchLabels"].items() <= labels.items()]
    if thing["kind"] == "StatefulSet" and not budgets:
        find("no-pod-disruption-budget", thing, "all its pods may be evicted at once")
    for budget in budgets:
        if budget["spec"].get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            find("pdb-unhealthy-pod-eviction-policy", budget, "a broken pod blocks its node")


def lint_service(thing, things):
    selector = thing["spec"].get("selector") or {}
    # A label that the operator moves between pods is in no template, and neither is a pod's own
    # name.
    moving = {"basalt.db/active-master", "statefulset.kubernetes.io/pod-name"}
    fixed = {name: value for name, value in selector.items() if name not in moving}
    templates = [one["spec"]["template"]["metadata"].get("labels", {}) for one in things
                 if one["kind"] in LONG_RUNNING]
    if selector and not any(fixed.items() <= labels.items() for labels in templates):
        find("dangling-service", thing, selector)


def lint_role(thing):
    for rule in thing.get("rules") or []:
        groups, resources, verbs = (rule.get(name, []) for name in ("apiGroups", "resources", "verbs"))
        if "*" in groups + resources + verbs:
            find("wildcard-in-rules", thing, rule)
        if "secrets" in resources:
            find("access-to-secrets", thing, verbs)
        if "pods" in resources and "create" in verbs:
            find("access-to-create-pods", thing, verbs)


def main():
    things = json.load(sys.stdin)["items"]
    accounts = {one["metadata"]["name"] for one in things if one["kind"] == "ServiceAccount"}
    for thing in things:
        spec = pod_spec(thing)
        if spec:
            lint_pods(thing, spec, accounts)
        if thing["kind"] in LONG_RUNNING:
            lint_workload(thing, things)
        elif thing["kind"] == "Service":
            lint_service(thing, things)
        elif thing["kind"] in ("Role", "ClusterRole"):
            lint_role(thing)
        elif thing["kind"].endswith("RoleBinding") and thing["roleRef"]["name"] == "cluster-admin":
            find("cluster-admin-role-binding", thing, "all rights")
    for finding in findings:
        print(finding)
    kinds = sorted({thing["kind"] for thing in things})
    print(f"{len(things)} objects of {len(kinds)} kinds, {len(findings)} findings")
    if not things:
        print("nothing to look at")
    return 1 if findings or not things else 0


sys.exit(main())
