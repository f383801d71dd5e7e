//! `sampan explain REPOSITORY:TAG`: which of the trees that are read here answers, and what the others say.

use std::path::Path;

use super::print;
use crate::control::{self, Ask};
use crate::registry::Explained;

#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// A repository with a tag or digest, such as team/app:v1; without one, the tag latest
    reference: String,
    #[arg(long)]
    json: bool,
}

pub(super) fn run(dir: &Path, explain: &Explain) -> anyhow::Result<()> {
    let (repository, reference) = split(&explain.reference);
    let ask = Ask::Explain { repository: repository.to_owned(), reference: reference.to_owned() };
    let all: Vec<Explained> = control::must_ask(dir, &ask)?;
    if explain.json {
        return print::json(&all);
    }
    let rows: Vec<_> = all.iter().map(row).collect();
    print::table(&rows);
    if !all.iter().any(|it| it.wins) {
        print::line("nothing answers: clients get 404, or 503 where a tree cannot be read");
    }
    Ok(())
}

/// A repository has no colon and no at sign.
fn split(text: &str) -> (&str, &str) {
    let parts = text.split_once('@').or_else(|| text.split_once(':'));
    parts.unwrap_or((text, "latest"))
}

fn row(it: &Explained) -> Vec<String> {
    let tree = it.tree.clone().unwrap_or_else(|| "pushed here".to_owned());
    let says = match (&it.digest, &it.error) {
        (Some(digest), _) => digest.clone(),
        (None, Some(error)) => format!("cannot be asked: {error}"),
        (None, None) if it.deleted => "has it deleted".to_owned(),
        (None, None) => "has it not".to_owned(),
    };
    let theirs = it.theirs.as_ref().map(|theirs| format!(", as {theirs}")).unwrap_or_default();
    let counter = it.counter.filter(|counter| *counter > 1 || it.deleted);
    let counter = counter.map(|counter| format!(", write {counter} of it")).unwrap_or_default();
    let mark = if it.wins { "answers" } else { "" };
    vec![mark.to_owned(), tree, format!("{says}{theirs}{counter}"), format!("root {}", it.root)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_a_tag_a_digest_or_nothing() {
        assert_eq!(split("team/app:v1"), ("team/app", "v1"));
        assert_eq!(split("team/app"), ("team/app", "latest"));
        assert_eq!(split("team/app@sha256:00"), ("team/app", "sha256:00"));
    }
}
