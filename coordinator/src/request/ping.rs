//! ping: that it came has been noted already.

use basalt_zk::proto::Xid;

use crate::request::Client;

pub(super) fn ping(client: &Client, xid: Xid) {
    client.reply(xid, client.member.replica.applied(), &[]);
}
