//! Registries that members tell of: where the configuration follows `auto`, each of them is followed, and their tags and
//! mine are written together. What was found once is followed until its operator takes it away, whether its registry
//! is there or not.

use sampan_node::Name;

use super::following::{Following, Whom};
use super::{Follower, blocking};
use crate::content::Pointer;

impl Follower {
    /// What the configuration says of members, if they are followed.
    pub(super) fn of_members(&self) -> Option<Following> {
        self.configured().into_iter().find(|following| following.whom == Whom::Members)
    }

    /// Whether it is followed because a member has told of it.
    pub(super) fn is_found(&self, name: &Name) -> bool {
        self.of_members().is_some() && self.redirects.is_found(name)
    }

    /// A member knows of these registries.
    pub(super) async fn find(&self, names: Vec<Name>) {
        if self.of_members().is_none() {
            return;
        }
        let new = names.into_iter().filter(|name| !self.is_mine(name) && !self.is_wanted(name));
        let mut found = false;
        for name in new.collect::<Vec<_>>() {
            match self.find_one(name).await {
                Ok(true) => {
                    tracing::info!(%name, "a member's registry was found, and is followed");
                    found = true;
                }
                Ok(false) => tracing::warn!(%name, "too many members; a registry is not followed"),
                Err(error) => {
                    tracing::warn!(%name, error = format!("{error:#}"), "a member's registry is not followed");
                }
            }
        }
        if found {
            self.reorder();
        }
    }

    /// Follows those that were found before, or forgets them where members are followed no longer.
    pub(super) async fn find_again(&self) -> anyhow::Result<()> {
        if self.of_members().is_none() {
            let redirects = self.redirects.clone();
            return blocking(move || redirects.forget_found()).await?;
        }
        for name in self.redirects.found() {
            if !self.is_mine(&name) {
                self.follow_after(name, 0).await?;
            }
        }
        Ok(())
    }

    async fn find_one(&self, name: Name) -> anyhow::Result<bool> {
        let redirects = self.redirects.clone();
        if !blocking(move || redirects.add_found(&name)).await?? {
            return Ok(false);
        }
        self.follow_after(name, 0).await?;
        Ok(true)
    }

    /// The trees of members, after those that were followed by hand.
    pub(super) fn found(&self) -> Vec<(Pointer, Following)> {
        let Some(following) = self.of_members() else { return Vec::new() };
        let names = self.redirects.found().into_iter().filter(|name| !self.is_mine(name));
        names.map(|name| (Pointer::Name(name), following.clone())).collect()
    }
}
