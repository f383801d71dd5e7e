//! How bytes reach a peer: TCP with Noise and Yamux, and QUIC.
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
use libp2p::{PeerId, Transport, dns, noise, quic, tcp, yamux};

use crate::config::{Config, Network};
use crate::scope::ScopedTransport;

/// From the first packet to a connection that carries streams.
const SETUP_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("the node's key cannot be used for encryption")]
    Noise(#[from] noise::Error),
    #[error("the system's DNS settings cannot be read")]
    Dns(#[source] io::Error),
}

type Connections = Boxed<(PeerId, StreamMuxerBox)>;

/// Builds the transport that `config` asks for.
pub(crate) fn build(config: &Config) -> Result<Connections, TransportError> {
    let key = config.key.to_libp2p();
    let scope = config.network.scope();
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));

    let transport = match &config.network {
        Network::Private(swarm_key) => {
            // The swarm key is a layer on the bare socket, and QUIC has no place for it.
            let pnet = PnetConfig::new(swarm_key.to_libp2p());
            let layered = tcp.and_then(move |socket, _| pnet.handshake(socket).map_err(io::Error::other));
            secured(layered, &key)?
        }
        Network::Lan => with_quic(secured(tcp, &key)?, &key),
        Network::Public => {
            let transport = with_quic(secured(tcp, &key)?, &key);
            dns::tokio::Transport::system(transport).map_err(TransportError::Dns)?.boxed()
        }
    };
    Ok(ScopedTransport::new(transport, scope).boxed())
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
    let quic = quic::tokio::Transport::new(quic::Config::new(key));
    stream
        .or_transport(quic.map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection))))
        .map(|either, _| match either {
            Either::Left(output) | Either::Right(output) => output,
        })
        .boxed()
}
