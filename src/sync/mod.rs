//! Between the disk and the network: my tree is published under my name, followed names become trees, and blobs
//! that only a followed name has are fetched when someone asks for them.

mod adopt;
mod catalogue;
mod domains;
mod fetch;
mod follow;
mod following;
mod found;
mod heal;
pub(crate) mod listing;
mod members;
mod mirror;
mod names;
mod nodes;
mod publish;
mod reclaim;
mod records;
mod redirects;
mod routed;
mod seek;
mod take;
mod walks;
mod writer;

pub(crate) use catalogue::StoreCatalogue;
pub(crate) use fetch::Fetcher;
pub(crate) use follow::{Followed, Follower};
pub(crate) use following::{Following, Policy, Whom};
pub(crate) use heal::Healer;
pub(crate) use members::MembersName;
pub(crate) use mirror::{Mirrored, Mirrors};
pub(crate) use names::{Kept, Publisher};
pub(crate) use publish::publish;
pub(crate) use reclaim::{Reclaimed, Reclaimer};
pub(crate) use records::StoreRecords;
pub(crate) use redirects::Redirects;
pub(crate) use routed::ask_routers;
pub(crate) use take::{Own, Taken};
pub(crate) use writer::{Standing, Writer};

/// Files up to this size come with the directories that name them: links, manifests, configs.
pub(crate) const EAGER: u64 = 16 * 1024;
/// Nodes that travel with a record; what is more is fetched by bitswap.
pub(crate) const MAX_NODES: usize = 256 * 1024;

/// A disk operation off the async threads. It panics only if the operation does.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    Ok(tokio::task::spawn_blocking(work).await?)
}
