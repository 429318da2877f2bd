//! Errors on the wire, identified by the exact name of their Java class.
//!
//! A Java client loads the class by its name and passes it the text. Its reaction (drop the cached
//! location, wait, give up) depends on the class alone. If it cannot load the class, the operation
//! ends, so only names that HBase has may be sent. [`ExceptionKind::reaction`] is the same decision
//! for our own client.
//!
//! The new location of a moved region is part of the text: see [`MovedRegion`].

use std::borrow::Cow;
use std::fmt;

use basalt_model::ServerName;

use crate::pb;

/// An error of a call, or of one action of a batch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exception {
    class_name: Cow<'static, str>,
    message: String,
    do_not_retry: bool,
    server_overloaded: bool,
    moved_to: Option<MovedRegion>,
}

/// The new location of a region, as its former server knows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MovedRegion {
    /// The server.
    pub server: ServerName,
    /// The region's sequence id when it was opened there. It distinguishes newer from older
    /// information.
    pub location_sequence_id: i64,
}

/// How a client reacts to an exception.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reaction {
    /// Forget the location of the region (or the master), and try again.
    ClearLocation,
    /// Take the new location from the exception, and try again.
    FollowMove,
    /// Try again at the same location, after a pause.
    KeepLocation,
    /// Reopen the scanner after the last row that it returned.
    ReopenScanner,
    /// Give up.
    DoNotRetry,
}

macro_rules! exception_kinds {
    ($($(#[$doc:meta])* $kind:ident = $class:literal => $reaction:ident),+ $(,)?) => {
        /// The exceptions that are known by name.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum ExceptionKind {
            $($(#[$doc])* $kind,)+
            /// A class that is not in this list. It is retried unless the exception says otherwise.
            Other,
        }

        const KINDS: &[(ExceptionKind, &str, Reaction)] = &[
            $((
                ExceptionKind::$kind,
                concat!("org.apache.hadoop.hbase.", $class),
                Reaction::$reaction,
            ),)+
            (ExceptionKind::Other, "java.io.IOException", Reaction::ClearLocation),
        ];
    };
}

exception_kinds! {
    /// The region is not served here.
    NotServingRegion = "NotServingRegionException" => ClearLocation,
    /// The region was moved, and the new location is known.
    RegionMoved = "exceptions.RegionMovedException" => FollowMove,
    /// The region is being opened here.
    RegionOpening = "exceptions.RegionOpeningException" => KeepLocation,
    /// The region currently accepts no writes.
    RegionTooBusy = "RegionTooBusyException" => KeepLocation,
    /// Too many calls are waiting on this server.
    CallQueueTooBig = "CallQueueTooBigException" => KeepLocation,
    /// The call waited too long on this server.
    CallDropped = "CallDroppedException" => KeepLocation,
    /// A quota is exceeded.
    RpcThrottling = "quotas.RpcThrottlingException" => KeepLocation,
    /// The results of a batch would be too large; the client must request the rest again.
    MultiActionResultTooLarge = "MultiActionResultTooLarge" => KeepLocation,
    /// The client should retry immediately.
    RetryImmediately = "RetryImmediatelyException" => KeepLocation,
    /// The server is stopping.
    RegionServerStopped = "regionserver.RegionServerStoppedException" => ClearLocation,
    /// The server is ending itself.
    RegionServerAborted = "regionserver.RegionServerAbortedException" => ClearLocation,
    /// The server is starting.
    ServerNotRunningYet = "ipc.ServerNotRunningYetException" => ClearLocation,
    /// The master is starting.
    PleaseHold = "PleaseHoldException" => ClearLocation,
    /// The master is not active.
    MasterNotRunning = "MasterNotRunningException" => ClearLocation,
    /// The row is not in the region that the call names.
    WrongRegion = "regionserver.WrongRegionException" => ClearLocation,
    /// The scanner is unknown: it was not renewed in time, or it belongs to another server.
    UnknownScanner = "UnknownScannerException" => ReopenScanner,
    /// The scanner cannot continue.
    ScannerReset = "exceptions.ScannerResetException" => ReopenScanner,
    /// A call of the scanner was lost or arrived twice.
    OutOfOrderScannerNext = "exceptions.OutOfOrderScannerNextException" => ReopenScanner,
    /// The scanner's lease has expired.
    Lease = "regionserver.LeaseException" => ReopenScanner,
    /// Any failure that a retry does not fix.
    DoNotRetry = "DoNotRetryIOException" => DoNotRetry,
    /// The table does not exist.
    TableNotFound = "TableNotFoundException" => DoNotRetry,
    /// The table already exists.
    TableExists = "TableExistsException" => DoNotRetry,
    /// The table is disabled.
    TableNotEnabled = "TableNotEnabledException" => DoNotRetry,
    /// The table is enabled.
    TableNotDisabled = "TableNotDisabledException" => DoNotRetry,
    /// The namespace does not exist.
    NamespaceNotFound = "NamespaceNotFoundException" => DoNotRetry,
    /// The namespace already exists.
    NamespaceExist = "NamespaceExistException" => DoNotRetry,
    /// An invalid change of a family.
    InvalidFamilyOperation = "InvalidFamilyOperationException" => DoNotRetry,
    /// The family does not exist.
    NoSuchColumnFamily = "regionserver.NoSuchColumnFamilyException" => DoNotRetry,
    /// An invalid descriptor or mutation.
    FailedSanityCheck = "exceptions.FailedSanityCheckException" => DoNotRetry,
    /// A constraint of a namespace or a table is violated.
    Constraint = "constraint.ConstraintException" => DoNotRetry,
    /// The request is above the server's limit.
    RequestTooBig = "exceptions.RequestTooBigException" => DoNotRetry,
    /// The row is above the server's limit.
    RowTooBig = "regionserver.RowTooBigException" => DoNotRetry,
    /// The operation is not permitted.
    AccessDenied = "security.AccessDeniedException" => DoNotRetry,
    /// The region does not exist.
    UnknownRegion = "UnknownRegionException" => DoNotRetry,
    /// The region is in the wrong state for this operation.
    DoNotRetryRegion = "client.DoNotRetryRegionException" => DoNotRetry,
    /// The master is stopping.
    MasterStopped = "exceptions.MasterStoppedException" => DoNotRetry,
    /// The coprocessor does not exist.
    UnknownProtocol = "exceptions.UnknownProtocolException" => DoNotRetry,
    /// The snapshot does not exist, or cannot be created.
    HBaseSnapshot = "snapshot.HBaseSnapshotException" => DoNotRetry,
    /// An argument is invalid.
    IllegalArgument = "exceptions.IllegalArgumentIOException" => DoNotRetry,
    /// The operation took too long.
    TimeoutIo = "exceptions.TimeoutIOException" => ClearLocation,
    /// The connection cannot be used.
    FatalConnection = "ipc.FatalConnectionException" => DoNotRetry,
    /// An unsupported version of the protocol.
    WrongVersion = "ipc.WrongVersionException" => DoNotRetry,
    /// An unsupported login method.
    BadAuth = "ipc.BadAuthException" => DoNotRetry,
    /// An unsupported service.
    UnknownService = "ipc.UnknownServiceException" => DoNotRetry,
    /// An unsupported cell codec.
    UnsupportedCellCodec = "ipc.UnsupportedCellCodecException" => DoNotRetry,
    /// An unsupported compression of cells.
    UnsupportedCompressionCodec = "ipc.UnsupportedCompressionCodecException" => DoNotRetry,
    /// No login is needed; the client continues without one.
    SecurityNotEnabled = "ipc.SecurityNotEnabledException" => DoNotRetry,
}

// === impl ExceptionKind ===

impl ExceptionKind {
    /// The full name of its Java class.
    pub fn class_name(self) -> &'static str {
        self.entry().1
    }

    /// How a client reacts to it.
    pub fn reaction(self) -> Reaction {
        self.entry().2
    }

    /// Whether a server that returns this exception has certainly not applied the requested write.
    /// Basalt's servers guarantee this: once a write is in the log, they return none of these.
    pub fn is_refusal(self) -> bool {
        let reaction = self.reaction();
        matches!(reaction, Reaction::FollowMove | Reaction::KeepLocation)
            || matches!(
                self,
                Self::NotServingRegion
                    | Self::ServerNotRunningYet
                    | Self::PleaseHold
                    | Self::MasterNotRunning
                    | Self::WrongRegion
            )
            || (reaction == Reaction::DoNotRetry && self != Self::DoNotRetry)
    }

    fn from_class_name(class_name: &str) -> Self {
        KINDS
            .iter()
            .find(|(_, known, _)| *known == class_name)
            .map_or(Self::Other, |(kind, _, _)| *kind)
    }

    fn entry(self) -> &'static (Self, &'static str, Reaction) {
        // The list has an entry for every kind, in the order of the kinds.
        &KINDS[self as usize]
    }
}

// === impl Exception ===

impl Exception {
    /// An exception of a known class.
    pub fn new(kind: ExceptionKind, message: impl Into<String>) -> Self {
        Self {
            class_name: Cow::Borrowed(kind.class_name()),
            message: message.into(),
            do_not_retry: kind.reaction() == Reaction::DoNotRetry,
            server_overloaded: matches!(
                kind,
                ExceptionKind::CallQueueTooBig | ExceptionKind::CallDropped
            ),
            moved_to: None,
        }
    }

    /// An exception that says that the region is now at `moved_to`.
    pub fn region_moved(moved_to: MovedRegion) -> Self {
        let mut exception = Self::new(ExceptionKind::RegionMoved, moved_to.to_string());
        exception.moved_to = Some(moved_to);
        exception
    }

    /// The answer to an unknown method.
    pub fn unknown_method(method: &str) -> Self {
        let message = format!("java.lang.UnsupportedOperationException: {method}");
        Self::new(ExceptionKind::DoNotRetry, message)
    }

    /// The answer to a request that cannot be decoded or is invalid.
    pub fn bad_request(error: impl fmt::Display) -> Self {
        Self::new(ExceptionKind::DoNotRetry, error.to_string())
    }

    /// Its kind.
    pub fn kind(&self) -> ExceptionKind {
        ExceptionKind::from_class_name(&self.class_name)
    }

    /// The full name of its Java class.
    pub fn class_name(&self) -> &str {
        &self.class_name
    }

    /// Its text. The text of a Java server includes a stack trace.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the exception itself says that a retry does not help.
    pub fn do_not_retry(&self) -> bool {
        self.do_not_retry
    }

    /// Whether the server asks for a longer pause.
    pub fn server_overloaded(&self) -> bool {
        self.server_overloaded
    }

    /// The new location of the region, if the exception contains it.
    pub fn moved_to(&self) -> Option<&MovedRegion> {
        self.moved_to.as_ref()
    }

    /// How a client reacts to it.
    pub fn reaction(&self) -> Reaction {
        match self.kind().reaction() {
            Reaction::FollowMove if self.moved_to.is_none() => Reaction::ClearLocation,
            Reaction::ReopenScanner => Reaction::ReopenScanner,
            _ if self.do_not_retry => Reaction::DoNotRetry,
            reaction => reaction,
        }
    }

    /// Encodes it for the header of a response.
    pub fn to_response(&self) -> pb::ExceptionResponse {
        let moved_to = self.moved_to.as_ref();
        pb::ExceptionResponse {
            exception_class_name: Some(self.class_name.clone().into_owned()),
            stack_trace: Some(self.to_string()),
            hostname: moved_to.map(|moved_to| moved_to.server.host.clone()),
            port: moved_to.map(|moved_to| moved_to.server.port.into()),
            do_not_retry: Some(self.do_not_retry),
            server_overloaded: Some(self.server_overloaded),
        }
    }

    /// Encodes it for the result of an action of a batch.
    pub fn to_name_bytes(&self) -> pb::NameBytesPair {
        pb::NameBytesPair {
            name: self.class_name.clone().into_owned(),
            value: Some(self.to_string().into_bytes().into()),
        }
    }

    /// Decodes it from the header of a response.
    pub fn from_response(response: pb::ExceptionResponse) -> Self {
        let (do_not_retry, overloaded) = (response.do_not_retry(), response.server_overloaded());
        let class_name = response.exception_class_name.unwrap_or_default();
        let mut exception = Self::received(class_name, response.stack_trace.unwrap_or_default());
        exception.do_not_retry |= do_not_retry;
        exception.server_overloaded |= overloaded;
        exception
    }

    /// Decodes it from the result of an action of a batch.
    pub fn from_name_bytes(pair: &pb::NameBytesPair) -> Self {
        let text = pair.value.as_deref().unwrap_or_default();
        Self::received(pair.name.clone(), String::from_utf8_lossy(text).into_owned())
    }

    fn received(class_name: String, text: String) -> Self {
        let kind = ExceptionKind::from_class_name(&class_name);
        let moved_to = match kind {
            ExceptionKind::RegionMoved => MovedRegion::parse(&text),
            _ => None,
        };
        let prefix = format!("{class_name}: ");
        let message = match text.strip_prefix(&prefix) {
            Some(message) => message.to_owned(),
            None => text,
        };
        let known = Self::new(kind, message);
        Self { class_name: Cow::Owned(class_name), moved_to, ..known }
    }
}

impl fmt::Display for Exception {
    /// The same format as in Java.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.class_name, self.message)
    }
}

impl std::error::Error for Exception {}

// === impl MovedRegion ===

impl MovedRegion {
    fn parse(text: &str) -> Option<Self> {
        let after = |name: &str, end: char| Some(text.split_once(name)?.1.split_once(end)?.0);
        let server = ServerName {
            host: after("hostname=", ' ')?.to_owned(),
            port: after("port=", ' ')?.parse().ok()?,
            start_code: after("startCode=", '.')?.parse().ok()?,
        };
        Some(Self { server, location_sequence_id: after("locationSeqNum=", '.')?.parse().ok()? })
    }
}

impl fmt::Display for MovedRegion {
    /// The text that the Java client parses.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServerName { host, port, start_code } = &self.server;
        write!(
            formatter,
            "Region moved to: hostname={host} port={port} startCode={start_code}. \
             As of locationSeqNum={}.",
            self.location_sequence_id
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved() -> MovedRegion {
        MovedRegion {
            server: "rs-1.demo,16020,1700000000000".parse().unwrap(),
            location_sequence_id: 42,
        }
    }

    #[test]
    fn every_kind_has_its_own_entry() {
        for (index, (kind, class_name, _)) in KINDS.iter().enumerate() {
            assert_eq!(*kind as usize, index);
            assert_eq!(ExceptionKind::from_class_name(class_name), *kind);
        }
    }

    #[test]
    fn an_exception_reads_as_it_was_written() {
        for (kind, ..) in KINDS {
            let exception = Exception::new(*kind, "because");
            assert_eq!(Exception::from_response(exception.to_response()), exception);
            assert_eq!(Exception::from_name_bytes(&exception.to_name_bytes()), exception);
        }
    }

    #[test]
    fn a_moved_region_is_followed() {
        let exception = Exception::region_moved(moved());
        let text = "org.apache.hadoop.hbase.exceptions.RegionMovedException: Region moved to: \
                    hostname=rs-1.demo port=16020 startCode=1700000000000. \
                    As of locationSeqNum=42.";
        assert_eq!(exception.to_response().stack_trace.unwrap(), text);
        let received = Exception::from_response(exception.to_response());
        assert_eq!(received.moved_to(), Some(&moved()));
        assert_eq!(received.reaction(), Reaction::FollowMove);
    }

    #[test]
    fn a_moved_region_without_a_place_is_looked_up() {
        let exception = Exception::new(ExceptionKind::RegionMoved, "hostname=x port=y");
        let received = Exception::from_response(exception.to_response());
        assert_eq!(received.reaction(), Reaction::ClearLocation);
    }

    #[test]
    fn a_class_that_is_not_known_is_retried_unless_it_says_otherwise() {
        let response = |do_not_retry| pb::ExceptionResponse {
            exception_class_name: Some("com.example.Strange".to_owned()),
            stack_trace: Some("com.example.Strange: odd\n\tat x".to_owned()),
            do_not_retry: Some(do_not_retry),
            ..Default::default()
        };
        let retried = Exception::from_response(response(false));
        assert_eq!(retried.reaction(), Reaction::ClearLocation);
        assert_eq!(retried.class_name(), "com.example.Strange");
        assert_eq!(retried.message(), "odd\n\tat x");
        let ended = Exception::from_response(response(true));
        assert_eq!(ended.reaction(), Reaction::DoNotRetry);
    }
}
