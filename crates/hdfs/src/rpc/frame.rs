//! The frames of Hadoop's RPC.
//!
//! ```text
//! preamble │ "hrpc" │ u8 version 9 │ u8 service class 0 │ u8 authentication 0 │
//! frame    │ u32 length │ varint-delimited header │ varint-delimited messages… │
//! ```
//! The first frame has call id −3. It names the user and the protocol. An answer contains one
//! message, or an exception in its header.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use super::Protocol;
use crate::error::{Defect, RemoteException};
use crate::pb;
use crate::wire::{put_delimited, split_delimited};

/// The maximum length of an answer, in bytes. The NameNode sends its listings in parts of a
/// thousand entries, and the block locations of a file take a few hundred bytes per block.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The call id of the frame that introduces a client. A server also uses it to report problems with
/// a connection.
pub(crate) const CONTEXT_CALL_ID: i32 = -3;

const PREAMBLE: [u8; 7] = *b"hrpc\x09\x00\x00";
/// `RPC_PROTOCOL_BUFFER`.
const RPC_KIND: i32 = 2;
/// `RPC_FINAL_PACKET`.
const RPC_OPERATION: i32 = 0;
/// All protocols have version 1.
const PROTOCOL_VERSION: u64 = 1;

/// Identifies a client to a server that remembers its answers.
pub(crate) type ClientId = [u8; 16];

/// Identifies a call. Its id stays the same when the call is retried, so that the NameNode repeats
/// its earlier answer instead of performing the call twice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallId {
    /// Unique for its client.
    pub(crate) id: i32,
    /// How often the call was made before.
    pub(crate) retry: i32,
}

/// An answer to a call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Answer {
    /// The call.
    pub(crate) call_id: i32,
    /// The message, preceded by its length, or the exception.
    pub(crate) result: Result<Bytes, RemoteException>,
    /// Whether the server closes the connection after this answer.
    pub(crate) is_fatal: bool,
}

/// Appends the preamble of a connection.
pub(crate) fn put_preamble(
    protocol: Protocol,
    user: &str,
    client: &ClientId,
    output: &mut BytesMut,
) {
    output.put_slice(&PREAMBLE);
    let context = pb::IpcConnectionContext {
        user: Some(pb::UserInformation { effective_user: Some(user.to_owned()), real_user: None }),
        protocol: Some(protocol.name().to_owned()),
    };
    let call = CallId { id: CONTEXT_CALL_ID, retry: -1 };
    put_frame(output, |output| {
        put_delimited(&request_header(call, client), output);
        put_delimited(&context, output);
    });
}

/// Appends a call.
pub(crate) fn put_call(
    call: CallId,
    client: &ClientId,
    protocol: Protocol,
    method: &str,
    message: &impl Message,
    output: &mut BytesMut,
) {
    let header = pb::RequestHeader {
        method_name: method.to_owned(),
        protocol_name: protocol.name().to_owned(),
        protocol_version: PROTOCOL_VERSION,
    };
    put_frame(output, |output| {
        put_delimited(&request_header(call, client), output);
        put_delimited(&header, output);
        put_delimited(message, output);
    });
}

/// Takes a frame from the front, if it is complete.
///
/// # Errors
/// A length above `length_max`.
pub(crate) fn take_frame(input: &mut BytesMut, length_max: usize) -> Result<Option<Bytes>, Defect> {
    let Some(prefix) = input.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*prefix) as usize;
    if length > length_max {
        let (length, length_max) = (length as u64, length_max as u64);
        return Err(Defect::Length { what: "answer", length, length_max });
    }
    if input.len() - 4 < length {
        return Ok(None);
    }
    input.advance(4);
    Ok(Some(input.split_to(length).freeze()))
}

/// Decodes an answer.
///
/// # Errors
/// The bytes are not an answer.
pub(crate) fn decode_answer(mut frame: Bytes) -> Result<Answer, Defect> {
    let header: pb::RpcResponseHeader = split_delimited("header of an answer", &mut frame)?;
    let status = pb::rpc_response_header::Status::try_from(header.status)
        .map_err(|_| Defect::Value { what: "status of an answer", value: header.status.into() })?;
    let is_fatal = status == pb::rpc_response_header::Status::Fatal;
    let result = match status {
        pb::rpc_response_header::Status::Success => Ok(frame),
        _ => Err(RemoteException {
            class: header.exception_class_name.unwrap_or_default().into(),
            message: header.error_message.unwrap_or_default().into(),
        }),
    };
    Ok(Answer { call_id: header.call_id as i32, result, is_fatal })
}

fn request_header(call: CallId, client: &ClientId) -> pb::RpcRequestHeader {
    pb::RpcRequestHeader {
        rpc_kind: Some(RPC_KIND),
        rpc_op: Some(RPC_OPERATION),
        call_id: call.id,
        client_id: Bytes::copy_from_slice(client),
        retry_count: Some(call.retry),
    }
}

fn put_frame(output: &mut BytesMut, put: impl FnOnce(&mut BytesMut)) {
    let start = output.len();
    output.put_u32(0);
    put(output);
    let length = (output.len() - start - 4) as u32;
    if let Some(prefix) = output.get_mut(start..start + 4) {
        prefix.copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(status: i32, exception: Option<&str>) -> BytesMut {
        let header = pb::RpcResponseHeader {
            call_id: 7,
            status,
            exception_class_name: exception.map(str::to_owned),
            error_message: exception.map(|_| "first\n\tat somewhere".to_owned()),
        };
        let mut output = BytesMut::new();
        put_frame(&mut output, |output| {
            put_delimited(&header, output);
            if exception.is_none() {
                put_delimited(&pb::BoolResponse { result: true }, output);
            }
        });
        output
    }

    #[test]
    fn a_call_has_the_bytes_that_hadoop_expects() {
        let mut output = BytesMut::new();
        put_preamble(Protocol::Client, "me", &[7; 16], &mut output);
        // Kind 2, operation 0, call id −3 and retry −1 in zigzag, the client id between them.
        let header = [&b"\x08\x02\x10\x00\x18\x05\x22\x10"[..], &[7; 16], b"\x28\x01"].concat();
        let protocol = b"org.apache.hadoop.hdfs.protocol.ClientProtocol";
        let context = [&b"\x12\x04\x0a\x02me\x1a\x2e"[..], protocol].concat();
        let (header_bytes, context_bytes) = ([header.len() as u8], [context.len() as u8]);
        let body = [&header_bytes[..], &header, &context_bytes, &context].concat();
        let length = (body.len() as u32).to_be_bytes();
        let expected = [&b"hrpc\x09\x00\x00"[..], &length, &body].concat();
        assert_eq!(&output[..], &expected[..]);
    }

    #[test]
    fn answers_come_apart() {
        let mut input = answer(0, None);
        input.extend_from_slice(&answer(1, Some("org.apache.hadoop.ipc.StandbyException")));
        input.extend_from_slice(&answer(2, Some("java.io.IOException")));
        let mut next = || decode_answer(take_frame(&mut input, 1000).unwrap().unwrap()).unwrap();
        let Answer { call_id, result, .. } = next();
        let message = split_delimited::<pb::BoolResponse>("result", &mut result.unwrap());
        assert_eq!((call_id, message.unwrap().result), (7, true));
        let standby = next();
        assert!(!standby.is_fatal);
        let exception = standby.result.unwrap_err();
        assert!(exception.is("StandbyException") && !exception.is("Exception"));
        assert_eq!(exception.to_string(), "StandbyException: first");
        assert!(next().is_fatal);
    }

    #[test]
    fn an_answer_that_is_cut_off_is_waited_for_and_a_long_one_refused() {
        let whole = answer(0, None);
        for end in 0..whole.len() {
            assert_eq!(take_frame(&mut BytesMut::from(&whole[..end]), 1000), Ok(None));
        }
        assert!(take_frame(&mut answer(0, None), 3).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_a_defect(bytes: Vec<u8>) {
            let _ = decode_answer(Bytes::from(bytes.clone()));
            let _ = take_frame(&mut BytesMut::from(&bytes[..]), 1000);
        }
    }
}
