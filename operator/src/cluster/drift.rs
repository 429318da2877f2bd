//! Detects changes by others to the objects of a cluster. Watches the metadata of every kind of
//! object that is built.

use std::sync::Arc;

use basalt_api::BasaltCluster;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use kube::api::{ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};

use super::apply;
use crate::context::{Context, WatchedCluster, watch_failed};

/// The clusters that have an object which others have changed or deleted.
pub(crate) fn watch(
    context: &Arc<Context>,
    namespace: Option<&str>,
    config: &watcher::Config,
) -> impl Stream<Item = ObjectRef<WatchedCluster>> + use<> {
    let streams = apply::kinds().into_iter().map(|resource| {
        let client = context.client.clone();
        let api: Api<PartialObjectMeta<DynamicObject>> = match namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        };
        let events = watcher(api, config.clone()).default_backoff();
        let context = Arc::clone(context);
        let changed = events.filter_map(move |event| {
            let cluster = cluster_to_repair(&context, &resource, event);
            async move { cluster }
        });
        let changed: BoxStream<'static, _> = changed.boxed();
        changed
    });
    stream::select_all(streams)
}

fn cluster_to_repair(
    context: &Context,
    resource: &ApiResource,
    event: Result<watcher::Event<PartialObjectMeta<DynamicObject>>, watcher::Error>,
) -> Option<ObjectRef<WatchedCluster>> {
    let (object, is_deleted) = match event {
        Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => (object, false),
        Ok(watcher::Event::Delete(object)) => (object, true),
        Ok(_) => return None,
        Err(error) => {
            watch_failed(&resource.kind, &error);
            return None;
        }
    };
    let metadata = object.metadata;
    let mut owners = metadata.owner_references.iter().flatten();
    let kind = BasaltCluster::kind(&());
    let owner = owners.find(|owner| owner.kind == kind)?;
    let name = (resource.kind.clone(), metadata.name.clone()?);
    if !context.applied.has_changed(&owner.uid, &name, &metadata, is_deleted) {
        return None;
    }
    tracing::info!(
        kind = name.0,
        name = name.1,
        cluster = owner.name,
        "another client has changed an object of the cluster"
    );
    Some(ObjectRef::new(&owner.name).within(metadata.namespace.as_deref()?))
}
