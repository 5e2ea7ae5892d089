"""The manifests agree with the code, with each other and with the schemas of the API server."""

import shutil

import kubernetes_validate
import pytest

from edge.config import Config as EdgeConfig
from gateway.config import Config as GatewayConfig
from inference.config import Config as InferenceConfig
from observability import runbook
from runtime.health import LIVE
from runtime.listen import is_loopback, split
from tests.k8s.conftest import ROOT, Rendered

PARTS = ("edge", "gateway", "inference")
GRPC = ("gateway", "inference")
CONFIGS = {"edge": EdgeConfig, "gateway": GatewayConfig, "inference": InferenceConfig}
# Custom resources without a schema in kubernetes-validate; tests below check the fields.
WITHOUT_SCHEMA = {"ScaledObject", "ServiceMonitor", "PrometheusRule"}
# Environment variables of the processes besides the settings.
OTHERS_SETTINGS = {"HF_HUB_OFFLINE"}


@pytest.fixture(params=PARTS)
def part(request):
    return request.param


@pytest.fixture
def config(overlay, part, monkeypatch):
    """The configuration of the part's process in a pod of the overlay."""
    for name, value in overlay.environment(part).items():
        monkeypatch.setenv(name, value)
    return CONFIGS[part]()


def port_of(address):
    return split(address)[1]


def test_every_object_is_valid(overlay):
    for found in overlay.objects:
        if found["kind"] not in WITHOUT_SCHEMA:
            kubernetes_validate.validate(found, "1.34", strict=True)


def test_a_typing_error_is_found(overlay):
    broken = {**overlay.one("Deployment", "gateway"), "spce": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.34", strict=True)


def test_every_object_is_in_the_namespace_and_labelled(overlay):
    for found in overlay.objects:
        assert found["metadata"]["labels"]["app.kubernetes.io/name"] == "market-inference"
        if found["kind"] != "Namespace":
            assert found["metadata"]["namespace"] == "market-inference"


def test_every_setting_exists_in_the_code(overlay, part, config):
    prefix = config.model_config["env_prefix"]
    for name in overlay.environment(part).keys() - OTHERS_SETTINGS:
        assert name.startswith(prefix)
        assert name.removeprefix(prefix).lower() in type(config).model_fields


def test_ports_equal_the_listening_ports(overlay, part, config):
    assert not is_loopback(config.listen)
    assert not is_loopback(config.metrics_listen)
    ports = {port["name"]: port["containerPort"] for port in overlay.container(part)["ports"]}
    assert ports == {
        "grpc" if part in GRPC else "http": port_of(config.listen),
        "metrics": port_of(config.metrics_listen),
    }
    service = {
        port["name"]: (port["port"], port["targetPort"]) for port in overlay.one("Service", part)["spec"]["ports"]
    }
    assert service == {name: (number, name) for name, number in ports.items()}


def test_the_gateways_replica_address_is_the_service_of_the_replicas(overlay):
    [address] = overlay.environment("gateway")["MARKET_GATEWAY_REPLICAS"].split(",")
    service = overlay.one("Service", address.partition(":")[0].removeprefix("dns:"))
    assert service["spec"]["clusterIP"] == "None"
    assert port_of(address) in [port["port"] for port in service["spec"]["ports"]]


def test_probes_call_the_serving_port(overlay, part, config):
    container = overlay.container(part)
    for name in ("readinessProbe", "livenessProbe", "startupProbe"):
        if part in GRPC:
            assert container[name]["grpc"]["port"] == port_of(config.listen)
        else:
            assert container[name]["httpGet"]["port"] == "http"
        assert container[name].get("timeoutSeconds", 1) <= container[name]["periodSeconds"]


def test_probes_name_existing_health_services(overlay):
    """Readiness: the empty service name. Liveness: LIVE. Startup of inference: readiness, after the first model."""
    asked = {
        (part, name): overlay.container(part)[name]["grpc"].get("service", "")
        for part in GRPC
        for name in ("readinessProbe", "livenessProbe", "startupProbe")
    }
    assert asked == {
        ("gateway", "readinessProbe"): "",
        ("gateway", "livenessProbe"): LIVE,
        ("gateway", "startupProbe"): LIVE,
        ("inference", "readinessProbe"): "",
        ("inference", "livenessProbe"): LIVE,
        ("inference", "startupProbe"): "",
    }


def test_probes_of_the_edge_call_existing_paths(overlay):
    paths = {name: probe["httpGet"]["path"] for name, probe in overlay.container("edge").items() if "Probe" in name}
    assert paths == {
        "readinessProbe": "/health/ready",
        "livenessProbe": "/health/live",
        "startupProbe": "/health/live",
    }


def test_the_edges_gateway_is_the_service_of_the_gateways(overlay):
    name, _, port = overlay.environment("edge")["MARKET_EDGE_GATEWAY"].rpartition(":")
    assert int(port) in [one["port"] for one in overlay.one("Service", name)["spec"]["ports"]]


def test_the_first_model_has_time_to_load(overlay):
    probe = overlay.container("inference")["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] >= (300 if overlay.name == "gpu" else 120)


def test_a_pod_has_time_to_drain(overlay, part, config):
    before = overlay.container(part)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert before > 0
    assert before + config.drain_seconds < overlay.pod(part)["terminationGracePeriodSeconds"]


def test_the_restricted_profile_holds_and_the_root_is_read_only(overlay, part):
    assert (
        overlay.one("Namespace", "market-inference")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        == "restricted"
    )
    pod, container = overlay.pod(part), overlay.container(part)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set(writable.values()) == {"/tmp"}  # noqa: S108
    assert all("sizeLimit" in volumes[name]["emptyDir"] for name in writable)


def test_the_gateway_finds_its_keys_where_the_secret_is_mounted(overlay):
    [mount] = [mount for mount in overlay.container("gateway")["volumeMounts"] if mount["name"] == "keys"]
    [volume] = [volume for volume in overlay.pod("gateway")["volumes"] if volume["name"] == "keys"]
    [item] = volume["secret"]["items"]
    assert overlay.environment("gateway")["MARKET_GATEWAY_KEYS_FILE"] == f"{mount['mountPath']}/{item['path']}"
    assert volume["secret"]["defaultMode"] == 0o440
    assert not overlay.all("Secret"), "secrets are made by the operator and only referred to here"


def test_selectors_match_the_intended_pods(overlay, part):
    deployment = overlay.one("Deployment", part)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    pod = overlay.pod(part)
    [affinity] = pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        overlay.one("Service", part)["spec"]["selector"],
        overlay.one("PodDisruptionBudget", part)["spec"]["selector"]["matchLabels"],
        overlay.one("NetworkPolicy", part)["spec"]["podSelector"]["matchLabels"],
        affinity["podAffinityTerm"]["labelSelector"]["matchLabels"],
        *(spread["labelSelector"]["matchLabels"] for spread in pod["topologySpreadConstraints"]),
    ]
    assert len(selectors) == 6
    for selector in selectors:
        assert selector == {"app.kubernetes.io/component": part}
        assert selector.items() <= labels.items()


def test_a_node_can_be_drained_with_any_number_of_replicas(overlay, part):
    spec = overlay.one("PodDisruptionBudget", part)["spec"]
    assert spec["maxUnavailable"] >= 1
    assert "minAvailable" not in spec


def test_only_the_needed_network_flows_are_open(overlay):
    deny = overlay.one("NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert len(overlay.all("NetworkPolicy")) == 4
    edge, gateway, inference = (overlay.one("NetworkPolicy", part)["spec"] for part in PARTS)
    clients, scrapes = {"market-inference/clients": "allowed"}, {"market-inference/monitoring": "allowed"}

    def flows(rules, end):
        return [
            (peer, port["protocol"], port["port"]) for rule in rules for peer in rule[end] for port in rule["ports"]
        ]

    assert flows(gateway["ingress"], "from") == [
        ({"namespaceSelector": {"matchLabels": clients}}, "TCP", 8470),
        ({"podSelector": {"matchLabels": {"app.kubernetes.io/component": "edge"}}}, "TCP", 8470),
        ({"namespaceSelector": {"matchLabels": scrapes}}, "TCP", 9470),
    ]
    dns = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    assert flows(gateway["egress"], "to") == [
        ({"podSelector": {"matchLabels": {"app.kubernetes.io/component": "inference"}}}, "TCP", 8471),
        (dns, "UDP", 53),
        (dns, "TCP", 53),
    ]
    assert flows(inference["ingress"], "from") == [
        ({"podSelector": {"matchLabels": {"app.kubernetes.io/component": "gateway"}}}, "TCP", 8471),
        ({"namespaceSelector": {"matchLabels": scrapes}}, "TCP", 9471),
    ]
    assert "egress" not in inference
    assert flows(edge["ingress"], "from") == [
        ({"namespaceSelector": {"matchLabels": clients}}, "TCP", 8472),
        ({"namespaceSelector": {"matchLabels": scrapes}}, "TCP", 9472),
    ]
    assert flows(edge["egress"], "to") == [
        ({"podSelector": {"matchLabels": {"app.kubernetes.io/component": "gateway"}}}, "TCP", 8470),
        (dns, "UDP", 53),
        (dns, "TCP", 53),
    ]


def test_each_part_has_at_most_one_autoscaler_and_then_no_fixed_number_of_replicas(overlay, part):
    scalers = [
        scaler["spec"]["scaleTargetRef"]
        for scaler in (*overlay.all("HorizontalPodAutoscaler"), *overlay.all("ScaledObject"))
        if scaler["spec"]["scaleTargetRef"]["name"] == part
    ]
    assert len(scalers) == (0 if overlay.name == "dev" else 1)
    assert ("replicas" in overlay.one("Deployment", part)["spec"]) is not bool(scalers)
    for target in scalers:
        assert (target["kind"], target["apiVersion"]) == ("Deployment", "apps/v1")


def test_the_inference_service_scales_by_waiting_work_within_its_namespace(gpu):
    spec = gpu.one("ScaledObject", "inference")["spec"]
    assert 1 < spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]
    queries = {trigger["name"]: trigger["metadata"]["query"] for trigger in spec["triggers"]}
    assert "market_inference_queued_seconds" in queries["work-waiting"]
    for trigger in spec["triggers"]:
        assert (trigger["type"], trigger["metricType"]) == ("prometheus", "AverageValue")
        assert float(trigger["metadata"]["threshold"]) > 0
        assert 'namespace="market-inference"' in trigger["metadata"]["query"]
    waiting = next(trigger for trigger in spec["triggers"] if trigger["name"] == "work-waiting")
    assert float(waiting["metadata"]["threshold"]) < InferenceConfig.model_fields["max_queued_seconds"].default / 2


def test_scraping_finds_the_metrics_of_every_part(overlay, part):
    if overlay.name == "dev":
        assert not overlay.all("ServiceMonitor")
        return
    spec = overlay.one("ServiceMonitor", part)["spec"]
    service = overlay.one("Service", part)
    assert spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    [endpoint] = spec["endpoints"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]


def test_the_cluster_has_the_rules_and_the_dashboards(gpu):
    groups = gpu.one("PrometheusRule", "market-inference")["spec"]["groups"]
    assert sum(len(group["rules"]) for group in groups) > 20
    [boards] = [o for o in gpu.all("ConfigMap") if o["metadata"]["name"] == "dashboards"]
    assert boards["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert len(boards["data"]) >= 3


def test_one_line_moves_the_runbook_of_every_alert(tmp_path):
    for folder in ("k8s", "observability"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    component = tmp_path / "k8s/components/scraping/kustomization.yaml"
    text = component.read_text(encoding="utf-8")
    component.write_text(text.replace(f"={runbook.address()}\n", "=wiki.desk.example/inference\n"), encoding="utf-8")
    moved = Rendered("gpu", tmp_path)
    rules = [
        rule
        for group in moved.one("PrometheusRule", "market-inference")["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert len(rules) > 20
    for rule in rules:
        url = runbook.url(rule["alert"].lower(), "wiki.desk.example/inference")
        assert rule["annotations"]["runbook_url"] == url
    assert "documentation" not in [found["metadata"]["name"] for found in moved.all("ConfigMap")]


def test_a_gpu_replica_has_a_gpu_and_a_rollout_does_not_wait_for_another(gpu):
    resources = gpu.container("inference")["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "1"
    assert gpu.one("Deployment", "inference")["spec"]["strategy"]["rollingUpdate"] == {
        "maxSurge": 0,
        "maxUnavailable": 1,
    }
    assert gpu.environment("inference")["MARKET_INFERENCE_DEVICE"] == "cuda"
    assert "nvidia.com/gpu" in [toleration["key"] for toleration in gpu.pod("inference")["tolerations"]]


def test_memory_has_a_limit_and_processors_a_request(overlay, part):
    resources = overlay.container(part)["resources"]
    assert resources["limits"]["memory"] == resources["requests"]["memory"]
    assert resources["requests"]["cpu"]
