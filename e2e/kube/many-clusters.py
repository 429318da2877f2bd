#!/usr/bin/env python3
"""many-clusters.py CLUSTERS PODS: measures the cost of the operator with many clusters, on an API
server whose pods are not run. Creates CLUSTERS namespaces with a cluster of PODS pods each, and reports
each pod as ready at 127.0.0.1, where one real `basalt local` answers for all of them. Then measures the
operator, which runs on this machine: requests per minute while nothing happens, memory, and how long a
change takes. Needs KUBECONFIG, and OPERATOR=the operator's process id.

Prints lines "[kube] …". Exits with 0 only if all clusters became Ready."""

import concurrent.futures
import http.client
import json
import os
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse

CLUSTERS, PODS = int(sys.argv[1]), int(sys.argv[2])
COORDINATORS, MASTERS = 1, 1
REGION_SERVERS = PODS - COORDINATORS - MASTERS
READY_LIMIT_S = 900
MERGE = "application/merge-patch+json"


def kubectl(*arguments):
    return subprocess.run(["kubectl", *arguments], check=True, capture_output=True, text=True).stdout


config = json.loads(kubectl("config", "view", "--raw", "-o", "json"))
server = urllib.parse.urlparse(config["clusters"][0]["cluster"]["server"])
tls = ssl.create_default_context()
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
user = config["users"][0]["user"]
tls.load_cert_chain(user["client-certificate"], user["client-key"])
local = threading.local()


def ask(method, path, body=None, kind="application/json"):
    text = json.dumps(body) if body is not None else None
    for is_last in (False, True):
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPSConnection(server.hostname, server.port, context=tls, timeout=60)
        try:
            local.connection.request(method, path, text, {"Content-Type": kind})
            answer = local.connection.getresponse()
            content = answer.read()
            break
        except (http.client.HTTPException, OSError):
            # The server closes idle connections.
            del local.connection
            if is_last:
                raise
    if answer.status >= 400 and answer.status != 409:
        raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]}")
    return content


def namespace(number):
    return f"many-{number}"


def make(number):
    """Creates one cluster, whose pods are not scheduled and not run."""
    name = namespace(number)
    ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    claim = {"metadata": {"name": "data"},
             "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}}
    ask("POST", f"/api/v1/namespaces/{name}/persistentvolumeclaims", claim)
    nobody = {"spec": {"schedulerName": "nobody"}}
    spec = {"coordinator": {"replicas": COORDINATORS, "podTemplate": nobody},
            "masters": {"replicas": MASTERS, "podTemplate": nobody},
            "regionServers": {"replicas": REGION_SERVERS, "podTemplate": nobody},
            "storage": {"shared": {"claim": "data"}}}
    ask("POST", f"/apis/basalt.db/v1alpha1/namespaces/{name}/basaltclusters",
        {"apiVersion": "basalt.db/v1alpha1", "kind": "BasaltCluster", "metadata": {"name": "c"}, "spec": spec})


def say_ready(pod):
    meta = pod["metadata"]
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": meta["creationTimestamp"]}
    status = {"phase": "Running", "conditions": [condition], "podIP": "127.0.0.1",
              "podIPs": [{"ip": "127.0.0.1"}], "startTime": meta["creationTimestamp"]}
    ask("PATCH", f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status", {"status": status}, MERGE)


def unready(number):
    pods = json.loads(ask("GET", f"/api/v1/namespaces/{namespace(number)}/pods"))["items"]
    return [pod for pod in pods if pod["status"].get("podIP") is None]


def is_ready(number):
    path = f"/apis/basalt.db/v1alpha1/namespaces/{namespace(number)}/basaltclusters/c"
    cluster = json.loads(ask("GET", path))
    status = cluster.get("status", {})
    return status.get("phase") == "Ready" and status.get("observedGeneration") == cluster["metadata"]["generation"]


def requests():
    """The number of requests of administrators that the API server has answered. Here the operator is
    an administrator, and Kubernetes' own controllers are not."""
    total = 0
    for line in ask("GET", "/metrics").decode().splitlines():
        if line.startswith("apiserver_flowcontrol_dispatched_requests_total{") and 'flow_schema="exempt"' in line:
            total += float(line.rsplit(" ", 1)[1])
    return total


def memory_mib(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_s(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def steady(seconds, pid=None):
    """Requests per minute, and the share of a core that `pid` used."""
    before, cpu, began = requests(), cpu_s(pid) if pid else 0.0, time.time()
    time.sleep(seconds)
    length = time.time() - began
    return (requests() - before) * 60 / length, ((cpu_s(pid) - cpu) / length if pid else 0.0)


def change(number, patch, done):
    """The time from a change of the manifest until `done` holds, in milliseconds."""
    path = f"/apis/basalt.db/v1alpha1/namespaces/{namespace(number)}/basaltclusters/c"
    began = time.time()
    ask("PATCH", path, patch, MERGE)
    while not done():
        if time.time() - began > 60:
            raise RuntimeError("the change was not taken up")
        time.sleep(0.005)
    return (time.time() - began) * 1000


def has_log_level(number, level):
    path = f"/api/v1/namespaces/{namespace(number)}/configmaps/c-master"
    return level in json.loads(ask("GET", path))["data"]["master.json"]


def main():
    operator = int(os.environ["OPERATOR"])
    os.kill(operator, 19)
    # The pause must be shorter than the operator's Lease.
    idle, _ = steady(10)
    os.kill(operator, 18)
    print(f"[kube]   without the operator {idle:.0f} requests a minute; it has {memory_mib(operator):.0f} MiB", flush=True)
    began = time.time()
    for number in range(CLUSTERS):
        make(number)
    waiting = set(range(CLUSTERS))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        while waiting:
            if time.time() - began > READY_LIMIT_S:
                print(f"[kube]   not Ready after {READY_LIMIT_S} s: {sorted(waiting)}")
                return 1
            for pods in pool.map(unready, sorted(waiting)):
                list(pool.map(say_ready, pods))
            waiting = {number for number in waiting if not is_ready(number)}
            time.sleep(0.5)
    print(f"[kube]   {CLUSTERS} clusters of {PODS} pods Ready after {time.time() - began:.0f} s", flush=True)
    time.sleep(40)
    rate, cpu = steady(120, operator)
    print(f"[kube]   nothing happens: {rate - idle:.0f} requests a minute more than without the operator, "
          f"{cpu * 100:.1f} % of a core, {memory_mib(operator):.0f} MiB", flush=True)
    times = []
    for number in range(min(CLUSTERS, 9)):
        level = f"info,many_{number}=debug"
        times.append(change(number, {"spec": {"paused": False, "logging": {"level": level}}},
                            lambda: has_log_level(number, level)))
    times.sort()
    print(f"[kube]   a change is applied after p50 {times[len(times) // 2]:.0f}, max {times[-1]:.0f} ms", flush=True)
    return 0


sys.exit(main())
