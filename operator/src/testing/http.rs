//! Translates the HTTP requests of kube's client into operations on the objects.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use ::http::{Method, Response, StatusCode};
use axum::body::Body;
use futures::stream;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::api_server::{ApiServer, Key, Refusal, State, not_found};
use super::faults::Request;
use super::{apply, controllers};

/// A parsed request.
struct Ask {
    method: Method,
    key: Key,
    subresource: String,
    query: Vec<(String, String)>,
    content_type: String,
    /// The labels of the label selector.
    labels: Value,
    body: Value,
}

pub(super) fn client(server: ApiServer) -> kube::Client {
    let service = tower::service_fn(move |request: ::http::Request<kube::client::Body>| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(answer(server, request).await) }
    });
    kube::Client::new(service, "default")
}

async fn answer(server: ApiServer, request: ::http::Request<kube::client::Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = body.collect_bytes().await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let content_type = parts.headers.get("content-type").and_then(|value| value.to_str().ok());
    let query = parts.uri.query().unwrap_or_default().split('&');
    let query = query.filter_map(|pair| pair.split_once('='));
    let query: Vec<(String, String)> =
        query.map(|(name, value)| (name.to_owned(), decoded(value))).collect();
    let labels = query.iter().find(|(name, _)| name == "labelSelector");
    let labels = labels.map(|(_, labels)| labels.split(',')).into_iter().flatten();
    let labels = labels.filter_map(|label| label.split_once('='));
    let labels: serde_json::Map<_, _> =
        labels.map(|(name, value)| (name.to_owned(), json!(value))).collect();
    let (key, subresource) = place(parts.uri.path(), &body);
    let ask = Ask {
        method: parts.method,
        key,
        subresource,
        query,
        labels: Value::Object(labels),
        content_type: content_type.unwrap_or_default().to_owned(),
        body,
    };
    // A request takes a moment, so that concurrent requests do not always have the same order.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let path = parts.uri.path().to_owned();
    if server.lock().missing_kinds.contains(&ask.key.plural.as_str()) {
        return refusal((404, "404 page not found".to_owned()));
    }
    if ask.method == Method::GET && ask.query("watch").is_some() {
        return watch(server, ask);
    }
    let is_write = ask.method != Method::GET && !path.ends_with("/leases/basalt-operator");
    let kill = {
        let mut state = server.lock();
        state.writes += usize::from(is_write);
        let writes = state.writes;
        state.faults.kill.take_if(|kill| is_write && kill.write == writes)
    };
    if let Some(kill) = &kill
        && !kill.is_written
    {
        kill.now.notify_one();
        return pending().await;
    }
    let result = {
        let mut state = server.lock();
        let rejected = state.faults.rejects(ask.method.as_str(), &path);
        let rejected = rejected.map(|code| (code, format!("rejected by the test with {code}")));
        drop(state);
        match rejected {
            Some(refusal) => Err(refusal),
            None => perform(&server, &ask),
        }
    };
    server.lock().requests.push(Request {
        method: ask.method.to_string(),
        path,
        body: ask.body,
        code: result.as_ref().map_or_else(|(code, _)| *code, |_| 200),
    });
    if is_write {
        server.notify();
    }
    if let Some(kill) = kill {
        kill.now.notify_one();
        return pending().await;
    }
    match result {
        Ok(object) => Response::new(Body::from(object.to_string())),
        Err(failed) => refusal(failed),
    }
}

fn perform(server: &ApiServer, ask: &Ask) -> Result<Value, Refusal> {
    let mut state = server.lock();
    let is_status = ask.subresource == "status";
    match (&ask.method, ask.subresource.as_str()) {
        (&Method::GET, _) if ask.key.name.is_empty() => Ok(list(ask, &state)),
        (&Method::GET, _) => {
            state.objects.get(&ask.key).cloned().ok_or_else(|| not_found(&ask.key))
        }
        (&Method::POST, "eviction") => state.evict(&ask.key, &ask.body).map(|_| success()),
        (&Method::POST, _) => state.create(&ask.key, ask.body.clone()),
        (&Method::DELETE, _) => state.delete(&ask.key, &ask.body),
        (&Method::PUT, _) => state.update(&ask.key, |object| {
            let version = &ask.body["metadata"]["resourceVersion"];
            if version.is_string() && *version != object["metadata"]["resourceVersion"] {
                return Err((409, "the object has been modified".to_owned()));
            }
            let metadata = object["metadata"].clone();
            *object = ask.body.clone();
            object["metadata"] = metadata;
            Ok(())
        }),
        (&Method::PATCH, _) if ask.content_type.starts_with("application/apply-patch") => {
            let manager = ask.query("fieldManager").unwrap_or_default();
            let force = ask.query("force").is_some_and(|force| force == "true");
            state.apply(&ask.key, manager, is_status, force, &ask.body)
        }
        (&Method::PATCH, _) if ask.content_type.starts_with("application/json-patch") => state
            .update(&ask.key, |object| {
                apply::json_patch(object, &ask.body).map_err(|reason| (422, reason))
            }),
        (&Method::PATCH, _) => state.update(&ask.key, |object| {
            apply::merge_patch(object, &ask.body);
            Ok(())
        }),
        (method, _) => Err((405, format!("{method} is not modelled"))),
    }
}

fn list(ask: &Ask, state: &State) -> Value {
    let stale = state.faults.stale.as_ref();
    let stale = stale.filter(|stale| stale.plurals.contains(&ask.key.plural.as_str()));
    let chosen = |key: &Key, object: &Value| ask.chooses(key, object).then(|| object.clone());
    let (version, items): (u64, Vec<Value>) = match stale {
        Some(stale) => {
            let shown = stale.objects.iter().filter_map(|(key, object)| chosen(key, object));
            (stale.version, shown.collect())
        }
        None => {
            let shown = state.objects.iter().filter_map(|(key, object)| chosen(key, object));
            (state.version, shown.collect())
        }
    };
    json!({
        "kind": "List", "apiVersion": "v1",
        "metadata": { "resourceVersion": version.max(1).to_string() }, "items": items,
    })
}

fn watch(server: ApiServer, ask: Ask) -> Response<Body> {
    let version =
        ask.query("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
    let seconds = ask.query("timeoutSeconds").and_then(|seconds| seconds.parse().ok());
    let deadline = Instant::now() + Duration::from_secs(seconds.unwrap_or(290));
    let changes = server.changes();
    let events = stream::unfold((version, changes, ask), move |(version, mut changes, ask)| {
        let server = server.clone();
        async move {
            loop {
                changes.mark_unchanged();
                let (version, lines) = {
                    let state = server.lock();
                    let is_frozen = state.faults.are_watches_frozen;
                    let seen = state.log.partition_point(|(at, ..)| *at <= version || is_frozen);
                    let fresh = state.log[seen..]
                        .iter()
                        .filter(|(_, _, key, object)| ask.chooses(key, object));
                    let lines: String = fresh
                        .map(|(_, kind, _, object)| {
                            format!("{}\n", json!({ "type": kind, "object": object }))
                        })
                        .collect();
                    (if is_frozen { version } else { state.version }, lines)
                };
                if !lines.is_empty() {
                    return Some((Ok::<_, Infallible>(lines), (version, changes, ask)));
                }
                tokio::select! {
                    biased;
                    changed = changes.changed() => changed.ok()?,
                    () = sleep_until(deadline) => return None,
                }
            }
        }
    });
    Response::new(Body::from_stream(events))
}

// === impl Ask ===

impl Ask {
    fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether the object belongs to the list or watch.
    fn chooses(&self, key: &Key, object: &Value) -> bool {
        key.plural == self.key.plural
            && (self.key.namespace.is_empty() || key.namespace == self.key.namespace)
            && controllers::selects(&self.labels, object)
    }
}

/// The object and the subresource that `path` names. For a creation, the name is in the body.
fn place(path: &str, body: &Value) -> (Key, String) {
    let mut parts = path.trim_matches('/').split('/');
    let skipped = if parts.next() == Some("api") { 1 } else { 2 };
    let mut parts = parts.skip(skipped).peekable();
    let mut namespace = "";
    if parts.next_if_eq(&"namespaces").is_some() {
        namespace = parts.next().unwrap_or_default();
    }
    let plural = parts.next().unwrap_or_default();
    let name = parts.next().or_else(|| body["metadata"]["name"].as_str()).unwrap_or_default();
    (Key::new(plural, namespace, name), parts.next().unwrap_or_default().to_owned())
}

fn decoded(value: &str) -> String {
    let mut parts = value.split('%');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |mut text, part| {
        let (code, rest) = part.split_at(2);
        text.push(char::from(u8::from_str_radix(code, 16).unwrap()));
        text + rest
    })
}

fn success() -> Value {
    let (kind, status) = ("Status", "Success");
    json!({ "kind": kind, "apiVersion": "v1", "metadata": {}, "status": status, "code": 201 })
}

fn refusal((code, message): Refusal) -> Response<Body> {
    let reason = match code {
        404 => "NotFound",
        409 if message.contains("already exists") => "AlreadyExists",
        409 => "Conflict",
        429 => "TooManyRequests",
        403 => "Forbidden",
        _ => "InternalError",
    };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}
