//! Reads manifests from a file of YAML documents.
//!
//! An error names the file, the document, the path of the field, what is wrong and what is allowed.
//! Nothing is ignored: an unknown field is an error, and so is a resource of another kind.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};

use crate::strict::Strict;
use crate::{
    BasaltCluster, BasaltClusterSpec, BasaltTable, BasaltTableSpec, Error, GROUP, VERSION,
};

/// The resources that a file declares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifests {
    /// Its clusters, in order.
    pub clusters: Vec<BasaltCluster>,
    /// Its tables, in order.
    pub tables: Vec<BasaltTable>,
}

/// The maximum size of a file, in bytes.
const FILE_BYTES_MAX: usize = 4 << 20;
/// The maximum number of documents in a file.
const DOCUMENTS_MAX: usize = 10_000;

/// A resource in the form that it has in a file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resource<S> {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    metadata: Metadata,
    spec: S,
    /// Added by `kubectl get -o yaml`. It is ignored, because the operator writes it.
    #[serde(rename = "status", default)]
    _status: IgnoredAny,
}

/// The metadata that users write. Fields that Kubernetes adds are accepted and dropped.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(rename = "creationTimestamp", default)]
    _creation_timestamp: IgnoredAny,
    #[serde(rename = "finalizers", default)]
    _finalizers: IgnoredAny,
    #[serde(rename = "generation", default)]
    _generation: IgnoredAny,
    #[serde(rename = "managedFields", default)]
    _managed_fields: IgnoredAny,
    #[serde(rename = "ownerReferences", default)]
    _owner_references: IgnoredAny,
    #[serde(rename = "resourceVersion", default)]
    _resource_version: IgnoredAny,
    #[serde(rename = "uid", default)]
    _uid: IgnoredAny,
}

/// The position that an error reports.
struct Place<'a> {
    file: &'a str,
    document: usize,
    kind: String,
}

// === impl Manifests ===

impl Manifests {
    /// Reads the documents of `text`. `file` is the name in messages.
    ///
    /// # Errors
    /// [`Error::BadFile`] or [`Error::BadDocument`] for the first error.
    pub fn from_yaml(file: &str, text: &str) -> Result<Self, Error> {
        check_length(file, text)?;
        let mut manifests = Self::default();
        // Both iterators read the same documents. The first determines the kind of each document.
        // The second reads the document as that kind, and knows the line of an error.
        let looks = serde_yaml_ng::Deserializer::from_str(text);
        let reads = serde_yaml_ng::Deserializer::from_str(text);
        for (index, (look, read)) in looks.zip(reads).enumerate().take(DOCUMENTS_MAX) {
            let mut place = Place { file, document: index + 1, kind: String::new() };
            let value: serde_yaml_ng::Value = deserialize(look, &place)?;
            if value.is_null() {
                continue;
            }
            match kind_of(&value, &mut place)?.as_str() {
                "BasaltCluster" => {
                    let resource: Resource<BasaltClusterSpec> = deserialize(Strict(read), &place)?;
                    let mut cluster = BasaltCluster::new("", resource.spec);
                    cluster.metadata = resource.metadata.into();
                    manifests.clusters.push(cluster);
                }
                _ => {
                    let resource: Resource<BasaltTableSpec> = deserialize(Strict(read), &place)?;
                    let mut table = BasaltTable::new("", resource.spec);
                    table.metadata = resource.metadata.into();
                    manifests.tables.push(table);
                }
            }
        }
        Ok(manifests)
    }

    /// The only cluster of a file, and the tables that belong to it.
    ///
    /// # Errors
    /// [`Error::BadFile`] if there is not exactly one cluster, or a table belongs to another one.
    pub fn into_single_cluster(
        mut self,
        file: &str,
    ) -> Result<(BasaltCluster, Vec<BasaltTable>), Error> {
        let bad = |reason| Error::BadFile { file: file.to_owned(), reason };
        if self.clusters.len() > 1 {
            let named = self.clusters.iter().map(|cluster| name_of(&cluster.metadata));
            let names: Vec<_> = named.collect();
            return Err(bad(format!(
                "declares {} clusters ({}); run one at a time, each from its own file",
                names.len(),
                names.join(", ")
            )));
        }
        let Some(cluster) = self.clusters.pop() else {
            return Err(bad("declares no BasaltCluster; exactly one is required".to_owned()));
        };
        let name = name_of(&cluster.metadata);
        if let Some(stray) = self.tables.iter().find(|table| table.spec.cluster_ref.name != name) {
            return Err(bad(format!(
                "table {} belongs to cluster {:?} (spec.clusterRef.name), which the file does not \
                 declare; it declares {name:?}",
                name_of(&stray.metadata),
                stray.spec.cluster_ref.name,
            )));
        }
        Ok((cluster, self.tables))
    }
}

/// Reads one YAML or JSON document that is not a manifest, with the same error messages.
///
/// # Errors
/// [`Error::BadFile`] or [`Error::BadDocument`].
pub fn document<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, Error> {
    check_length(file, text)?;
    let place = Place { file, document: 1, kind: String::new() };
    deserialize(Strict(serde_yaml_ng::Deserializer::from_str(text)), &place)
}

/// Reads the fields that `T` has from one such document. Ignores all others.
///
/// # Errors
/// [`Error::BadFile`] or [`Error::BadDocument`].
pub fn part_of_document<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, Error> {
    check_length(file, text)?;
    let place = Place { file, document: 1, kind: String::new() };
    deserialize(serde_yaml_ng::Deserializer::from_str(text), &place)
}

/// The first field of `object` that cannot be read as a `T`, and what is wrong with it. `None` if
/// all of it can be read.
pub fn unreadable_field<T: DeserializeOwned>(
    object: &serde_json::Value,
) -> Option<(String, String)> {
    let read: Result<T, _> = serde_path_to_error::deserialize(object);
    let error = read.err()?;
    Some((error.path().to_string(), error.into_inner().to_string()))
}

// === impl Metadata ===

impl From<Metadata> for ObjectMeta {
    fn from(metadata: Metadata) -> Self {
        Self {
            name: Some(metadata.name),
            namespace: metadata.namespace,
            labels: metadata.labels,
            annotations: metadata.annotations,
            ..Self::default()
        }
    }
}

/// The name in `metadata`. Every resource that was read from a file has one.
pub(crate) fn name_of(metadata: &ObjectMeta) -> String {
    metadata.name.clone().unwrap_or_default()
}

fn check_length(file: &str, text: &str) -> Result<(), Error> {
    if text.len() > FILE_BYTES_MAX {
        return Err(Error::BadFile {
            file: file.to_owned(),
            reason: format!("is {} bytes long; at most {FILE_BYTES_MAX} are allowed", text.len()),
        });
    }
    Ok(())
}

/// Checks `apiVersion` and `kind` of a document, and returns its kind. Records kind and name in
/// `place`, for later messages.
fn kind_of(value: &serde_yaml_ng::Value, place: &mut Place<'_>) -> Result<String, Error> {
    let text = |value: &serde_yaml_ng::Value, key: &str| {
        value.get(key).and_then(|field| field.as_str()).map(str::to_owned)
    };
    let expect = |key: &str, allowed: &[String]| match text(value, key) {
        Some(found) if allowed.contains(&found) => Ok(found),
        Some(found) => Err(place
            .error(key, format!("{found:?} is not known; it must be {}", allowed.join(" or ")))),
        None => Err(place.error(key, format!("missing; it must be {}", allowed.join(" or ")))),
    };
    expect("apiVersion", &[format!("{GROUP}/{VERSION}")])?;
    let kind = expect("kind", &["BasaltCluster".to_owned(), "BasaltTable".to_owned()])?;
    let name = value.get("metadata").and_then(|metadata| text(metadata, "name"));
    place.kind = [kind.as_str(), name.as_deref().unwrap_or_default()].join(" ").trim().to_owned();
    Ok(kind)
}

fn deserialize<'de, T: DeserializeOwned>(
    document: impl Deserializer<'de, Error = serde_yaml_ng::Error>,
    place: &Place<'_>,
) -> Result<T, Error> {
    serde_path_to_error::deserialize(document).map_err(|error| {
        let field = error.path().to_string();
        place.error(&field, without_path(&error.into_inner().to_string(), &field))
    })
}

/// Removes the path from a message: the YAML reader begins its messages with it, too.
fn without_path(message: &str, field: &str) -> String {
    let parent = field.rsplit_once('.').map_or("", |(parent, _)| parent);
    [field, parent]
        .into_iter()
        .filter(|path| !path.is_empty() && *path != ".")
        .find_map(|path| message.strip_prefix(path)?.strip_prefix(": "))
        .unwrap_or(message)
        .to_owned()
}

// === impl Place ===

impl Place<'_> {
    fn error(&self, field: &str, reason: String) -> Error {
        Error::BadDocument {
            file: self.file.to_owned(),
            document: self.document,
            kind: self.kind.clone(),
            field: if field == "." { "the whole document" } else { field }.to_owned(),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = include_str!("../../../examples/minimal.yaml");
    const DEMO: &str = include_str!("../../../examples/cluster.yaml");

    /// The error message for `MINIMAL` with one text replaced by another.
    fn message(from: &str, to: &str) -> String {
        assert!(MINIMAL.contains(from), "{from:?}");
        let text = MINIMAL.replacen(from, to, 1);
        Manifests::from_yaml("demo.yaml", &text).unwrap_err().to_string()
    }

    #[track_caller]
    fn assert_says(message: &str, parts: &[&str]) {
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    }

    #[test]
    fn the_examples_are_read() {
        for (name, text) in [("minimal", MINIMAL), ("demo", DEMO)] {
            let manifests = Manifests::from_yaml(name, text).unwrap();
            assert_eq!(manifests.clusters.len(), 1, "{name}");
            assert_eq!(manifests.tables.len(), 1, "{name}");
        }
    }

    #[test]
    fn the_shortest_manifest_is_ten_lines_and_has_all_defaults() {
        assert_eq!(MINIMAL.lines().filter(|line| !line.starts_with('#')).count(), 10);
        let manifests = Manifests::from_yaml("minimal.yaml", MINIMAL).unwrap();
        let cluster = &manifests.clusters[0].spec;
        assert_eq!(cluster.failover.target.as_ms(), 3_000);
        assert_eq!(cluster.coordinator.replicas, 3);
        assert_eq!(cluster.masters.replicas, 2);
        assert_eq!(cluster.region_servers.replicas, 3);
        let table = &manifests.tables[0].spec;
        assert_eq!((table.namespace.as_str(), table.region_replicas), ("default", 1));
        assert_eq!(table.families[0].versions, 1);
    }

    #[test]
    fn an_unknown_field_is_named_with_those_that_are_known() {
        let message = message("spec:\n", "spec:\n  regionServer: { replicas: 4 }\n");
        assert_says(
            &message,
            &[
                "demo.yaml, document 1 (BasaltCluster demo)",
                "spec.regionServer",
                "unknown field `regionServer`",
                "`regionServers`",
                "`failover`",
                "line 5",
            ],
        );
    }

    /// The operator reads resources in this way: an object that a newer version wrote must not stop
    /// an older operator.
    #[test]
    fn a_resource_ignores_unknown_fields_that_a_file_may_not_have() {
        for (depth, field) in
            [("", "regionServer: {}"), ("storage", "nfs: {}"), ("failover", "mood: 1")]
        {
            let mut spec = serde_json::json!({
                "storage": { "shared": { "claim": "demo-data" } }, "failover": { "target": "3s" },
            });
            let object: serde_json::Value =
                serde_yaml_ng::from_str(&format!("{{{field}}}")).unwrap();
            let place = if depth.is_empty() { &mut spec } else { &mut spec[depth] };
            for (name, value) in object.as_object().unwrap() {
                place[name] = value.clone();
            }
            let cluster = serde_json::json!({ "metadata": { "name": "demo" }, "spec": spec });
            serde_json::from_value::<BasaltCluster>(cluster).unwrap();
            let name = field.split(':').next().unwrap();
            let text = format!(
                "apiVersion: basalt.db/v1alpha1\nkind: BasaltCluster\n\
                 metadata: {{ name: demo }}\nspec: {spec}\n"
            );
            let error = Manifests::from_yaml("f", &text).unwrap_err().to_string();
            assert_says(&error, &[&format!("unknown field `{name}`"), depth]);
        }
    }

    #[test]
    fn a_field_of_an_object_that_cannot_be_read_is_named() {
        let of = |cpu: &str| {
            let masters = serde_json::json!({ "resources": { "limits": { "cpu": cpu } } });
            let spec = serde_json::json!({ "storage": {}, "masters": masters });
            let object = serde_json::json!({ "metadata": { "name": "demo" }, "spec": spec });
            unreadable_field::<BasaltCluster>(&object)
        };
        let (field, reason) = of("lots").unwrap();
        assert_eq!(field, "spec.masters.resources.limits.cpu");
        assert!(reason.contains("lots"), "{reason}");
        assert_eq!(of("1"), None);
    }

    #[test]
    fn a_field_deep_inside_is_named_by_its_path() {
        let message = message("name: family }", "name: family, compresion: zstd }");
        assert_says(
            &message,
            &["document 2 (BasaltTable usertable)", "spec.families[0]", "`compression`"],
        );
    }

    #[test]
    fn a_wrong_value_says_what_is_allowed() {
        let compression = message("name: family }", "name: family, compression: lzo }");
        assert_says(&compression, &["spec.families[0].compression", "`lzo`", "`zstd`"]);
        let target = message("spec:\n", "spec:\n  failover: { target: 3 }\n");
        assert_says(&target, &["spec.failover.target", "with a unit", "500ms"]);
        for once in ["spec.failover.target", " at line "] {
            assert_eq!(target.matches(once).count(), 1, "{target}");
        }
        let target = message("spec:\n", "spec:\n  failover: { target: soon }\n");
        assert_says(&target, &["spec.failover.target", "\"soon\"", "500ms"]);
        let replicas = message("spec:\n", "spec:\n  masters: { replicas: two }\n");
        assert_says(&replicas, &["spec.masters.replicas", "\"two\"", "u32"]);
    }

    #[test]
    fn a_missing_field_is_named() {
        assert_says(&message("metadata: { name: demo }", "metadata: {}"), &["metadata", "`name`"]);
        let nothing = message("storage: { shared: { claim: demo-data } }", "paused: true");
        assert_says(&nothing, &["spec", "`storage`"]);
    }

    #[test]
    fn what_stands_outside_the_spec_is_checked_too() {
        assert_says(&message("metadata:", "labels: {}\nmetadata:"), &["unknown field `labels`"]);
        let label = message("{ name: demo }", "{ name: demo, lables: {} }");
        assert_says(&label, &["metadata", "`lables`", "`labels`"]);
    }

    #[test]
    fn other_kinds_and_versions_are_refused_with_ours() {
        assert_says(
            &message("kind: BasaltCluster", "kind: HbaseCluster"),
            &["document 1", "kind", "HbaseCluster", "BasaltCluster or BasaltTable"],
        );
        assert_says(&message("v1alpha1", "v1"), &["apiVersion", "basalt.db/v1alpha1"]);
        assert_says(&message("kind: BasaltCluster\n", ""), &["kind", "missing"]);
    }

    #[test]
    fn broken_yaml_names_the_line() {
        assert_says(&message("{ name: demo }", "{ name: demo"), &["demo.yaml", "line"]);
    }

    #[test]
    fn a_table_of_another_cluster_is_named() {
        let text = MINIMAL.replace("clusterRef: { name: demo }", "clusterRef: { name: prod }");
        let manifests = Manifests::from_yaml("demo.yaml", &text).unwrap();
        let error = manifests.into_single_cluster("demo.yaml").unwrap_err().to_string();
        assert_says(&error, &["usertable", "\"prod\"", "\"demo\"", "clusterRef"]);
    }

    #[test]
    fn one_cluster_is_run_at_a_time() {
        let twice =
            format!("{MINIMAL}---\n{}", MINIMAL.replace("name: demo }\nspec", "name: b }\nspec"));
        let manifests = Manifests::from_yaml("f", &twice).unwrap();
        let error = manifests.into_single_cluster("f").unwrap_err().to_string();
        assert_says(&error, &["2 clusters (demo, b)"]);
        let error = Manifests::default().into_single_cluster("f").unwrap_err().to_string();
        assert_says(&error, &["no BasaltCluster"]);
    }
}
