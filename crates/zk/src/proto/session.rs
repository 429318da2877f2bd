//! The records of identities and of what a session owns.

use bytes::Bytes;

use super::codec::record;

record! {
    /// Adds an identity to the connection; answered by a header alone.
    AuthRequest {
        /// Always 0.
        kind: i32,
        /// How the identity is proved.
        scheme: String,
        /// The proof.
        auth: Bytes,
    }
}

record! {
    /// Asks for the ephemeral nodes of this session.
    GetEphemeralsRequest {
        /// What their paths must begin with.
        prefix: String,
    }
}

record! {
    /// The ephemeral nodes of this session.
    GetEphemeralsResponse {
        /// Their paths.
        paths: Vec<String>,
    }
}

record! {
    /// One identity of the connection.
    ClientInfo {
        /// How it was proved.
        scheme: String,
        /// Who it is.
        user: String,
    }
}

record! {
    /// The identities of the connection. (The request has no record.)
    WhoAmIResponse {
        /// The identities.
        clients: Vec<ClientInfo>,
    }
}
