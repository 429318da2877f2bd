//! Errors as they cross the wire: by the exact name of their Java class.
//!
//! A Java client loads the class by its name and gives it the text; what it then does (drop the
//! cached location, wait, give up) hangs on the class alone. A class that it cannot load ends the
//! operation, so only names that HBase has may be sent. [`ExceptionKind::reaction`] is the same
//! decision for our own client.
//!
//! Where a region has moved to is told in the text: see [`MovedRegion`].

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

/// Where a region is now, as its former server knows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MovedRegion {
    /// The server.
    pub server: ServerName,
    /// The region's sequence id when it was opened there: tells newer news from older.
    pub location_sequence_id: i64,
}

/// What a client does about an exception.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reaction {
    /// Forgets where the region (or the master) is, and tries again.
    ClearLocation,
    /// Takes the new location from the exception, and tries again.
    FollowMove,
    /// Tries again at the same place, after a pause.
    KeepLocation,
    /// Opens the scanner again after the last row it got.
    ReopenScanner,
    /// Gives up.
    DoNotRetry,
}

macro_rules! exception_kinds {
    ($($(#[$doc:meta])* $kind:ident = $class:literal => $reaction:ident),+ $(,)?) => {
        /// The exceptions that are known by name.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum ExceptionKind {
            $($(#[$doc])* $kind,)+
            /// A class that is not in this list; it is retried unless it says otherwise.
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
    /// The region was moved, and it is known where to.
    RegionMoved = "exceptions.RegionMovedException" => FollowMove,
    /// The region is being opened here.
    RegionOpening = "exceptions.RegionOpeningException" => KeepLocation,
    /// The region takes no more writes for now.
    RegionTooBusy = "RegionTooBusyException" => KeepLocation,
    /// Too many calls wait on this server.
    CallQueueTooBig = "CallQueueTooBigException" => KeepLocation,
    /// The call waited too long on this server.
    CallDropped = "CallDroppedException" => KeepLocation,
    /// A quota is used up.
    RpcThrottling = "quotas.RpcThrottlingException" => KeepLocation,
    /// The results of a batch would be too large; the rest is to be asked for again.
    MultiActionResultTooLarge = "MultiActionResultTooLarge" => KeepLocation,
    /// To be asked for again at once.
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
    /// The row is not in the region that was asked.
    WrongRegion = "regionserver.WrongRegionException" => ClearLocation,
    /// The scanner is not known: it was not renewed in time, or the server is another one.
    UnknownScanner = "UnknownScannerException" => ReopenScanner,
    /// The scanner cannot go on.
    ScannerReset = "exceptions.ScannerResetException" => ReopenScanner,
    /// A call of the scanner was lost or came twice.
    OutOfOrderScannerNext = "exceptions.OutOfOrderScannerNextException" => ReopenScanner,
    /// The scanner's lease is over.
    Lease = "regionserver.LeaseException" => ReopenScanner,
    /// Anything that trying again does not help.
    DoNotRetry = "DoNotRetryIOException" => DoNotRetry,
    /// There is no such table.
    TableNotFound = "TableNotFoundException" => DoNotRetry,
    /// There is such a table already.
    TableExists = "TableExistsException" => DoNotRetry,
    /// The table is disabled.
    TableNotEnabled = "TableNotEnabledException" => DoNotRetry,
    /// The table is enabled.
    TableNotDisabled = "TableNotDisabledException" => DoNotRetry,
    /// There is no such namespace.
    NamespaceNotFound = "NamespaceNotFoundException" => DoNotRetry,
    /// There is such a namespace already.
    NamespaceExist = "NamespaceExistException" => DoNotRetry,
    /// A change of a family that cannot be.
    InvalidFamilyOperation = "InvalidFamilyOperationException" => DoNotRetry,
    /// There is no such family.
    NoSuchColumnFamily = "regionserver.NoSuchColumnFamilyException" => DoNotRetry,
    /// A descriptor or a mutation that makes no sense.
    FailedSanityCheck = "exceptions.FailedSanityCheckException" => DoNotRetry,
    /// A rule of a namespace or a table is broken.
    Constraint = "constraint.ConstraintException" => DoNotRetry,
    /// The request is above the bound of the server.
    RequestTooBig = "exceptions.RequestTooBigException" => DoNotRetry,
    /// The row is above the bound of the server.
    RowTooBig = "regionserver.RowTooBigException" => DoNotRetry,
    /// It is not allowed.
    AccessDenied = "security.AccessDeniedException" => DoNotRetry,
    /// There is no such region.
    UnknownRegion = "UnknownRegionException" => DoNotRetry,
    /// The region is not in a state for this.
    DoNotRetryRegion = "client.DoNotRetryRegionException" => DoNotRetry,
    /// The master is stopping.
    MasterStopped = "exceptions.MasterStoppedException" => DoNotRetry,
    /// There is no such coprocessor.
    UnknownProtocol = "exceptions.UnknownProtocolException" => DoNotRetry,
    /// There is no such snapshot, or it cannot be made.
    HBaseSnapshot = "snapshot.HBaseSnapshotException" => DoNotRetry,
    /// An argument is wrong.
    IllegalArgument = "exceptions.IllegalArgumentIOException" => DoNotRetry,
    /// It took too long.
    TimeoutIo = "exceptions.TimeoutIOException" => ClearLocation,
    /// The connection cannot be used.
    FatalConnection = "ipc.FatalConnectionException" => DoNotRetry,
    /// Another version of the protocol.
    WrongVersion = "ipc.WrongVersionException" => DoNotRetry,
    /// A way to log in that is not offered.
    BadAuth = "ipc.BadAuthException" => DoNotRetry,
    /// A service that is not offered.
    UnknownService = "ipc.UnknownServiceException" => DoNotRetry,
    /// A codec of cells that is not offered.
    UnsupportedCellCodec = "ipc.UnsupportedCellCodecException" => DoNotRetry,
    /// A compression of cells that is not offered.
    UnsupportedCompressionCodec = "ipc.UnsupportedCompressionCodecException" => DoNotRetry,
    /// No login is needed; the client goes on without one.
    SecurityNotEnabled = "ipc.SecurityNotEnabledException" => DoNotRetry,
}

// === impl ExceptionKind ===

impl ExceptionKind {
    /// The full name of its Java class.
    pub fn class_name(self) -> &'static str {
        self.entry().1
    }

    /// What a client does about it.
    pub fn reaction(self) -> Reaction {
        self.entry().2
    }

    /// Whether a server that answers it has certainly not applied the write that it was asked for.
    /// Basalt's servers keep to this: once a write is in the log, they answer none of these.
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

    /// The region is now at `moved_to`.
    pub fn region_moved(moved_to: MovedRegion) -> Self {
        let mut exception = Self::new(ExceptionKind::RegionMoved, moved_to.to_string());
        exception.moved_to = Some(moved_to);
        exception
    }

    /// The answer to a method that is not there.
    pub fn unknown_method(method: &str) -> Self {
        let message = format!("java.lang.UnsupportedOperationException: {method}");
        Self::new(ExceptionKind::DoNotRetry, message)
    }

    /// The answer to a request that cannot be decoded or makes no sense.
    pub fn bad_request(error: impl fmt::Display) -> Self {
        Self::new(ExceptionKind::DoNotRetry, error.to_string())
    }

    /// Which exception it is.
    pub fn kind(&self) -> ExceptionKind {
        ExceptionKind::from_class_name(&self.class_name)
    }

    /// The full name of its Java class.
    pub fn class_name(&self) -> &str {
        &self.class_name
    }

    /// Its text. That of a Java server holds a stack trace.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether it says itself that trying again does not help.
    pub fn do_not_retry(&self) -> bool {
        self.do_not_retry
    }

    /// Whether the server asks for a longer pause.
    pub fn server_overloaded(&self) -> bool {
        self.server_overloaded
    }

    /// Where the region is now, if the exception tells.
    pub fn moved_to(&self) -> Option<&MovedRegion> {
        self.moved_to.as_ref()
    }

    /// What a client does about it.
    pub fn reaction(&self) -> Reaction {
        match self.kind().reaction() {
            Reaction::FollowMove if self.moved_to.is_none() => Reaction::ClearLocation,
            Reaction::ReopenScanner => Reaction::ReopenScanner,
            _ if self.do_not_retry => Reaction::DoNotRetry,
            reaction => reaction,
        }
    }

    /// As the header of a response carries it.
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

    /// As the result of an action of a batch carries it.
    pub fn to_name_bytes(&self) -> pb::NameBytesPair {
        pb::NameBytesPair {
            name: self.class_name.clone().into_owned(),
            value: Some(self.to_string().into_bytes().into()),
        }
    }

    /// The exception of a response's header.
    pub fn from_response(response: pb::ExceptionResponse) -> Self {
        let (do_not_retry, overloaded) = (response.do_not_retry(), response.server_overloaded());
        let class_name = response.exception_class_name.unwrap_or_default();
        let mut exception = Self::received(class_name, response.stack_trace.unwrap_or_default());
        exception.do_not_retry |= do_not_retry;
        exception.server_overloaded |= overloaded;
        exception
    }

    /// The exception of an action of a batch.
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
    /// As Java prints it.
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
    /// The text that the Java client takes apart again.
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
