//! closeSession: deletes what the session owns. The connection is closed after the reply.

use basalt_zk::proto::Xid;

use crate::request::{Client, send_error, send_reply};
use crate::tree::{Change, Verdict};

pub(super) async fn close_session(client: &Client, xid: Xid) {
    let change = Change::CloseSession { session: client.session, attachment: client.attachment };
    client
        .submit(change, move |outgoing, zxid, verdict| match verdict {
            Verdict::Refused(error) | Verdict::Failed { error, .. } => {
                send_error(outgoing, xid, zxid, error);
            }
            Verdict::Done(_) => send_reply(outgoing, xid, zxid, &[]),
        })
        .await;
}
