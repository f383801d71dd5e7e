//! Whether this registry may publish under its name. A name has one writer: where the network knows a newer record than
//! this registry has signed, another machine writes with the same key, or what was here has been lost. Then nothing is
//! published any more until its operator has decided; pushes are taken and kept all the same.

use std::cmp::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sampan_node::ipns::{Record, Verified, select};
use sampan_node::{Name, Node};
use sampan_storage::Store;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// A registry that has never signed with a key that is older than its data waits so long for a peer that knows better,
/// before it publishes for the first time.
const FIRST_WORD: Duration = Duration::from_secs(30);

/// Clones share the standing.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    store: Store,
    name: Name,
    standing: watch::Sender<Standing>,
    /// The newest record of this name that was not signed here.
    rival: Arc<Mutex<Option<Verified>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing was ever signed here, with a key that may have signed elsewhere: the network is asked first.
    Asking,
    Publishing,
    /// Somebody else has published under this name.
    Stopped,
}

impl Writer {
    /// `brought`: the key was there before the data.
    pub(crate) fn new(store: Store, name: Name, brought: bool) -> Self {
        let unsigned = store.state().record.is_none();
        let standing = if brought && unsigned { Standing::Asking } else { Standing::Publishing };
        Self { store, name, standing: watch::Sender::new(standing), rival: Arc::default() }
    }

    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    pub(crate) fn standing(&self) -> Standing {
        *self.standing.borrow()
    }

    /// The newest record of others under this name.
    pub(crate) fn rival(&self) -> Option<Verified> {
        self.rival.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the network asked for this name from now on, and what is heard of it told to [`Writer::hear`].
    pub(crate) async fn begin(&self, node: &Node) -> anyhow::Result<()> {
        Ok(node.follow(self.name).await?)
    }

    /// A record of this name has come in.
    pub(crate) fn hear(&self, record: &Verified) {
        let signed = self.signed();
        if signed.is_some_and(|signed| select(record, &signed) != Ordering::Greater) {
            return;
        }
        {
            let mut rival = self.rival.lock().unwrap_or_else(PoisonError::into_inner);
            if rival.as_ref().is_some_and(|rival| select(record, rival) != Ordering::Greater) {
                return;
            }
            *rival = Some(record.clone());
        }
        if self.standing.send_replace(Standing::Stopped) != Standing::Stopped {
            tracing::warn!(
                sequence = record.sequence(),
                value = record.value(),
                "this registry's name was published elsewhere, or its data are older than what it published; nothing is published until you decide: `sampan adopt` takes that tree, `sampan adopt --merge` keeps both"
            );
        }
    }

    /// Returns when this registry may publish.
    pub(crate) async fn may_publish(&self) {
        let mut standing = self.standing.subscribe();
        let mut until = Instant::now() + FIRST_WORD;
        loop {
            let now = *standing.borrow_and_update();
            match now {
                Standing::Publishing => return,
                Standing::Stopped => {
                    if standing.changed().await.is_err() {
                        return;
                    }
                }
                Standing::Asking => {
                    if timeout_at(until, standing.changed()).await.is_ok() {
                        continue;
                    }
                    if self.store.state().sequence == 0 {
                        // An empty tree is not told of because nobody answered.
                        until = Instant::now() + FIRST_WORD;
                    } else {
                        self.settle();
                    }
                }
            }
        }
    }

    /// The operator has decided, or nobody knows better.
    pub(crate) fn settle(&self) {
        *self.rival.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.standing.send_replace(Standing::Publishing);
    }

    fn signed(&self) -> Option<Record> {
        Record::decode(self.store.state().record?.into_vec()).ok()
    }
}
