//! The records of identities, and of a session's ephemeral nodes.

use bytes::Bytes;

use super::codec::record;

record! {
    /// Adds an identity to the connection. The answer is only a header.
    AuthRequest {
        /// Always 0.
        kind: i32,
        /// How the identity is verified.
        scheme: String,
        /// The proof.
        auth: Bytes,
    }
}

record! {
    /// Asks for the ephemeral nodes of this session.
    GetEphemeralsRequest {
        /// The prefix of their paths.
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
        /// How it was verified.
        scheme: String,
        /// The user.
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
