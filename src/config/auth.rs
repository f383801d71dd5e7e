//! The section `auth`, from keys to the settings of one kind of authentication.
//!
//! A section that is named and does not say enough is an error, never a registry without authentication.

use std::path::PathBuf;

use super::Anonymous;
use super::reader::Reader;
use super::said::Said;
use super::source::Source;
use crate::auth::{
    ALGORITHMS, Action, Actions, Algorithm, Realm, Rules, Settings, TOKEN_PATH, TokenSettings,
};

/// What the window of a client shows.
const REALM: &str = "Sampan";

const HTPASSWD: &str = "auth.htpasswd";
const TOKEN: &str = "auth.token";
const RULES: &str = "auth.rules";

/// Keys that are texts.
const TEXTS: [&str; 8] = [
    "auth.htpasswd.realm",
    "auth.htpasswd.path",
    "auth.token.realm",
    "auth.token.service",
    "auth.token.issuer",
    "auth.token.rootcertbundle",
    "auth.token.jwks",
    "auth.token.autoredirectpath",
];

/// What is wrong with the keys together.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) key: &'static str,
    pub(super) source: Source,
    pub(super) text: String,
}

/// `None` where no authentication is configured. `anonymous` of a flag is not known here.
pub(super) fn settings(said: &Said) -> Result<Option<Settings>, Problem> {
    match (said.names_section(HTPASSWD), said.names_section(TOKEN)) {
        (true, true) => {
            let source = of(said, &["auth.token.realm", "auth.token.issuer", "auth.htpasswd.path"]);
            Err(problem(TOKEN, source, "stands beside auth.htpasswd; a registry has one of them"))
        }
        (true, false) => htpasswd(said).map(Some),
        (false, true) => token(said).map(Some),
        (false, false) if said.names_section("auth") || said.rules(RULES).is_some() => {
            let source = of(said, &[RULES]);
            Err(problem(
                "auth",
                source,
                "says neither htpasswd nor token; take it out, or say with what clients log in",
            ))
        }
        (false, false) => Ok(None),
    }
}

/// Notes what was said of the section, for `config show`.
pub(super) fn show(reader: &mut Reader<'_>) {
    for key in TEXTS {
        reader.given(key);
    }
    reader.switch("auth.token.autoredirect", false);
    reader.choices("auth.token.signingalgorithms");
    reader.rules(RULES);
}

/// The rules where the operator has none: users may do everything, and anonymous clients what was said of them.
pub(super) fn plain_rules(anonymous: Option<Anonymous>) -> Rules {
    Rules::plain(match anonymous {
        None => Actions::default(),
        Some(Anonymous::Pull) => [Action::Pull].into_iter().collect(),
        Some(Anonymous::Push) => Actions::ALL,
    })
}

fn htpasswd(said: &Said) -> Result<Settings, Problem> {
    let Some((path, _)) = said.text("auth.htpasswd.path") else {
        let source = of(said, &["auth.htpasswd.realm", RULES]);
        return Err(problem(
            HTPASSWD,
            source,
            "needs path, the file of users; make one with: htpasswd -Bc FILE USER",
        ));
    };
    let realm = said.text("auth.htpasswd.realm").map_or_else(|| REALM.to_owned(), |(realm, _)| realm);
    let anonymous = said.text("anonymous");
    let rules = match (said.rules(RULES), anonymous) {
        (Some(_), Some((_, source))) => return Err(problem("anonymous", source, BESIDE_RULES)),
        (Some((rules, _)), None) => rules,
        (None, anonymous) => plain_rules(super::choice(anonymous).map(|(anonymous, _)| anonymous)),
    };
    let prefix = said.text("http.prefix").map(|(prefix, _)| prefix).unwrap_or_default();
    let token_path = format!("{}{TOKEN_PATH}", prefix.trim_end_matches('/'));
    Ok(Settings::Htpasswd { realm, path: PathBuf::from(path), rules, token_path })
}

/// Why a registry with rules has no other word on anonymous clients.
pub(super) const BESIDE_RULES: &str = "stands beside auth.rules; say there what users: [anonymous] may do";
/// The same of tokens.
pub(super) const BESIDE_TOKEN: &str =
    "stands beside auth.token; the issuer says what anonymous clients may do";

fn token(said: &Said) -> Result<Settings, Problem> {
    if let Some((_, source)) = said.rules(RULES) {
        return Err(problem(RULES, source, "stands beside auth.token; the issuer says who may do what"));
    }
    if let Some((_, source)) = said.text("anonymous") {
        return Err(problem("anonymous", source, BESIDE_TOKEN));
    }
    let source =
        || of(said, &["auth.token.realm", "auth.token.service", "auth.token.issuer", "auth.token.jwks"]);
    let needed = |key: &str, what: &str| {
        let text = said.text(key).map(|(text, _)| text);
        text.ok_or_else(|| problem(TOKEN, source(), &format!("needs {what}")))
    };
    let path = |key: &str| said.text(key).map(|(path, _)| PathBuf::from(path));
    let redirect = said.switch("auth.token.autoredirect").is_some_and(|(redirect, _)| redirect);
    let realm = if redirect {
        let path = said.text("auth.token.autoredirectpath");
        let (path, source) = path.unwrap_or_else(|| (TOKEN_PATH.to_owned(), Source::Default));
        if !path.starts_with('/') {
            return Err(problem("auth.token.autoredirectpath", source, "must begin with /"));
        }
        Realm::Redirect(path)
    } else {
        Realm::Url(needed("auth.token.realm", "realm, the URL where tokens are given")?)
    };
    let service = needed("auth.token.service", "service, the name of this registry in tokens")?;
    let issuer = needed("auth.token.issuer", "issuer, the name of who gives tokens")?;
    let (jwks, bundle) = (path("auth.token.jwks"), path("auth.token.rootcertbundle"));
    if jwks.is_none() && bundle.is_none() {
        return Err(problem(TOKEN, source(), "needs jwks or rootcertbundle, the keys that sign tokens"));
    }
    let names = said.choices("auth.token.signingalgorithms").map(|(names, _)| names);
    let names = names.unwrap_or_else(|| ALGORITHMS.map(str::to_owned).to_vec());
    // The table has let no other name through.
    let algorithms: Vec<Algorithm> = names.iter().filter_map(|name| name.parse().ok()).collect();
    Ok(Settings::Token(TokenSettings { realm, service, issuer, algorithms, jwks, bundle }))
}

fn problem(key: &'static str, source: Source, text: &str) -> Problem {
    Problem { key, source, text: text.to_owned() }
}

/// Where the first of these that was said comes from.
fn of(said: &Said, keys: &[&str]) -> Source {
    let source = |key: &&str| {
        let text = said.text(key).map(|(_, source)| source);
        text.or_else(|| said.rules(key).map(|(_, source)| source))
    };
    keys.iter().find_map(source).unwrap_or_default()
}
