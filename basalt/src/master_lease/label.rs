//! The label by which a Service finds the active master. Each master writes it on its own pod. So
//! the Service follows the active master even while the operator does not run.

use std::time::Duration;

use basalt_api::role_file::ACTIVE_MASTER_LABEL;
use basalt_master::ActiveMaster;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;

/// Labels `pod` while this master is active, until the master ends. A label that an earlier process
/// of the container left behind is removed first. `patience` is the timeout of an attempt, and the
/// pause after a failed one.
pub(super) async fn keep(
    api: Api<Pod>,
    pod: String,
    mut active: watch::Receiver<ActiveMaster>,
    patience: Duration,
) {
    let mut written = None;
    loop {
        let leads = *active.borrow_and_update() == ActiveMaster::This;
        if written != Some(leads) {
            let labels = json!({ (ACTIVE_MASTER_LABEL): leads.then_some("true") });
            let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
            let params = PatchParams::default();
            let failed = match timeout(patience, api.patch_metadata(&pod, &params, &patch)).await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no answer within {patience:?}")),
            };
            if let Some(failed) = &failed {
                tracing::warn!(pod, leads, failed, "labelling the pod failed: trying again");
            }
            written = failed.is_none().then_some(leads);
        }
        let again = async {
            match written {
                Some(_) => std::future::pending().await,
                None => tokio::time::sleep(patience).await,
            }
        };
        tokio::select! {
            biased;
            changed = active.changed() => if changed.is_err() { return },
            () = again => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use http::{Request, Response, StatusCode};
    use kube::Client;
    use kube::client::Body;
    use parking_lot::Mutex;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);

    /// What an API server was asked to write as the label, and what it answers.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<(Vec<serde_json::Value>, StatusCode)>>);

    impl Server {
        fn pods(&self) -> Api<Pod> {
            let server = self.clone();
            let answering = tower::service_fn(move |request: Request<Body>| {
                let server = server.clone();
                async move { Ok::<_, Infallible>(server.answer(request).await) }
            });
            Api::namespaced(Client::new(answering, "prod"), "prod")
        }

        async fn answer(&self, request: Request<Body>) -> Response<Body> {
            assert!(request.uri().path().ends_with("/namespaces/prod/pods/demo-master-0"));
            let body = request.into_body().collect_bytes().await.unwrap();
            let patch: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let (written, code) = &mut *self.0.lock();
            written.push(patch["metadata"]["labels"][ACTIVE_MASTER_LABEL].clone());
            let pod = json!({ "metadata": { "name": "demo-master-0" } }).to_string();
            Response::builder().status(*code).body(Body::from(pod.into_bytes())).unwrap()
        }

        fn written(&self) -> Vec<serde_json::Value> {
            std::mem::take(&mut self.0.lock().0)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_label_follows_the_active_master_and_is_written_again_after_a_failure() {
        let server = Server::default();
        let (sender, active) = watch::channel(ActiveMaster::Unknown);
        let pod = "demo-master-0".to_owned();
        let keeping = tokio::spawn(keep(server.pods(), pod, active, PATIENCE));
        let some_time = || tokio::time::sleep(PATIENCE / 2);
        some_time().await;
        assert_eq!(server.written(), [json!(null)], "the label of an earlier process is removed");
        sender.send_replace(ActiveMaster::Other);
        some_time().await;
        assert!(server.written().is_empty());
        server.0.lock().1 = StatusCode::SERVICE_UNAVAILABLE;
        sender.send_replace(ActiveMaster::This);
        some_time().await;
        assert_eq!(server.written(), [json!("true")]);
        server.0.lock().1 = StatusCode::OK;
        some_time().await;
        some_time().await;
        assert_eq!(server.written(), [json!("true")]);
        some_time().await;
        assert!(server.written().is_empty());
        drop(sender);
        keeping.await.unwrap();
    }
}
