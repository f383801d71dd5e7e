//! `/sampan/follow/1.0.0`: between Sampans, a name's record travels with the nodes that changed.
//!
//! A follower asks once per connection and is sent each update from then on, so a new root is known
//! one way trip after it was signed, and its directories need no further question. Unlike on the
//! paths that kubo listens to, a record may have expired: what it points to is still the last that
//! the publisher said.
//!
//! Messages are DAG-CBOR behind a varint length.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use cid::Cid;
use futures::{AsyncRead, AsyncWrite};
use libp2p::StreamProtocol;
use libp2p::request_response::{self, ProtocolSupport};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::frame::{self, Budget, Room};
use crate::name::Name;

pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/sampan/follow/1.0.0");
/// A peer that needs longer is asked again, or asks again.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most nodes that travel with a record. A bigger change is fetched block by block.
pub const MAX_NODES: usize = 1024 * 1024;
/// Nodes, and room for the record and the frame around both.
const MAX_MESSAGE: usize = MAX_NODES + 64 * 1024;
/// Of all connections together. Anybody may send an update, and it is judged as soon as it is here: of those that find no
/// room the nodes are asked for one by one.
const BUDGET: usize = 8 * 1024 * 1024;
/// At one time, on one connection: a peer asks for each name that it follows.
const MAX_STREAMS: usize = 32;

pub(crate) type Behaviour = request_response::Behaviour<Codec>;
pub(crate) type Event = request_response::Event<Request, Response>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// What is current, and what changed since the root that I have? Tell me of updates too.
    Ask { name: Name, have: Option<Cid> },
    /// Which registries do you know of, your own among them?
    Registries,
    /// A record that you asked to be told of; `nodes` is a CAR, or empty.
    Update { name: Name, record: Bytes, nodes: Bytes, room: Room },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    Known { record: Bytes, nodes: Bytes },
    Registries { names: Vec<Name> },
    Unknown,
    Taken,
}

pub(crate) fn behaviour() -> Behaviour {
    let config = request_response::Config::default()
        .with_request_timeout(TIMEOUT)
        .with_max_concurrent_streams(MAX_STREAMS);
    request_response::Behaviour::with_codec(Codec::default(), [(PROTOCOL, ProtocolSupport::Full)], config)
}

#[derive(Clone, Debug)]
pub(crate) struct Codec(Budget);

impl Default for Codec {
    fn default() -> Self {
        Self(Budget::new(BUDGET))
    }
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Response;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        let (message, room) = frame::read_within(io, MAX_MESSAGE, &self.0).await?;
        let request: RequestMessage = serde_ipld_dagcbor::from_slice(&message).map_err(frame::malformed)?;
        Ok(match request {
            RequestMessage::Ask { name, have } => {
                let have =
                    have.map(|have| Cid::try_from(have.as_slice())).transpose().map_err(frame::malformed)?;
                Request::Ask { name, have }
            }
            RequestMessage::Registries => Request::Registries,
            RequestMessage::Update { name, record, nodes } => {
                let (record, nodes) = (record.into_vec().into(), nodes.into_vec().into());
                Request::Update { name, record, nodes, room }
            }
        })
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        let (message, _room) = frame::read_within(io, MAX_MESSAGE, &self.0).await?;
        let response: ResponseMessage = serde_ipld_dagcbor::from_slice(&message).map_err(frame::malformed)?;
        Ok(match response {
            ResponseMessage::Known { record, nodes } => {
                Response::Known { record: record.into_vec().into(), nodes: nodes.into_vec().into() }
            }
            ResponseMessage::Registries { names } => Response::Registries { names },
            ResponseMessage::Unknown => Response::Unknown,
            ResponseMessage::Taken => Response::Taken,
        })
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Request) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let message = match request {
            Request::Ask { name, have } => {
                RequestMessage::Ask { name, have: have.map(|have| ByteBuf::from(have.to_bytes())) }
            }
            Request::Registries => RequestMessage::Registries,
            Request::Update { name, record, nodes, .. } => {
                RequestMessage::Update { name, record: ByteBuf::from(record), nodes: ByteBuf::from(nodes) }
            }
        };
        let message = serde_ipld_dagcbor::to_vec(&message).map_err(io::Error::other)?;
        frame::write(io, &message).await
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
        let message = match response {
            Response::Known { record, nodes } => {
                ResponseMessage::Known { record: ByteBuf::from(record), nodes: ByteBuf::from(nodes) }
            }
            Response::Registries { names } => ResponseMessage::Registries { names },
            Response::Unknown => ResponseMessage::Unknown,
            Response::Taken => ResponseMessage::Taken,
        };
        let message = serde_ipld_dagcbor::to_vec(&message).map_err(io::Error::other)?;
        frame::write(io, &message).await
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RequestMessage {
    Ask {
        name: Name,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        have: Option<ByteBuf>,
    },
    Registries,
    Update {
        name: Name,
        record: ByteBuf,
        nodes: ByteBuf,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ResponseMessage {
    Known { record: ByteBuf, nodes: ByteBuf },
    Registries { names: Vec<Name> },
    Unknown,
    Taken,
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;
    use libp2p::request_response::Codec as _;
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = "k51qzi5uqu5dilisnqdpktic6r9zfvlb889l47pt9fjm0asnmbihd64myweskr";

    fn requests() -> [Request; 4] {
        let name = NAME.parse().unwrap();
        [
            Request::Registries,
            Request::Ask { name, have: None },
            Request::Ask { name, have: Some("bafkqaaa".parse().unwrap()) },
            Request::Update {
                name,
                record: Bytes::from_static(b"record"),
                nodes: Bytes::from(vec![7; 70_000]),
                room: Room::default(),
            },
        ]
    }

    #[tokio::test]
    async fn requests_come_back_as_they_were() {
        for request in requests() {
            let mut stream = Cursor::new(Vec::new());
            Codec::default().write_request(&PROTOCOL, &mut stream, request.clone()).await.unwrap();
            stream.set_position(0);
            assert_eq!(Codec::default().read_request(&PROTOCOL, &mut stream).await.unwrap(), request);
        }
    }

    #[tokio::test]
    async fn responses_come_back_as_they_were() {
        let known = Response::Known { record: Bytes::from_static(b"record"), nodes: Bytes::new() };
        let registries = Response::Registries { names: vec![NAME.parse().unwrap()] };
        for response in [known, registries, Response::Unknown, Response::Taken] {
            let mut stream = Cursor::new(Vec::new());
            Codec::default().write_response(&PROTOCOL, &mut stream, response.clone()).await.unwrap();
            stream.set_position(0);
            assert_eq!(Codec::default().read_response(&PROTOCOL, &mut stream).await.unwrap(), response);
        }
    }

    #[tokio::test]
    async fn an_oversize_message_is_refused() {
        let name = NAME.parse().unwrap();
        let nodes = Bytes::from(vec![0; MAX_MESSAGE]);
        let mut stream = Cursor::new(Vec::new());
        let request = Request::Update { name, record: Bytes::new(), nodes, room: Room::default() };
        Codec::default().write_request(&PROTOCOL, &mut stream, request).await.unwrap();
        stream.set_position(0);
        assert!(Codec::default().read_request(&PROTOCOL, &mut stream).await.is_err());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = serde_ipld_dagcbor::from_slice::<RequestMessage>(&bytes);
            let _ = serde_ipld_dagcbor::from_slice::<ResponseMessage>(&bytes);
        }
    }
}
