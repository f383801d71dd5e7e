//! The one task that owns the swarm.
//!
//! It waits for whichever comes first: a command of a handle, an event of the swarm, an answer of the
//! program's records, room in the event queue, or the next thing that is due. Nothing in it blocks or
//! waits for a single peer. The rooms beside it hold what belongs together: `connections`, `exchange`
//! (records between peers), `lookups` (the DHTs), `announce` (what they are told of) and
//! `reaching` (strangers, and relays).

mod announce;
mod connections;
mod exchange;
mod lookups;
mod reaching;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Multiaddr;
use libp2p::request_response::OutboundRequestId;
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{PeerId, Swarm};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::answers::Answers;
use crate::audience::Members;
use crate::behaviour::{Behaviour, BehaviourEvent};
use crate::clock::Wall;
use crate::command::Command;
use crate::config::Network;
use crate::dialer::Dialer;
use crate::event::{Counters, Outbox};
use crate::gossip::Topics;
use crate::handle::ConnectError;
use crate::mdns::Responder;
use crate::name::Name;
use crate::names::Names;
use crate::offences::Offences;
use crate::peers::Peers;
use crate::queries::Queries;
use crate::reach::Reach;
pub(crate) use announce::Provided;

/// With nothing due the task looks round this often.
const IDLE: Duration = Duration::from_mins(1);
/// For saying goodbye to the peers.
const FAREWELL: Duration = Duration::from_secs(2);

pub(crate) struct Worker {
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) answers: Answers,
    pub(crate) members: Members,
    pub(crate) outbox: Outbox,
    pub(crate) counters: Arc<Counters>,
    pub(crate) network: Network,
    pub(crate) dialer: Dialer,
    pub(crate) names: Names,
    pub(crate) topics: Topics,
    pub(crate) offences: Offences,
    pub(crate) peers: Peers,
    pub(crate) queries: Queries,
    pub(crate) provided: Provided,
    pub(crate) reach: Reach,
    /// Says on the LAN where this node is.
    pub(crate) responder: Option<Responder>,
    /// Addresses that this node says of itself that they can be called, as on a LAN nobody else does.
    pub(crate) confirmed_here: BTreeSet<Multiaddr>,
    /// What was asked of other Sampans, by name.
    pub(crate) asked: HashMap<OutboundRequestId, Name>,
    /// Who waits for a connection.
    pub(crate) connecting: HashMap<ConnectionId, oneshot::Sender<Result<PeerId, ConnectError>>>,
    /// Each listener with the address that was asked for.
    pub(crate) listeners: HashMap<ListenerId, Multiaddr>,
    pub(crate) wall: Wall,
    /// When members are asked again which registries there are, where anyone wants to know.
    pub(crate) registries_due: Option<Instant>,
}

impl Worker {
    /// Runs until a handle says stop, or no handle is left.
    pub(crate) async fn run(mut self: Box<Self>) {
        let mut farewell = None;
        loop {
            let wake = self.next_wake();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Shutdown { reply }) => {
                        farewell = Some(reply);
                        break;
                    }
                    Some(command) => self.on_command(command),
                    None => break,
                },
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                answer = self.answers.next() => self.on_answer(answer),
                () = self.outbox.deliver(), if self.outbox.is_behind() => {}
                () = sleep_until(wake) => self.on_time(),
            }
        }
        let listened: Vec<Multiaddr> = self.listeners.values().cloned().collect();
        self.close().await;
        crate::ports::wait_until_free(&listened).await;
        if let Some(reply) = farewell {
            // Whoever asked may have given up waiting.
            let _ = reply.send(());
        }
    }

    /// Handles one event of the swarm; for the start, before the loop runs.
    pub(crate) async fn step(&mut self) {
        let event = self.swarm.select_next_some().await;
        self.on_swarm_event(event);
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Addresses { reply } => {
                let _ = reply.send(self.addresses());
            }
            Command::Reached { reply } => {
                let _ = reply.send(self.reached());
            }
            Command::Peers { reply } => {
                let _ = reply.send(self.peers.list());
            }
            Command::Publish { record, nodes, reply } => {
                let _ = reply.send(self.publish(&record, nodes));
            }
            Command::Follow { name, reply } => {
                let _ = reply.send(self.follow(name));
            }
            Command::Unfollow { name } => {
                self.provided.forget(&name);
                self.unfollow(&name);
            }
            Command::Followers { name, reply } => {
                let mut followers = self.peers.followers(&name);
                // Its owner asks for it too, to learn of another writer.
                followers.retain(|peer| Name::from(*peer) != name);
                let _ = reply.send(followers);
            }
            Command::Resolve { name, reply } => self.resolve(name, reply),
            Command::Offer { name, record, via, reply } => {
                // Whoever asked may have gone.
                let _ = reply.send(self.take_offer(&name, &record, via));
            }
            Command::Provide { name, root } => self.provide(name, root),
            Command::FindProviders { cid, reply } => self.find_providers(&cid, reply),
            Command::Connect { address, reply } => self.connect(address, reply),
            // Ends the loop before it comes here.
            Command::Shutdown { .. } => {}
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            other => self.on_connection_event(other),
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(event) => self.on_identify(event),
            BehaviourEvent::Ping(event) => self.on_ping(event),
            BehaviourEvent::Mdns(event) => self.on_mdns(event),
            BehaviourEvent::Lan(event) => self.on_dht(crate::queries::Table::Lan, event),
            BehaviourEvent::Wan(event) => self.on_dht(crate::queries::Table::Wan, event),
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Fetch(event) => self.on_fetch(event),
            BehaviourEvent::Follow(event) => self.on_follow(event),
            BehaviourEvent::Callback(event) => self.on_callback(&event),
            BehaviourEvent::Relay(event) => reaching::on_relay(&event),
            // What comes of it is a connection.
            BehaviourEvent::Punch(_) => {}
            BehaviourEvent::Gate(never) | BehaviourEvent::Limits(never) | BehaviourEvent::Bitswap(never) => {
                match never {}
            }
        }
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        self.dial_due(now);
        self.look_up_due(now);
        self.sweep_queries(now);
        self.provide_due(now);
        self.reserve_due(now);
        self.ask_for_registries_due(now);
    }

    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let due = [
            self.dialer.next_due(),
            self.names.next_due(),
            self.queries.next_sweep(),
            self.provided.next_due(),
            self.registries_due,
            self.reach.next_due().filter(|_| self.network.is_public()),
        ];
        due.into_iter().flatten().min().unwrap_or(now + IDLE).min(now + IDLE)
    }

    /// Listeners first, so that nobody comes back; then the peers, with a deadline; then the rest.
    async fn close(mut self: Box<Self>) {
        self.commands.close();
        for listener in self.listeners.keys() {
            self.swarm.remove_listener(*listener);
        }
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // A peer that is gone already needs no goodbye.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let farewell = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.next().await;
            }
        };
        if timeout(FAREWELL, farewell).await.is_err() {
            tracing::debug!("some peers did not close their connection in time");
        }
    }
}
