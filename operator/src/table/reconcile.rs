//! One round of reconciling a table.

use std::sync::Arc;
use std::time::Duration;

use basalt_api::common::DeletionPolicy;
use basalt_api::role_file::{PortName, RoleName};
use basalt_api::table::BasaltTableStatus;
use basalt_api::{BasaltTable, ValidatedTable, validate_table};
use basalt_client::{Admin, Connection, ConnectionConfig, RegistryConfig, RetryConfig};
use basalt_model::{TableName, TableState};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{Event as Finalizer, finalizer};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tokio::time::timeout;

use super::compare::{altered, differences};
use super::status::{Finding, has_manifest_changed, status};
use crate::context::{Context, WatchedCluster, WatchedTable, count_round, in_namespace};
use crate::error::{Error, ResultExt};
use crate::names::{COMPONENT_LABEL, FIELD_MANAGER, FINALIZER, INSTANCE_LABEL, host_port, port};

/// The pause before the next round of a table that is being changed.
const SOON: Duration = Duration::from_secs(2);
/// The pause before the next round of a table without events.
const LATER: Duration = Duration::from_mins(1);
/// The timeout of one round: altering a table reopens its regions one by one.
const ROUND_MAX: Duration = Duration::from_mins(5);
/// How long a master may take for one operation.
const MASTER_TIMEOUT: Duration = Duration::from_secs(20);

/// Brings a table one round closer to its desired state.
///
/// # Errors
/// The API server or the master rejected a request or did not answer. The next round tries again.
pub(crate) async fn reconcile(
    seen: Arc<WatchedTable>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let result = match timeout(ROUND_MAX, round_of(&seen, &context)).await {
        Ok(result) => result,
        Err(_) => Err(Error::TooSlow(ROUND_MAX)),
    };
    count_round(&context.tables, result.is_ok());
    result
}

/// Handles a failed round.
pub(crate) fn on_error(table: Arc<WatchedTable>, error: &Error, _: Arc<Context>) -> Action {
    tracing::warn!(table = table.name_any(), %error, "reconciling failed");
    Action::requeue(SOON)
}

async fn round_of(seen: &WatchedTable, context: &Context) -> Result<Action, Error> {
    let (namespace, name) = (seen.namespace().unwrap_or_default(), seen.name_any());
    // The watch may lag behind, so the decision uses the current state.
    let api: Api<WatchedTable> = Api::namespaced(context.client.clone(), &namespace);
    let found = api.get_opt(&name).await.asked(|| format!("reading table {name}"))?;
    let Some(DeserializeGuard(found)) = found else { return Ok(Action::await_change()) };
    let table = match found {
        Ok(table) => Arc::new(table),
        Err(invalid) => return round_of_unreadable(&invalid, context).await,
    };
    let is_new = !table.finalizers().iter().any(|known| known == FINALIZER);
    let api: Api<BasaltTable> = Api::namespaced(context.client.clone(), &namespace);
    let round = finalizer(&api, FINALIZER, table, |event| async {
        match event {
            Finalizer::Apply(table) => round(&table, context).await,
            Finalizer::Cleanup(table) => clean_up(&table, context).await,
        }
    });
    let action = round.await.map_err(|error| match error {
        kube::runtime::finalizer::Error::ApplyFailed(error)
        | kube::runtime::finalizer::Error::CleanupFailed(error) => error,
        other => Error::Finalizer { reason: other.to_string() },
    })?;
    // Setting the finalizer was the only change. The watch that would report it may lag behind.
    Ok(if is_new { Action::requeue(SOON) } else { action })
}

/// A table that cannot be read is left alone, and its status describes the problem. When the
/// resource is deleted, the table stays.
async fn round_of_unreadable(invalid: &InvalidObject, context: &Context) -> Result<Action, Error> {
    let namespace = invalid.metadata.namespace.clone().unwrap_or_default();
    let name = invalid.metadata.name.clone().unwrap_or_default();
    let resource = ApiResource::erase::<BasaltTable>(&());
    let api: Api<DynamicObject> =
        Api::namespaced_with(context.client.clone(), &namespace, &resource);
    let raw = api.get(&name).await.asked(|| format!("reading table {name}"))?;
    if raw.metadata.deletion_timestamp.is_some() {
        let others = raw.finalizers().iter().filter(|known| *known != FINALIZER);
        let others: Vec<&String> = others.collect();
        if others.len() < raw.finalizers().len() {
            tracing::warn!(
                table = name,
                "a BasaltTable that cannot be read is deleted: its data stays"
            );
            let version = &raw.metadata.resource_version;
            let patch = json!({ "metadata": { "finalizers": others, "resourceVersion": version } });
            let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
            patched.asked(|| format!("removing the finalizer of table {name}"))?;
        }
        return Ok(Action::await_change());
    }
    let (field, reason) = basalt_api::load::unreadable_field::<BasaltTable>(&json!(raw))
        .unwrap_or_else(|| ("spec".to_owned(), invalid.error.clone()));
    tracing::warn!(
        table = name,
        field,
        reason,
        "a BasaltTable cannot be read: it is left unchanged"
    );
    let before = serde_json::from_value(raw.data["status"].clone()).unwrap_or_default();
    let finding = Finding::Invalid(format!("{field}: {reason}"));
    let after = status(finding, &before, raw.metadata.generation, now(context));
    report(context, &raw.metadata, &before, &after).await?;
    Ok(Action::requeue(LATER))
}

fn now(context: &Context) -> Timestamp {
    let ms = i64::try_from(context.seams.clock.wall_ms()).unwrap_or(i64::MAX);
    // Conditions have a resolution of one second.
    Timestamp::from_second(ms / 1000).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Writes the status if it has changed.
async fn report(
    context: &Context,
    metadata: &ObjectMeta,
    before: &BasaltTableStatus,
    after: &BasaltTableStatus,
) -> Result<(), Error> {
    if before == after {
        return Ok(());
    }
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let name = metadata.name.clone().unwrap_or_default();
    let api: Api<WatchedTable> = Api::namespaced(context.client.clone(), &namespace);
    let patch = json!({
        "apiVersion": BasaltTable::api_version(&()),
        "kind": BasaltTable::kind(&()),
        // Not the status of another table that has replaced this one.
        "metadata": { "uid": metadata.uid },
        "status": after,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let patched = api.patch_status(&name, &params, &Patch::Apply(&patch)).await;
    patched.asked(|| format!("writing the status of table {name}")).map(drop)
}

async fn round(table: &BasaltTable, context: &Context) -> Result<Action, Error> {
    let finding = look(table, context).await?;
    let settled = matches!(finding, Finding::Found { regions, online, .. } if regions == online);
    let before = table.status.clone().unwrap_or_default();
    let after = status(finding, &before, table.metadata.generation, now(context));
    report(context, &table.metadata, &before, &after).await?;
    Ok(Action::requeue(if settled { LATER } else { SOON }))
}

async fn look(table: &BasaltTable, context: &Context) -> Result<Finding, Error> {
    let validated = match validate_table(&table.name_any(), &table.spec) {
        Ok(validated) => validated,
        Err(problems) => {
            let lines: Vec<String> =
                problems.iter().map(|p| format!("{}: {}", p.field, p.reason)).collect();
            return Ok(Finding::Invalid(lines.join("; ")));
        }
    };
    if let Some(owner) = declared_by(table, &validated, context) {
        return Ok(Finding::Invalid(format!(
            "spec.tableName: the older BasaltTable {owner} declares table {} of this cluster; use \
             another name",
            validated.descriptor.name
        )));
    }
    match admin(table, context).await? {
        Ok(admin) => {
            let before = table.status.clone().unwrap_or_default();
            let has_changed = has_manifest_changed(&before, table.metadata.generation);
            make(&admin, &validated, has_changed).await
        }
        Err(reason) => Ok(Finding::Waiting(reason)),
    }
}

/// Creates the table if it is missing, alters it if its manifest has changed, and reads its state.
async fn make(
    admin: &Admin,
    validated: &ValidatedTable,
    has_changed: bool,
) -> Result<Finding, Error> {
    let name = &validated.descriptor.name;
    let asked = |what: &str, source| Error::Database {
        what: format!("{what} table {name}"),
        source: Box::new(source),
    };
    let mut found = match admin.descriptor(name).await {
        Ok(found) => found,
        Err(basalt_client::Error::TableNotFound { .. }) => {
            tracing::info!(table = %name, "creating a table");
            let made = admin.create_table(&validated.descriptor, &validated.split_keys).await;
            made.map_err(|error| asked("creating", error))?;
            admin.descriptor(name).await.map_err(|error| asked("reading", error))?
        }
        Err(error) => return Err(asked("reading", error)),
    };
    let wanted = altered(&validated.descriptor, &found);
    if has_changed && wanted != found {
        tracing::info!(table = %name, "altering a table");
        admin.modify_table(&wanted).await.map_err(|error| asked("altering", error))?;
        found = admin.descriptor(name).await.map_err(|error| asked("reading", error))?;
    }
    let regions = match admin.regions(name).await {
        Ok(regions) => u32::try_from(regions.len()).unwrap_or(u32::MAX),
        Err(error) => return Err(asked("reading the regions of", error)),
    };
    let enabled = admin.is_enabled(name).await.map_err(|error| asked("reading", error))?;
    Ok(Finding::Found {
        differences: differences(&validated.descriptor, &found),
        regions,
        online: if enabled { regions } else { 0 },
    })
}

/// The older resource that declares the same table of the same cluster.
fn declared_by(
    table: &BasaltTable,
    validated: &ValidatedTable,
    context: &Context,
) -> Option<String> {
    let namespace = table.namespace().unwrap_or_default();
    let all = in_namespace(&context.tables, &namespace);
    let all: Vec<&BasaltTable> = all.values().filter_map(|table| table.0.as_ref().ok()).collect();
    let age =
        |table: &BasaltTable| (table.creation_timestamp().map(|time| time.0), table.name_any());
    let same = all.into_iter().filter(|other| {
        let other_name = validate_table(&other.name_any(), &other.spec).map(|o| o.descriptor.name);
        other.spec.cluster_ref == table.spec.cluster_ref
            && other_name.is_ok_and(|name| name == validated.descriptor.name)
            && age(other) < age(table)
    });
    same.min_by_key(|other| age(other)).map(ResourceExt::name_any)
}

/// A client of the masters of the table's cluster, or the reason why there is none.
async fn admin(table: &BasaltTable, context: &Context) -> Result<Result<Admin, String>, Error> {
    let namespace = table.namespace().unwrap_or_default();
    let cluster = &table.spec.cluster_ref.name;
    let clusters: Api<WatchedCluster> = Api::namespaced(context.client.clone(), &namespace);
    let found = clusters.get_opt(cluster).await.asked(|| format!("reading cluster {cluster}"))?;
    let Some(DeserializeGuard(found)) = found else {
        return Ok(Err(format!(
            "spec.clusterRef.name: there is no BasaltCluster {cluster} in this namespace"
        )));
    };
    let Ok(found) = found else {
        return Ok(Err(format!("BasaltCluster {cluster} cannot be read: its status says why")));
    };
    let status = found.status.unwrap_or_default();
    if !status.conditions.iter().any(|c| c.type_ == "Available" && c.status == "True") {
        return Ok(Err(format!("BasaltCluster {cluster} does not serve yet")));
    }
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &namespace);
    let selector = format!("{INSTANCE_LABEL}={cluster},{COMPONENT_LABEL}={}", RoleName::Master);
    let pods = pods.list(&ListParams::default().labels(&selector)).await;
    let pods = pods.asked(|| "listing masters".to_owned())?.items;
    let rpc = port(RoleName::Master, PortName::Rpc);
    let addresses = pods.iter().filter_map(|pod| pod.status.as_ref()?.pod_ip.clone());
    let servers: Vec<String> = addresses.map(|address| host_port(&address, rpc)).collect();
    if servers.is_empty() {
        return Ok(Err(format!("BasaltCluster {cluster} has no masters")));
    }
    let mut config = ConnectionConfig::new(RegistryConfig::Bootstrap { servers });
    config.retry = RetryConfig { operation_timeout: MASTER_TIMEOUT, ..RetryConfig::default() };
    Ok(Ok(Connection::new(&context.seams, config).admin()))
}

/// Deletes the table if the policy says so and its cluster still exists.
async fn clean_up(table: &BasaltTable, context: &Context) -> Result<Action, Error> {
    let validated = validate_table(&table.name_any(), &table.spec);
    let (DeletionPolicy::Delete, Ok(validated)) = (table.spec.deletion_policy, validated) else {
        return Ok(Action::await_change());
    };
    if declared_by(table, &validated, context).is_some() {
        return Ok(Action::await_change());
    }
    let namespace = table.namespace().unwrap_or_default();
    let clusters: Api<WatchedCluster> = Api::namespaced(context.client.clone(), &namespace);
    let cluster = &table.spec.cluster_ref.name;
    let found = clusters.get_opt(cluster).await.asked(|| format!("reading cluster {cluster}"))?;
    // The cluster's deletion policy decides about its tables.
    if found.is_none_or(|cluster| cluster.meta().deletion_timestamp.is_some()) {
        return Ok(Action::await_change());
    }
    let name = &validated.descriptor.name;
    match admin(table, context).await? {
        Ok(admin) => delete(&admin, name).await?,
        Err(reason) => {
            tracing::info!(table = %name, reason, "waiting to delete a table");
            return Err(Error::Finalizer { reason });
        }
    }
    Ok(Action::await_change())
}

async fn delete(admin: &Admin, name: &TableName) -> Result<(), Error> {
    let asked = |source| Error::Database {
        what: format!("deleting table {name}"),
        source: Box::new(source),
    };
    let Some(state) = admin.table_state(name).await.map_err(asked)? else { return Ok(()) };
    if state != TableState::Disabled {
        admin.disable_table(name).await.map_err(asked)?;
    }
    tracing::info!(table = %name, "deleting a table");
    admin.delete_table(name).await.map_err(asked)
}
