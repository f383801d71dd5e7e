//! How bytes reach a peer: TCP with Noise and Yamux, QUIC, and circuits through relays.
//!
//! Where nothing is lost TCP carries more than QUIC for the same CPU, so the LAN uses it; QUIC is for
//! the world outside.

use std::io;
use std::time::Duration;

use futures::future::Either;
use futures::{AsyncRead, AsyncWrite, TryFutureExt};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::pnet::PnetConfig;
use libp2p::{PeerId, Transport, dns, noise, quic, relay, tcp, yamux};

use crate::config::{Config, Network};
use crate::scope::ScopedTransport;

/// From the first packet to a connection that carries streams.
const SETUP_TIMEOUT: Duration = Duration::from_secs(20);

/// What a peer may send on all streams of a connection before it is read. 64 that came to us hold 64 MiB at most, and
/// 100 Mbit/s over 80 ms need no more.
const QUIC_WINDOW: u32 = 1024 * 1024;
/// One stream may not take it all.
const QUIC_STREAM_WINDOW: u32 = 512 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("the node's key cannot be used for encryption")]
    Noise(#[from] noise::Error),
    #[error("the system's DNS settings cannot be read")]
    Dns(#[source] io::Error),
}

type Connections = Boxed<(PeerId, StreamMuxerBox)>;

/// Builds the transport that `config` asks for, and for the public network what speaks to relays.
pub(crate) fn build(
    config: &Config,
) -> Result<(Connections, Option<relay::client::Behaviour>), TransportError> {
    let key = config.key.to_libp2p();
    let scope = config.network.scope();
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));

    let (transport, relay) = match &config.network {
        Network::Private(swarm_key) => {
            // The swarm key is a layer on the bare socket, and QUIC has no place for it.
            let pnet = PnetConfig::new(swarm_key.to_libp2p());
            let layered = tcp.and_then(move |socket, _| pnet.handshake(socket).map_err(io::Error::other));
            (secured(layered, &key)?, None)
        }
        Network::Lan => (with_quic(secured(tcp, &key)?, &key), None),
        Network::Public => {
            let transport = with_quic(secured(tcp, &key)?, &key);
            let transport = dns::tokio::Transport::system(transport).map_err(TransportError::Dns)?;
            let (circuits, relay) = relay::client::new(config.key.peer_id());
            let circuits = secured(circuits, &key)?.or_transport(transport);
            (circuits.map(|either, _| either.into_inner()).boxed(), Some(relay))
        }
    };
    Ok((ScopedTransport::new(transport, scope).boxed(), relay))
}

fn secured<T>(transport: T, key: &Keypair) -> Result<Connections, noise::Error>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::ListenerUpgrade: Send,
    T::Dial: Send,
{
    Ok(transport
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key)?)
        .multiplex(yamux::Config::default())
        .timeout(SETUP_TIMEOUT)
        .boxed())
}

fn with_quic(stream: Connections, key: &Keypair) -> Connections {
    let mut config = quic::Config::new(key);
    config.max_stream_data = QUIC_STREAM_WINDOW;
    config.max_connection_data = QUIC_WINDOW;
    let quic = quic::tokio::Transport::new(config);
    stream
        .or_transport(quic.map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection))))
        .map(|either, _| match either {
            Either::Left(output) | Either::Right(output) => output,
        })
        .boxed()
}
