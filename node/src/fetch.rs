//! `/libp2p/fetch/0.0.1`: asks one peer for the record of a name, and answers the same question.
//!
//! Used where a peer joins a name's pubsub topic after the last record went by.
//! Specification: <https://github.com/libp2p/specs/tree/master/fetch>. The identifier is declared as
//! a string there and carries raw bytes in practice.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::{AsyncRead, AsyncWrite};
use libp2p::StreamProtocol;
use libp2p::request_response::{self, ProtocolSupport};
use prost::Message;

use crate::frame;

pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/libp2p/fetch/0.0.1");
/// As in go-libp2p-pubsub-router.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An identifier is the key of a name. Anybody may ask, on many streams at once.
const MAX_REQUEST: usize = 1024;
/// A record has at most 10 KiB.
const MAX_RESPONSE: usize = 64 * 1024;
/// At one time, on one connection.
const MAX_STREAMS: usize = 16;

pub(crate) type Behaviour = request_response::Behaviour<Codec>;
pub(crate) type Event = request_response::Event<Request, Response>;

/// The identifier: a name's routing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request(pub(crate) Vec<u8>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    Found(Bytes),
    NotFound,
    Failed,
}

pub(crate) fn behaviour() -> Behaviour {
    let config = request_response::Config::default()
        .with_request_timeout(TIMEOUT)
        .with_max_concurrent_streams(MAX_STREAMS);
    request_response::Behaviour::with_codec(Codec, [(PROTOCOL, ProtocolSupport::Full)], config)
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Codec;

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Response;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        let message = frame::read(io, MAX_REQUEST).await?;
        let request = FetchRequest::decode(message.as_slice()).map_err(frame::malformed)?;
        Ok(Request(request.identifier))
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        let message = frame::read(io, MAX_RESPONSE).await?;
        let response = FetchResponse::decode(Bytes::from(message)).map_err(frame::malformed)?;
        Ok(match Status::try_from(response.status) {
            Ok(Status::Ok) => Response::Found(response.data),
            Ok(Status::NotFound) => Response::NotFound,
            Ok(Status::Error) | Err(_) => Response::Failed,
        })
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Request) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        frame::write(io, &FetchRequest { identifier: request.0 }.encode_to_vec()).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: Response,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let (status, data) = match response {
            Response::Found(data) => (Status::Ok, data),
            Response::NotFound => (Status::NotFound, Bytes::new()),
            Response::Failed => (Status::Error, Bytes::new()),
        };
        frame::write(io, &FetchResponse { status: status.into(), data }.encode_to_vec()).await
    }
}

#[derive(Clone, PartialEq, Message)]
struct FetchRequest {
    #[prost(bytes = "vec", tag = "1")]
    identifier: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct FetchResponse {
    #[prost(enumeration = "Status", tag = "1")]
    status: i32,
    #[prost(bytes = "bytes", tag = "2")]
    data: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum Status {
    Ok = 0,
    NotFound = 1,
    Error = 2,
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;
    use libp2p::request_response::Codec as _;

    use super::*;
    use crate::name::Name;

    #[tokio::test]
    async fn a_request_has_the_known_bytes() {
        let name: Name = "12D3KooWLU2znyJMtDiHArqAGbZn8CgUGp92kxDBtefftEEaHSZS".parse().unwrap();
        let mut stream = Cursor::new(Vec::new());
        Codec.write_request(&PROTOCOL, &mut stream, Request(name.routing_key())).await.unwrap();
        assert_eq!(
            multibase::Base::Base16Lower.encode(stream.get_ref()),
            "2e0a2c2f69706e732f0024080112209e3b433cbd31c2b8a6ebbdca998bd0f4c2141c9c9af5422e976051b1e63af14d"
        );
        stream.set_position(0);
        let read = Codec.read_request(&PROTOCOL, &mut stream).await.unwrap();
        assert_eq!(Name::from_routing_key(&read.0), Some(name));
    }

    #[tokio::test]
    async fn responses_come_back_as_they_were() {
        for response in [Response::Found(Bytes::from_static(b"record")), Response::NotFound, Response::Failed]
        {
            let mut stream = Cursor::new(Vec::new());
            Codec.write_response(&PROTOCOL, &mut stream, response.clone()).await.unwrap();
            stream.set_position(0);
            assert_eq!(Codec.read_response(&PROTOCOL, &mut stream).await.unwrap(), response);
        }
    }

    #[tokio::test]
    async fn garbage_is_an_error() {
        assert!(Codec.read_request(&PROTOCOL, &mut Cursor::new(vec![3, 0xff, 0xff, 0xff])).await.is_err());
        assert!(Codec.read_response(&PROTOCOL, &mut Cursor::new(vec![0xff; 20])).await.is_err());
    }
}
