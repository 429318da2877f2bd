//! ping. The sign of life has already been recorded.

use basalt_zk::proto::Xid;

use crate::request::Client;

pub(super) fn ping(client: &Client, xid: Xid) {
    client.reply(xid, client.member.replica.applied(), &[]);
}
