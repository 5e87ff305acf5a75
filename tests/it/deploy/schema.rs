//! Schemas of the custom resources: of the fields that are used, by the types of the projects that define them. What a schema
//! does not name is refused, as by the real one.
//!
//! Held against: Gateway API v1, KEDA v2 (keda.sh/v1alpha1), the RabbitMQ cluster operator (rabbitmq.com/v1beta1), the Redis
//! operator of OT-CONTAINER-KIT (redis.redis.opstreelabs.in/v1beta2).

use serde_json::{Value, json};

use super::Files;
use super::files::words;
use super::kustomize::{OVERLAYS, render};

/// A map of text to text.
fn labels() -> Value {
    json!({ "type": "object", "additionalProperties": { "type": "string" } })
}

/// An object with these fields and no others, of which those marked by `!` must be there.
fn object(fields: Value) -> Value {
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    let required: Vec<_> =
        fields.keys().filter_map(|it| it.strip_suffix('!')).map(ToOwned::to_owned).collect();
    let fields: serde_json::Map<String, Value> = fields
        .into_iter()
        .map(|(name, schema)| (name.trim_end_matches('!').to_owned(), schema))
        .collect();
    json!({ "type": "object", "properties": fields, "required": required, "additionalProperties": false })
}

fn array(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn resource(api: &str, kind: &str, spec: Value) -> Value {
    let metadata = object(
        json!({ "name!": text(), "namespace": text(), "labels": labels(), "annotations": labels() }),
    );
    object(json!({
        "apiVersion!": { "type": "string", "enum": [api] },
        "kind!": { "type": "string", "enum": [kind] },
        "metadata!": metadata,
        "spec!": spec,
    }))
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn whole() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn yes_or_no() -> Value {
    json!({ "type": "boolean" })
}

fn one_of(names: &[&str]) -> Value {
    json!({ "type": "string", "enum": names })
}

fn compute() -> Value {
    let amounts = || object(json!({ "cpu": text(), "memory": text() }));
    object(json!({ "requests": amounts(), "limits": amounts() }))
}

fn spread() -> Value {
    array(object(json!({
        "maxSkew!": whole(),
        "topologyKey!": text(),
        "whenUnsatisfiable!": one_of(&["DoNotSchedule", "ScheduleAnyway"]),
        "labelSelector": object(json!({ "matchLabels": labels() })),
    })))
}

fn claim() -> Value {
    object(json!({ "spec!": object(json!({
        "accessModes": array(text()),
        "storageClassName": text(),
        "resources": object(json!({ "requests": object(json!({ "storage!": text() })) })),
    })) }))
}

/// Of a kind of resource, if there is one here.
fn schema(api: &str, kind: &str) -> Option<Value> {
    let spec = match (api, kind) {
        ("gateway.networking.k8s.io/v1", "Gateway") => gateway(),
        ("gateway.networking.k8s.io/v1", "HTTPRoute") => route(),
        ("keda.sh/v1alpha1", "ScaledObject") => scaled(),
        ("rabbitmq.com/v1beta1", "RabbitmqCluster") => rabbitmq(),
        ("redis.redis.opstreelabs.in/v1beta2", "RedisCluster") => redis(),
        _ => return None,
    };
    Some(resource(api, kind, spec))
}

fn gateway() -> Value {
    object(json!({
        "gatewayClassName!": text(),
        "listeners!": array(object(json!({
            "name!": text(),
            "protocol!": one_of(&["HTTP", "HTTPS", "TLS", "TCP", "UDP"]),
            "port!": whole(),
            "hostname": text(),
            "tls": object(json!({
                "mode": one_of(&["Terminate", "Passthrough"]),
                "certificateRefs": array(object(json!({ "kind": text(), "group": text(), "name!": text(), "namespace": text() }))),
            })),
            "allowedRoutes": object(json!({ "namespaces": object(json!({ "from": one_of(&["All", "Same", "Selector", "None"]) })) })),
        }))),
    }))
}

fn route() -> Value {
    let duration = || json!({ "type": "string", "pattern": "duration" });
    object(json!({
        "parentRefs": array(object(json!({ "name!": text(), "namespace": text(), "sectionName": text() }))),
        "hostnames": array(text()),
        "rules": array(object(json!({
            "name": text(),
            "matches": array(object(json!({
                "path": object(json!({ "type": one_of(&["Exact", "PathPrefix", "RegularExpression"]), "value": text() })),
            }))),
            "filters": array(object(json!({
                "type!": one_of(&["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "RequestRedirect", "URLRewrite", "ExtensionRef"]),
                "requestRedirect": object(json!({ "scheme": one_of(&["http", "https"]), "statusCode": whole() })),
            }))),
            "timeouts": object(json!({ "request": duration(), "backendRequest": duration() })),
            "backendRefs": array(object(json!({ "name!": text(), "port": whole(), "weight": whole() }))),
        }))),
    }))
}

fn scaled() -> Value {
    let rules = || {
        object(json!({
            "stabilizationWindowSeconds": whole(),
            "selectPolicy": one_of(&["Max", "Min", "Disabled"]),
            "policies": array(object(json!({ "type!": one_of(&["Pods", "Percent"]), "value!": whole(), "periodSeconds!": whole() }))),
        }))
    };
    object(json!({
        "scaleTargetRef!": object(json!({ "apiVersion": text(), "kind": text(), "name!": text(), "envSourceContainerName": text() })),
        "pollingInterval": whole(),
        "cooldownPeriod": whole(),
        "initialCooldownPeriod": whole(),
        "idleReplicaCount": whole(),
        "minReplicaCount": whole(),
        "maxReplicaCount": whole(),
        "fallback": object(json!({ "failureThreshold!": whole(), "replicas!": whole(), "behavior": text() })),
        "advanced": object(json!({
            "restoreToOriginalReplicaCount": yes_or_no(),
            "horizontalPodAutoscalerConfig": object(json!({
                "name": text(),
                "behavior": object(json!({ "scaleUp": rules(), "scaleDown": rules() })),
            })),
        })),
        // Every value of a trigger is text, numbers, too.
        "triggers!": array(object(json!({
            "type!": text(),
            "name": text(),
            "metadata!": labels(),
            "metricType": one_of(&["AverageValue", "Value", "Utilization"]),
            "useCachedMetrics": yes_or_no(),
            "authenticationRef": object(json!({ "name!": text(), "kind": text() })),
        }))),
    }))
}

fn rabbitmq() -> Value {
    object(json!({
        "replicas": whole(),
        "image": text(),
        "resources": compute(),
        "persistence": object(json!({ "storageClassName": text(), "storage": text() })),
        "terminationGracePeriodSeconds": whole(),
        "rabbitmq": object(json!({ "additionalPlugins": array(text()), "additionalConfig": text(), "advancedConfig": text(), "envConfig": text() })),
        "override": object(json!({ "statefulSet": object(json!({ "spec": object(json!({ "template": object(json!({
            "spec": object(json!({ "containers!": json!({ "type": "array" }), "topologySpreadConstraints": spread() })),
        })) })) })) })),
    }))
}

fn redis() -> Value {
    let config = || {
        object(
            json!({ "maxMemoryPercentOfLimit": whole(), "dynamicConfig": array(text()), "additionalRedisConfig": text() }),
        )
    };
    let node = || {
        object(json!({
            "replicas": whole(),
            "redisConfig": config(),
            "pdb": object(json!({ "enabled": yes_or_no(), "minAvailable": whole(), "maxUnavailable": whole() })),
            "securityContext": object(json!({
                "allowPrivilegeEscalation": yes_or_no(),
                "readOnlyRootFilesystem": yes_or_no(),
                "capabilities": object(json!({ "drop": array(text()) })),
            })),
            "topologySpreadConstraints": spread(),
            "terminationGracePeriodSeconds": whole(),
            "resources": compute(),
        }))
    };
    object(json!({
        "clusterSize!": whole(),
        "clusterVersion": one_of(&["v6", "v7"]),
        "port": whole(),
        "persistenceEnabled": yes_or_no(),
        "podSecurityContext": object(json!({
            "runAsUser": whole(), "runAsGroup": whole(), "fsGroup": whole(), "runAsNonRoot": yes_or_no(),
            "seccompProfile": object(json!({ "type!": one_of(&["RuntimeDefault", "Localhost", "Unconfined"]) })),
        })),
        "kubernetesConfig!": object(json!({
            "image!": text(),
            "imagePullPolicy": one_of(&["Always", "IfNotPresent", "Never"]),
            "redisSecret": object(json!({ "name": text(), "key": text() })),
            "resources": compute(),
        })),
        "redisConfig": config(),
        "redisLeader": node(),
        "redisFollower": node(),
        "storage": object(json!({
            "keepAfterDelete": yes_or_no(),
            "volumeClaimTemplate": claim(),
            "nodeConfVolume": yes_or_no(),
            "nodeConfVolumeClaimTemplate": claim(),
        })),
    }))
}

/// What in a value a schema forbids.
fn faults(schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let wanted = words(schema, "type");
    if wanted != kind {
        return vec![format!("{place} is {kind}, not {wanted}")];
    }
    let mut found = Vec::new();
    if let Some(names) = schema["enum"].as_array()
        && !names.contains(value)
    {
        found.push(format!("{place} may not be {value}"));
    }
    if let (Some(least), Some(number)) = (schema["minimum"].as_i64(), value.as_i64())
        && number < least
    {
        found.push(format!("{place} may not be {number}"));
    }
    if schema["pattern"] == "duration" && !value.as_str().is_some_and(is_duration) {
        found.push(format!("{place} is no duration: {value}"));
    }
    if let (Value::Array(items), false) = (value, schema["items"].is_null()) {
        for (index, item) in items.iter().enumerate() {
            found.extend(faults(&schema["items"], item, &format!("{place}[{index}]")));
        }
    }
    let Value::Object(entries) = value else { return found };
    for (name, entry) in entries {
        let place = format!("{place}.{name}");
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => found.push(format!("{place} is not known")),
            (Value::Null, other) => found.extend(faults(other, entry, &place)),
            (known, _) => found.extend(faults(known, entry, &place)),
        }
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !entries.contains_key(name) {
            found.push(format!("{place}.{name} is missing"));
        }
    }
    found
}

/// Of the Gateway API: up to four numbers of at most five digits, each with its unit.
fn is_duration(text: &str) -> bool {
    let mut rest = text;
    for unit in ["h", "m", "s", "ms"] {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let is_it =
            rest[digits..].strip_prefix(unit).filter(|it| unit != "m" || !it.starts_with('s'));
        if let Some(after) = is_it
            && (1..=5).contains(&digits)
        {
            rest = after;
        }
    }
    rest.is_empty() && !text.is_empty()
}

/// Whether a resource is of a kind with a schema here, which no validator of Kubernetes' own kinds knows.
pub(super) fn is_custom(resource: &Value) -> bool {
    schema(words(resource, "apiVersion"), words(resource, "kind")).is_some()
}

fn faults_of(resource: &Value) -> Vec<String> {
    let (api, kind) = (words(resource, "apiVersion"), words(resource, "kind"));
    match schema(api, kind) {
        Some(schema) => faults(&schema, resource, kind),
        None => vec![format!("no schema of {api} {kind}")],
    }
}

const CUSTOM: [&str; 5] = [
    "deploy/kubernetes/gateway/gateway.yaml",
    "deploy/kubernetes/gateway/httproute.yaml",
    "deploy/kubernetes/keda/scaledobject.yaml",
    "deploy/rabbitmq/rabbitmq-cluster.yaml",
    "deploy/redis/redis-cluster.yaml",
];

#[test]
fn custom_resources_are_what_their_projects_take() {
    let files = Files::load();
    for path in CUSTOM {
        for resource in files.yaml(path) {
            // Kubernetes' own stand beside them.
            if words(&resource, "apiVersion") == "policy/v1" {
                continue;
            }
            assert_eq!(faults_of(&resource), Vec::<String>::new(), "{path}");
        }
    }
    for overlay in OVERLAYS {
        for resource in render(&files, overlay).iter().filter(|it| is_custom(it)) {
            assert_eq!(faults_of(resource), Vec::<String>::new(), "{overlay}");
        }
    }
}

#[test]
fn seeded_mistakes_in_custom_resources_are_noticed() {
    let files = Files::load();
    let seeds = [
        (CUSTOM[0], "protocol: HTTPS", "protocol: https"),
        (CUSTOM[0], "gatewayClassName:", "gatewayClass:"),
        (CUSTOM[1], "request: 300s", "request: 300"),
        (CUSTOM[1], "request: 300s", "request: 300 s"),
        (CUSTOM[1], "type: PathPrefix", "type: Prefix"),
        (CUSTOM[1], "backendRefs:", "backends:"),
        (CUSTOM[2], "maxReplicaCount: 50", "maxReplicas: 50"),
        (CUSTOM[2], "threshold: \"10\"", "threshold: 10"),
        (CUSTOM[2], "metricType: AverageValue", "metricType: Average"),
        (CUSTOM[3], "replicas: 3", "replicas: \"3\""),
        (CUSTOM[3], "additionalConfig:", "config:"),
        (CUSTOM[4], "clusterSize: 3", "size: 3"),
        (CUSTOM[4], "minAvailable: 2", "minAvailable: -2"),
        (CUSTOM[4], "enabled: true", "enabled: \"yes\""),
        (CUSTOM[4], "in/v1beta2\n", "in/v1beta1\n"),
    ];
    for (path, from, to) in seeds {
        let resources = files.with(path, from, to).yaml(path);
        let found: Vec<_> = resources.iter().take(1).flat_map(faults_of).collect();
        let all: Vec<_> = resources
            .iter()
            .filter(|it| words(it, "apiVersion") != "policy/v1")
            .flat_map(faults_of)
            .collect();
        assert!(!all.is_empty(), "{path}: {to} is not noticed: {found:?}");
    }
    assert!(["1h30m", "300s", "0s", "100ms", "1m5s10ms"].iter().all(|it| is_duration(it)));
    assert!(!["", "300", "1.5s", "123456s", "5s1m", "s"].iter().any(|it| is_duration(it)));
}
