//! Every key that is known: the one table that the file, the environment, `config show`, `config check` and
//! docs/CONFIG.md go by. It says what a key is, not what was said.

use crate::auth::ALGORITHMS;

/// One key, or one section whose inside is not looked at ([`Kind::Any`], [`Kind::Driver`]).
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    pub(crate) standing: Standing,
    /// What a used key means; for others, what to do instead.
    pub(crate) says: &'static str,
    /// Its value is not shown.
    pub(crate) secret: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Switch,
    Text,
    /// `HOST:PORT`, `:PORT` for every interface, or the path of a socket.
    Address,
    Choice(&'static [&'static str]),
    Number,
    /// As Go writes them: `60s`, `1h30m`, `168h`.
    Duration,
    /// Bytes, such as `4MiB`.
    Size,
    /// `http://` or `https://`, a host, and no more than a path behind it.
    Url,
    /// A path that begins with `/`.
    Path,
    /// Texts, as a list or with commas between them.
    Texts,
    /// Headers of HTTP: names, each with a value or a list of values.
    Headers,
    Multiaddrs,
    /// Peer ids, as a list or with commas between them.
    Peers,
    /// Names of registries, or domains that point to them, as a list or with commas between them.
    Names,
    /// URLs, as a list or with commas between them.
    Urls,
    /// A DNS server: its IP address, with a port or without, or the URL of DNS over HTTPS.
    Dns,
    /// Some of these, as a list or with commas between them.
    Choices(&'static [&'static str]),
    /// Who may do what: a list of sections, which is not empty.
    Rules,
    /// Rules of garbage collection.
    Retention,
    /// A value or a section of any shape.
    Any,
    /// As `Any`; being there says something, even when it is empty.
    Driver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Used,
    /// Harmless to leave out: a warning.
    Ignored,
    /// Unsafe to leave out, or the registry would not be where it is looked for: an error.
    Refused,
}

/// Letters of an unknown key that are compared with the known ones; no known key is longer.
const MAX_COMPARED: usize = 64;

use Kind::{
    Address, Any, Choice, Choices, Dns, Driver, Duration, Headers, Multiaddrs, Names, Number, Path, Peers,
    Retention, Rules, Size, Switch, Text, Texts, Url, Urls,
};
use Standing::{Ignored, Refused, Used};

/// In the order of Distribution's reference, with what is Sampan's own behind it.
pub(crate) const KEYS: &[Key] = &[
    key("version", Choice(&["0.1"]), Used, "Version of the format. May be left out."),
    key(
        "log.level",
        Choice(LEVELS),
        Used,
        "What is logged: `error`, `warn`, `info` or `debug`. Default: `info`.",
    ),
    key(
        "log.formatter",
        Choice(&["text", "json", "logstash"]),
        Used,
        "`text` or `json`; `logstash` is taken for `json`. Default: `text`.",
    ),
    key("log.fields", Any, Ignored, "Log lines carry no fixed fields; let the log collector add them."),
    secret("log.hooks", Any, Ignored, "No mail is sent; let the log collector watch."),
    key(
        "log.accesslog.disabled",
        Switch,
        Used,
        "`false`: a line in the log for each request. Default: `true`, unlike Distribution's.",
    ),
    key("log.reportcaller", Any, Ignored, "Log lines do not name the source."),
    key("loglevel", Choice(LEVELS), Used, "As `log.level`, which stands above it."),
    key(
        "storage.filesystem.rootdirectory",
        Text,
        Used,
        "Data directory, as `--data`. Default: the system's place for data, `/var/lib/sampan` as root.",
    ),
    key("storage.filesystem.maxthreads", Any, Ignored, "The number of threads is not limited by a key."),
    key("storage.delete.enabled", Switch, Used, "Tags, manifests and blobs can be deleted. Default: `true`."),
    key(
        "storage.ipfs.readonlyipnskeys",
        Names,
        Used,
        "Names that are followed, as a list or with commas between them; added to `ipfs.follow`. Default: none.",
    ),
    key(
        "storage.ipfs.writeipnskey",
        Text,
        Ignored,
        "A registry publishes under a name of its own: give readers what `sampan name` prints.",
    ),
    key(
        "storage.ipfs.ipfsapiaddress",
        Text,
        Ignored,
        "The node is built in and no other is asked; say with `ipfs.listen` where it listens.",
    ),
    secret("storage.s3", Driver, Refused, DISK),
    secret("storage.s3aws", Driver, Refused, DISK),
    secret("storage.gcs", Driver, Refused, DISK),
    secret("storage.azure", Driver, Refused, DISK),
    secret("storage.swift", Driver, Refused, DISK),
    secret("storage.oss", Driver, Refused, DISK),
    key(
        "storage.inmemory",
        Driver,
        Refused,
        "Data is kept on disk; use `storage.filesystem.rootdirectory`, on a tmpfs if it shall not stay.",
    ),
    key("storage.cache", Any, Ignored, "The cache is built in; nothing is to be set."),
    key("storage.tag", Any, Ignored, "Tags are read from one index; nothing is to be set."),
    key("storage.redirect", Any, Ignored, "Clients are never sent elsewhere for a blob."),
    key(
        "storage.maintenance.uploadpurging.enabled",
        Switch,
        Used,
        "Uploads that nobody goes on with are removed. Default: `true`.",
    ),
    key(
        "storage.maintenance.uploadpurging.age",
        Duration,
        Used,
        "How long an upload must lie untouched. Default: `168h`.",
    ),
    key(
        "storage.maintenance.uploadpurging.interval",
        Duration,
        Used,
        "How often is looked for such uploads. Default: `24h`.",
    ),
    key(
        "storage.maintenance.uploadpurging.dryrun",
        Switch,
        Refused,
        "Uploads are removed in earnest or not at all; say `uploadpurging.enabled: false`.",
    ),
    key(
        "storage.maintenance.readonly.enabled",
        Switch,
        Used,
        "Nothing can be pushed or deleted; what is followed is still updated. Default: `false`.",
    ),
    key(
        "auth.htpasswd.realm",
        Text,
        Used,
        "What a client shows its user who is asked for a password. Default: `Sampan`.",
    ),
    key(
        "auth.htpasswd.path",
        Text,
        Used,
        "File of users and passwords, by bcrypt or argon2; read again when it changes.",
    ),
    key("auth.token.realm", Text, Used, "URL where an issuer elsewhere gives tokens."),
    key("auth.token.service", Text, Used, "Name of this registry, as it stands in tokens for it."),
    key("auth.token.issuer", Text, Used, "Name of the issuer, as it stands in tokens."),
    key(
        "auth.token.rootcertbundle",
        Text,
        Used,
        "Certificates in PEM whose keys, or those that they certify, sign tokens; read again when it changes.",
    ),
    key(
        "auth.token.jwks",
        Text,
        Used,
        "Keys that sign tokens, as a JSON Web Key Set; read again when it changes.",
    ),
    key(
        "auth.token.signingalgorithms",
        Choices(&ALGORITHMS),
        Used,
        "How a token may be signed. Default: `EdDSA` and all of `RS`, `PS` and `ES`.",
    ),
    key(
        "auth.token.autoredirect",
        Switch,
        Used,
        "Tokens are given on the host that was asked. Default: `false`.",
    ),
    key(
        "auth.token.autoredirectpath",
        Text,
        Used,
        "Path on that host, for a proxy in front to send on to the issuer. Default: `/auth/token`.",
    ),
    key(
        "auth.rules",
        Rules,
        Used,
        "Who may do what, beside `auth.htpasswd`; see below. Default: users everything.",
    ),
    secret(
        "auth.silly",
        Driver,
        Refused,
        "It lets everyone in who sends any token; use `auth.htpasswd` or `auth.token`.",
    ),
    secret("middleware", Any, Ignored, "There is no middleware; content of others comes by `ipfs.follow`."),
    key(
        "http.addr",
        Address,
        Used,
        "Where HTTP listens, as `--addr`; with `http.net: unix` the path of the socket. Default: `127.0.0.1:5000`.",
    ),
    key(
        "http.net",
        Choice(&["tcp", "unix"]),
        Used,
        "`tcp`, or `unix` for a socket in the file system. Default: `tcp`.",
    ),
    key(
        "http.prefix",
        Path,
        Used,
        "Everything is below this path, as `/registry/`; clients and proxies must ask there. Default: none.",
    ),
    key(
        "http.host",
        Url,
        Used,
        "The URL under which clients know the registry; locations begin with it. Default: none.",
    ),
    key(
        "http.relativeurls",
        Switch,
        Used,
        "`false`: locations begin with the scheme and host that the request, or its proxy, names. Default: `true`, unlike Distribution's.",
    ),
    secret("http.secret", Text, Ignored, "Uploads carry no signed state; nothing is to be set."),
    key(
        "http.draintimeout",
        Duration,
        Used,
        "The time that requests in flight have when the registry stops. Default: `20s`.",
    ),
    key(
        "http.tls.certificate",
        Text,
        Used,
        "File with the certificate and its chain (PEM); HTTP becomes HTTPS. Default: none.",
    ),
    key("http.tls.key", Text, Used, "File with the certificate's private key (PEM). Default: none."),
    key(
        "http.tls.clientcas",
        Texts,
        Used,
        "Files with the authorities of client certificates (PEM). Default: none.",
    ),
    key(
        "http.tls.clientauth",
        Choice(&[
            "require-and-verify-client-cert",
            "verify-client-cert-if-given",
            "require-any-client-cert",
            "request-client-cert",
        ]),
        Used,
        "With `clientcas`: `require-and-verify-client-cert` or `verify-client-cert-if-given`. Default: the first.",
    ),
    key(
        "http.tls.minimumtls",
        Choice(&["tls1.2", "tls1.3"]),
        Used,
        "`tls1.2` or `tls1.3`. Default: `tls1.2`.",
    ),
    key(
        "http.tls.ciphersuites",
        Texts,
        Used,
        "Suites that are spoken, by their IANA names. Default: all that are safe.",
    ),
    secret(
        "http.tls.letsencrypt",
        Any,
        Refused,
        "Certificates are not fetched; let an ACME client write the files of `http.tls.certificate` and `http.tls.key`, which are read again when they change.",
    ),
    key(
        "http.debug.addr",
        Address,
        Used,
        "A second port for health and metrics; keep it from strangers. Default: none.",
    ),
    key("http.debug.prometheus.enabled", Switch, Used, "Metrics are on the second port. Default: `false`."),
    key("http.debug.prometheus.path", Path, Used, "The path of the metrics. Default: `/metrics`."),
    key(
        "http.headers",
        Headers,
        Used,
        "Headers that each answer gets, each with a list of values. Default: none.",
    ),
    key("http.http2.disabled", Switch, Used, "Only HTTP/1.1 is spoken over TLS. Default: `false`."),
    key(
        "http.h2c.enabled",
        Switch,
        Used,
        "HTTP/2 is spoken without TLS too, to clients that begin with it. Default: `false`.",
    ),
    secret("notifications", Any, Ignored, "No events are sent; followers learn of a push by themselves."),
    secret("redis", Any, Ignored, "The cache is built in; no Redis is asked."),
    secret("health", Any, Ignored, "Nothing else is probed; `/readyz` tells how the registry is."),
    secret(
        "proxy",
        Any,
        Refused,
        "There is no pull-through yet; follow registries by name with `ipfs.follow`.",
    ),
    key("validation.manifests.urls", Any, Refused, "URLs of foreign layers are not checked."),
    key("validation.manifests.indexes", Any, Ignored, "Say with `sparse` whether content may be missing."),
    key("validation.enabled", Any, Ignored, "Manifests are always checked."),
    key("validation.disabled", Any, Ignored, "Manifests are always checked."),
    key("policy", Any, Refused, "There are no classes of repositories."),
    key(
        "catalog.maxentries",
        Number,
        Used,
        "Repositories in one page of the catalog, at most 1,000. Default: `1000`.",
    ),
    key("tags.maxtags", Number, Used, "Tags in one page of a list, at most 1,000. Default: `1000`."),
    key("compatibility", Any, Ignored, "Manifests of schema 1 are not taken."),
    secret("reporting", Any, Ignored, "Errors are reported to nobody; they are in the log."),
    secret("profiling", Any, Ignored, "Figures are sent to nobody; `http.debug` has metrics."),
    key("ipfs.network", Choice(&["lan", "public", "private"]), Used, "As `--network`. Default: `lan`."),
    key(
        "ipfs.listen",
        Multiaddrs,
        Used,
        "Where the node listens, as `--p2p`. Default: TCP and QUIC, port 4001 of every interface.",
    ),
    key(
        "ipfs.peers",
        Multiaddrs,
        Used,
        "Peers that are kept connected; each ends in `/p2p/<peer id>`. Default: none.",
    ),
    key(
        "ipfs.allow",
        Peers,
        Used,
        "Peer ids; only with these are connections made or taken. Default: with everybody.",
    ),
    key(
        "ipfs.deny",
        Peers,
        Used,
        "Peer ids; with these none are, whatever `ipfs.allow` says. Default: none.",
    ),
    key(
        "ipfs.members",
        Peers,
        Used,
        "Peer ids that may fetch everything, also what anonymous clients may not pull. In a private network everybody may. Default: none.",
    ),
    key(
        "ipfs.bootstrap",
        Multiaddrs,
        Used,
        "Where the node enters the public network; each ends in `/p2p/<peer id>`. Default: kubo's list.",
    ),
    key(
        "ipfs.relay",
        Choice(&["auto", "always", "never"]),
        Used,
        "In the public network, others relay connections to the node: where strangers cannot call it, always or never. Default: `auto`.",
    ),
    key(
        "ipfs.follow",
        Names,
        Used,
        "Registries that are followed, by name or by a domain that points to one, as `--follow`; or sections that say more, see below. Default: none.",
    ),
    key(
        "ipfs.cache.size",
        Size,
        Used,
        "Bytes of pulled blobs of followed names that stay, of all names together; what nobody has asked for longest goes. Default: no limit.",
    ),
    key(
        "ipfs.cache.age",
        Duration,
        Used,
        "Such a blob goes when nobody has asked for it for so long. Default: it stays.",
    ),
    key(
        "ipfs.cache.grace",
        Duration,
        Used,
        "What somebody asked for more recently stays, whatever `size`, `age` or a quota say. Default: `10m`.",
    ),
    key(
        "ipfs.dns",
        Dns,
        Used,
        "Who is asked for the links of domains: the IP address of a server, with a port or without, or a URL of DNS over HTTPS. Default: the system's servers.",
    ),
    key(
        "ipfs.routers",
        Urls,
        Used,
        "URLs of delegated routers, which are asked for records and providers and told of this registry's. Default: none.",
    ),
    key(
        "ipfs.swarmkey",
        Text,
        Used,
        "File with the key of a private network. Default: `swarm.key` in the data directory.",
    ),
    key(
        "ipfs.gateway.enabled",
        Switch,
        Used,
        "Content is given over HTTP under `/ipfs` and `/ipns`, and who has it under `/routing/v1`. Default: `true`.",
    ),
    key(
        "ipfs.gateway.fetch",
        Switch,
        Used,
        "For these, peers and the DHT are asked for what is not here. Default: `false`.",
    ),
    key(
        "anonymous",
        Choice(&["pull", "push"]),
        Used,
        "As `--anonymous`. Default: `pull`, and nothing with `auth`.",
    ),
    key("sparse", Switch, Used, "A manifest may name content that is not here. Default: `false`."),
    key("gc.enabled", Switch, Used, "Garbage is collected by schedule. Default: `true`."),
    key("gc.interval", Duration, Used, "Time between two collections. Default: `24h`."),
    key(
        "gc.grace",
        Duration,
        Used,
        "What was pushed, mounted or asked for more recently is never collected. Default: `1h`.",
    ),
    key(
        "gc.untagged",
        Duration,
        Used,
        "Age at which manifests go that no tag, index or subject keeps. Default: they stay.",
    ),
    key("gc.rules", Retention, Used, "Which tags of which repositories stay, see below. Default: all stay."),
    key(
        "verify.enabled",
        Switch,
        Used,
        "All blobs are hashed again, slowly, one after the other. Default: `true`.",
    ),
    key(
        "verify.interval",
        Duration,
        Used,
        "From the begin of one such pass to that of the next. Default: `168h`.",
    ),
    key("verify.rate", Size, Used, "Bytes that it reads in a second. Default: `4MiB`."),
];

const LEVELS: &[&str] = &["error", "warn", "info", "debug"];
const DISK: &str = "Data is kept on a local disk; use `storage.filesystem.rootdirectory`.";

const fn key(path: &'static str, kind: Kind, standing: Standing, says: &'static str) -> Key {
    Key { path, kind, standing, says, secret: false }
}

const fn secret(path: &'static str, kind: Kind, standing: Standing, says: &'static str) -> Key {
    Key { path, kind, standing, says, secret: true }
}

impl Kind {
    /// Whether what stands inside belongs to the key itself.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Any | Driver)
    }

    /// Whether an empty value is one: no rules are not the same as nothing said of rules.
    pub(crate) fn says_by_being(self) -> bool {
        matches!(self, Driver | Rules)
    }

    pub(crate) fn is_list(self) -> bool {
        matches!(self, Multiaddrs | Names | Peers | Texts | Urls | Choices(_))
    }

    /// Whether a variable of the environment may hold it as YAML.
    pub(crate) fn is_yaml(self) -> bool {
        self.is_list() || self == Retention
    }
}

pub(crate) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether known keys stand below this path.
pub(crate) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| is_below(key.path, path))
}

/// Whether the first path lies in the section of the second; everything lies in the nameless one.
pub(crate) fn is_below(path: &str, section: &str) -> bool {
    section.is_empty() || path.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'))
}

/// The known key or section that an unknown path most likely means.
pub(crate) fn nearest(unknown: &str) -> &'static str {
    let unknown: String = unknown.chars().take(MAX_COMPARED).collect();
    // A key may be written in the wrong section: its own name counts too, a little less.
    let far = |known: &str| distance(&unknown, known).min(distance(leaf(&unknown), leaf(known)) + 1);
    let sections = KEYS.iter().flat_map(|key| {
        key.path.match_indices('.').filter_map(|(end, _)| key.path.get(..end)).collect::<Vec<_>>()
    });
    let (used, other): (Vec<&Key>, Vec<&Key>) = KEYS.iter().partition(|key| key.standing == Used);
    let known = used.iter().chain(&other).map(|key| key.path).chain(sections);
    known.filter(|known| !is_below(&unknown, known)).min_by_key(|known| far(known)).unwrap_or_default()
}

fn leaf(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Levenshtein's distance: letters to add, drop or change.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (line, one) in from.chars().enumerate() {
        let mut left = line + 1;
        let mut next = vec![left];
        for ((other, above_left), above) in to.chars().zip(&row).zip(row.iter().skip(1)) {
            left = (above_left + usize::from(one != other)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::ValueEnum;

    use super::super::{Anonymous, Network};
    use super::*;

    #[test]
    fn the_nearest_key_is_the_one_that_was_meant() {
        let cases = [
            ("htpp", "http"),
            ("http.adr", "http.addr"),
            ("addr", "http.addr"),
            ("http.rootdirectory", "storage.filesystem.rootdirectory"),
            ("ipfs.folow", "ipfs.follow"),
            ("storage.ipfs.readonlyipnskey", "storage.ipfs.readonlyipnskeys"),
            ("log.levl", "log.level"),
        ];
        for (unknown, known) in cases {
            assert_eq!(nearest(unknown), known, "{unknown}");
        }
        assert!(!nearest(&"ä".repeat(100_000)).is_empty());
        assert!(!nearest("").is_empty());
    }

    #[test]
    fn distances_are_levenshtein_s() {
        for (from, to, far) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2)] {
            assert_eq!(distance(from, to), far);
            assert_eq!(distance(to, from), far);
        }
    }

    #[test]
    fn no_key_stands_twice_or_inside_another() {
        for (place, key) in KEYS.iter().enumerate() {
            assert!(key.path.len() <= MAX_COMPARED && !key.says.is_empty() && key.says.ends_with('.'));
            assert!(!key.path.contains('_'), "{} has no name in the environment", key.path);
            let others = KEYS.iter().enumerate().filter(|(other, _)| *other != place);
            for (_, other) in others {
                assert!(key.path != other.path && !is_below(key.path, other.path), "{}", key.path);
            }
        }
    }

    #[test]
    fn choices_are_those_of_the_flags() {
        fn names<T: ValueEnum>() -> BTreeSet<String> {
            let variants = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            variants.map(|value| value.get_name().to_owned()).collect()
        }
        let choices = |path| match find(path).unwrap().kind {
            Choice(choices) => choices.iter().map(|&choice| choice.to_owned()).collect::<BTreeSet<String>>(),
            kind => panic!("{kind:?}"),
        };
        assert_eq!(choices("ipfs.network"), names::<Network>());
        assert_eq!(choices("anonymous"), names::<Anonymous>());
    }

    /// Each row of the document is one of the table, word for word, and there is no other.
    #[test]
    fn the_document_has_every_key_and_no_other() {
        let document = include_str!("../../docs/CONFIG.md");
        for (title, standing) in
            [("### Used", Used), ("### Ignored, with a warning", Ignored), ("### Refused", Refused)]
        {
            let (_, section) = document.split_once(&format!("\n{title}\n")).expect(title);
            let rows = section.lines().take_while(|line| !line.starts_with('#'));
            let told: Vec<&str> = rows.filter(|line| line.starts_with("| `")).collect();
            let keys = KEYS.iter().filter(|key| key.standing == standing);
            let known: Vec<String> = keys.map(|key| format!("| `{}` | {} |", key.path, key.says)).collect();
            assert!(told == known, "{title} should have\n{}\n", known.join("\n"));
        }
    }
}
