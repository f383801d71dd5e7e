//! Files of others, the environment and flags, as they meet in one configuration.

use super::*;
use crate::sync::Following;

const NAME: &str = "k51qzi5uqu5dilisnqdpktic6r9zfvlb889l47pt9fjm0asnmbihd64myweskr";
const OTHER: &str = "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8";
const PEER: &str = "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWLU2znyJMtDiHArqAGbZn8CgUGp92kxDBtefftEEaHSZS";

/// In the shape of CNCF Distribution's example.
const DISTRIBUTION: &str = include_str!("../../tests/fixtures/distribution.yml");

/// As the predecessor's example, without its certificates.
const PREDECESSOR: &str = "\
version: 0.1
log:
  accesslog:
    disabled: true
  level: debug
  formatter: text
storage:
  ipfs:
    ipfsapiaddress: /ip4/127.0.0.1/tcp/5001
    writeipnskey: self
    readonlyipnskeys: k51qzi5uqu5dilisnqdpktic6r9zfvlb889l47pt9fjm0asnmbihd64myweskr
middleware:
  repository:
    - name: ipfs
      options:
        ipfsapiaddress: /ip4/127.0.0.1/tcp/5001
http:
  addr: localhost:5000
  debug:
    addr: localhost:5010
  relativeurls: true
  draintimeout: 60s
  secret: asecretforlocaldevelopment
  http2:
    disabled: false
";

fn environment(said: &[(&str, &str)]) -> Environment {
    said.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A configuration and its warnings, or its problems.
fn configure(file: &str, said: &[(&str, &str)], flags: Flags) -> Result<(Config, Vec<String>), Vec<String>> {
    let text = |remarks: &[Remark]| remarks.iter().map(Remark::to_string).collect::<Vec<_>>();
    let environment = environment(said);
    let tree = file::parse(file).unwrap();
    let said = Said::gather(Some((&tree, Source::File("c.yml".into()))), &environment);
    if !said.problems.is_empty() {
        return Err(text(&said.problems));
    }
    let config = Config::assemble(flags, &said, &environment).unwrap();
    Ok((config, text(&said.warnings)))
}

fn problem(file: &str, said: &[(&str, &str)]) -> String {
    let problems = configure(file, said, Flags::default()).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.into_iter().next().unwrap()
}

fn setting<'a>(config: &'a Config, key: &str) -> (&'a Value, String) {
    let setting = config.settings.iter().find(|setting| setting.key == key).unwrap();
    (&setting.value, setting.source.to_string())
}

#[test]
fn the_example_of_distribution_starts_with_warnings_only() {
    let (config, warnings) = configure(DISTRIBUTION, &[], Flags::default()).unwrap();
    assert_eq!(config.http, "0.0.0.0:5000");
    assert_eq!(config.data, Path::new("/var/lib/registry"));
    let about: Vec<&str> = warnings.iter().filter_map(|warning| warning.split(' ').nth(1)).collect();
    assert_eq!(about, ["log.fields", "storage.cache", "storage.tag", "health"]);
    assert_eq!(config.web.headers, [("X-Content-Type-Options".to_owned(), "nosniff".to_owned())]);
}

#[test]
fn what_cannot_be_done_is_refused_rather_than_left_out() {
    for (file, key) in [
        ("auth:\n  silly:\n    realm: silly-realm\n", "auth.silly"),
        ("http:\n  tls:\n    letsencrypt:\n      email: me@example.org\n", "http.tls.letsencrypt"),
        ("proxy:\n  remoteurl: https://registry-1.docker.io\n", "proxy"),
        ("storage:\n  s3:\n    bucket: b\n", "storage.s3"),
        ("storage: inmemory\n", "storage.inmemory"),
        ("storage:\n  inmemory:\n", "storage.inmemory"),
        (
            "storage:\n  maintenance:\n    uploadpurging:\n      dryrun: true\n",
            "storage.maintenance.uploadpurging.dryrun",
        ),
    ] {
        let told = problem(file, &[]);
        assert!(told.starts_with(&format!("c.yml: {key} is refused: ")), "{told}");
    }
    let off = "http:\n  prefix: ''\nstorage:\n  maintenance:\n    readonly:\n      enabled: false\n";
    assert!(configure(off, &[], Flags::default()).unwrap().1.is_empty());
}

#[test]
fn the_example_of_the_predecessor_follows_what_it_read() {
    let (config, warnings) = configure(PREDECESSOR, &[], Flags::default()).unwrap();
    assert_eq!(config.follow, [Following::plain(NAME.parse().unwrap())]);
    let told = |key: &str| warnings.iter().find(|warning| warning.contains(key)).unwrap().clone();
    assert!(told("writeipnskey").contains("sampan name"));
    assert!(told("ipfsapiaddress").contains("ipfs.listen"));
    assert_eq!(setting(&config, "ipfs.follow").1, "c.yml");
}

#[test]
fn names_to_follow_are_added_up_from_lists_commas_and_flags() {
    let list =
        format!("storage:\n  ipfs:\n    readonlyipnskeys:\n      - {NAME}\nipfs:\n  follow: [{NAME}]\n");
    let commas = format!("storage:\n  ipfs:\n    readonlyipnskeys: '{NAME}, {OTHER},'\n");
    let (name, other) = (Following::plain(NAME.parse().unwrap()), Following::plain(OTHER.parse().unwrap()));
    let flags = || Flags { follow: vec![other.whom.clone()], ..Flags::default() };
    let (config, _) = configure(&list, &[], flags()).unwrap();
    assert_eq!(config.follow, [name.clone(), other.clone()]);
    assert_eq!(setting(&config, "ipfs.follow").1, "c.yml, --follow");
    assert_eq!(configure(&commas, &[], Flags::default()).unwrap().0.follow, [name, other]);
}

#[test]
fn the_environment_stands_above_the_file_and_flags_above_both() {
    let said = [
        ("REGISTRY_HTTP_ADDR", "127.0.0.1:1"),
        ("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "/data"),
        ("REGISTRY_STORAGE_DELETE_ENABLED", "false"),
        ("REGISTRY_IPFS_NETWORK", "public"),
        ("REGISTRY_SPARSE", ""),
    ];
    let (config, _) = configure(DISTRIBUTION, &said, Flags::default()).unwrap();
    assert_eq!((config.http.as_str(), config.data.as_path()), ("127.0.0.1:1", Path::new("/data")));
    assert_eq!((config.network, config.delete, config.sparse), (Network::Public, false, false));
    assert_eq!(setting(&config, "http.addr"), (&Value::from("127.0.0.1:1"), "REGISTRY_HTTP_ADDR".to_owned()));
    assert_eq!(setting(&config, "sparse"), (&Value::from(false), "default".to_owned()));

    let flags = Flags {
        addr: Some("127.0.0.1:2".to_owned()),
        data: Some("/flag".into()),
        network: Some(Network::Lan),
        ..Flags::default()
    };
    let (config, _) = configure(DISTRIBUTION, &said, flags.clone()).unwrap();
    assert_eq!((config.http.as_str(), config.data.as_path()), ("127.0.0.1:2", Path::new("/flag")));
    assert_eq!(setting(&config, "ipfs.network"), (&Value::from("lan"), "--network".to_owned()));
    assert_eq!(setting(&config, ROOT).1, "--data");
    let (config, _) = configure("", &[("SAMPAN_DATA", "/flag")], flags).unwrap();
    assert_eq!(setting(&config, ROOT).1, "SAMPAN_DATA");
}

#[test]
fn the_environment_gives_lists_elements_and_sections() {
    let (name, other) = (Following::plain(NAME.parse().unwrap()), Following::plain(OTHER.parse().unwrap()));
    let file = format!("ipfs:\n  follow: [{NAME}]\n  peers: [{PEER}]\n");
    let follow = |said: &[(&str, &str)]| configure(&file, said, Flags::default()).unwrap().0.follow;
    assert_eq!(follow(&[("REGISTRY_IPFS_FOLLOW_0", OTHER)]), std::slice::from_ref(&other));
    assert_eq!(follow(&[("REGISTRY_IPFS_FOLLOW_1", OTHER)]), [name.clone(), other.clone()]);
    assert_eq!(
        follow(&[("REGISTRY_IPFS_FOLLOW", &format!("{OTHER},{NAME}"))]),
        [other.clone(), name.clone()]
    );
    assert_eq!(follow(&[("REGISTRY_IPFS_FOLLOW", &format!("[{OTHER}]"))]), std::slice::from_ref(&other));
    assert_eq!(follow(&[("REGISTRY_IPFS", &format!("follow: [{OTHER}]"))]), std::slice::from_ref(&other));
    assert_eq!(follow(&[("REGISTRY_STORAGE_IPFS_READONLYIPNSKEYS", OTHER)]), [name.clone(), other.clone()]);
    assert_eq!(follow(&[("REGISTRY_STORAGE", "filesystem")]), std::slice::from_ref(&name));
    let told = problem(&file, &[("REGISTRY_IPFS_PEERS_7", PEER)]);
    assert!(told.contains("REGISTRY_IPFS_PEERS_7: ipfs.peers has 1 elements"), "{told}");
}

#[test]
fn an_unknown_key_names_the_nearest_with_its_path() {
    let told = problem("http:\n  adr: x\n", &[]);
    assert_eq!(told, "c.yml: http.adr is not known; the nearest is http.addr");
    let told = problem("htpp:\n  addr: x\n  other: y\n", &[]);
    assert_eq!(told, "c.yml: htpp is not known; the nearest is http");
    assert!(problem("http.addr: x\n", &[]).contains("is not known"));
    assert!(problem("ipfs:\n  '': x\n", &[]).contains("is not known"));
}

#[test]
fn an_unknown_variable_is_a_warning_and_a_service_link_is_none() {
    let links = [("REGISTRY_PORT", "tcp://10.0.0.1:5000"), ("REGISTRY_SERVICE_HOST", "10.0.0.1")];
    assert!(configure("", &links, Flags::default()).unwrap().1.is_empty());
    let (_, warnings) = configure("", &[("REGISTRY_HTTP_ADR", "x")], Flags::default()).unwrap();
    assert_eq!(warnings, ["REGISTRY_HTTP_ADR is not known; the nearest is REGISTRY_HTTP_ADDR"]);
}

#[test]
fn a_wrong_type_names_the_key() {
    for (file, key) in [
        ("version: 2\n", "version must be 0.1"),
        ("http: 5000\n", "http must be a section"),
        ("http:\n  addr: 5000\n", "http.addr must be HOST:PORT"),
        ("http:\n  addr: [a]\n", "http.addr must be"),
        ("http:\n  net: udp\n", "http.net must be tcp or unix"),
        ("http:\n  prefix: registry\n", "http.prefix must be a path"),
        ("http:\n  host: registry.example\n", "http.host must be a URL"),
        ("http:\n  draintimeout: soon\n", "http.draintimeout must be a duration"),
        ("http:\n  headers: {Content-Length: ['0']}\n", "http.headers has Content-Length"),
        ("http:\n  headers: nosniff\n", "http.headers must be names"),
        ("http:\n  tls:\n    minimumtls: tls1.0\n", "http.tls.minimumtls must be tls1.2 or tls1.3"),
        ("http:\n  debug:\n    addr: localhost\n", "http.debug.addr must be HOST:PORT"),
        ("log:\n  level: loud\n", "log.level must be error or warn"),
        ("log:\n  accesslog:\n    disabled: maybe\n", "log.accesslog.disabled must be true or false"),
        ("catalog:\n  maxentries: -1\n", "catalog.maxentries must be a number"),
        (
            "storage:\n  maintenance:\n    uploadpurging:\n      age: 7d\n",
            "storage.maintenance.uploadpurging.age",
        ),
        ("storage:\n  delete:\n    enabled: maybe\n", "storage.delete.enabled must be true or false"),
        (
            "storage:\n  filesystem:\n    rootdirectory: {a: b}\n",
            "storage.filesystem.rootdirectory must be a text",
        ),
        ("ipfs:\n  network: wan\n", "ipfs.network must be lan or public or private"),
        ("ipfs:\n  listen: [0.0.0.0]\n", "ipfs.listen has 0.0.0.0, which is not a multiaddr"),
        ("ipfs:\n  follow: {a: b}\n", "ipfs.follow must be a list"),
        ("storage:\n  ipfs:\n    readonlyipnskeys: self\n", "storage.ipfs.readonlyipnskeys has self"),
        ("- a\n", "the whole must be sections"),
    ] {
        let told = problem(file, &[]);
        assert!(told.starts_with(&format!("c.yml: {key}")), "{told}");
    }
    let told = problem("", &[("REGISTRY_SPARSE", "maybe")]);
    assert_eq!(told, "REGISTRY_SPARSE: sparse must be true or false");
}

/// The whole of what Distribution's development setup sets, and its reference for HTTP.
const WEB: &str = "\
log:
  accesslog:
    disabled: false
  level: debug
  formatter: logstash
storage:
  maintenance:
    uploadpurging:
      enabled: false
      age: 24h
      interval: 1h30m
      dryrun: false
    readonly:
      enabled: true
catalog:
  maxentries: 10
tags:
  maxtags: 5000
http:
  addr: :5000
  prefix: /my/nested/registry/
  host: https://myregistryaddress.org:5000
  relativeurls: false
  draintimeout: 60s
  tls:
    certificate: /path/to/x509/public
    key: /path/to/x509/private
    clientcas:
      - /path/to/ca.pem
      - /path/to/another/ca.pem
    clientauth: verify-client-cert-if-given
    minimumtls: tls1.3
  debug:
    addr: :5001
    prometheus:
      enabled: true
  headers:
    X-Content-Type-Options: [nosniff]
    X-Many: [a, b]
  http2:
    disabled: true
  h2c:
    enabled: true
";

#[test]
fn what_is_said_of_http_logs_and_upkeep_counts() {
    let (config, warnings) = configure(WEB, &[], Flags::default()).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(config.logs, Logs { level: Level::Debug, json: true, access: true });
    let (age, interval) = (Duration::from_hours(24), Duration::from_mins(90));
    assert_eq!(config.upload_purge, UploadPurge { enabled: false, age, interval });
    assert_eq!(config.pages, Pages { catalog: 10, tags: MAX_PAGE });
    assert!(config.read_only);
    let Web { unix, tls, locations, prefix, headers, drain, http2, h2c, debug } = config.web;
    let tls = tls.unwrap();
    assert_eq!((unix, http2, h2c, drain), (false, false, true, Duration::from_mins(1)));
    assert_eq!(
        (tls.certificate.as_path(), tls.key.as_path()),
        (Path::new("/path/to/x509/public"), Path::new("/path/to/x509/private"))
    );
    assert_eq!((tls.client_cas.len(), tls.client_optional, tls.only_13), (2, true, true));
    assert_eq!(locations, Locations::Fixed("https://myregistryaddress.org:5000".to_owned()));
    assert_eq!(prefix, "/my/nested/registry");
    let values: Vec<&str> = headers.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(values, ["nosniff", "a", "b"]);
    let debug = debug.unwrap();
    assert_eq!((debug.addr.as_str(), debug.metrics.as_deref()), ("0.0.0.0:5001", Some("/metrics")));
}

#[test]
fn locations_are_relative_until_somebody_says_otherwise() {
    let locations = |file: &str| configure(file, &[], Flags::default()).unwrap().0.web.locations;
    assert_eq!(locations(""), Locations::Relative);
    assert_eq!(locations("http:\n  relativeurls: true\n"), Locations::Relative);
    assert_eq!(locations("http:\n  relativeurls: false\n"), Locations::Asked);
    assert_eq!(
        locations("http:\n  relativeurls: true\n  host: http://a/\n"),
        Locations::Fixed("http://a".to_owned())
    );
}

#[test]
fn the_environment_says_nested_keys_and_headers() {
    let said = [
        ("REGISTRY_LOG_ACCESSLOG_DISABLED", "false"),
        ("REGISTRY_HTTP_DEBUG_PROMETHEUS_ENABLED", "true"),
        ("REGISTRY_HTTP_HEADERS", "{X-A: [b]}"),
        ("REGISTRY_HTTP_TLS_CLIENTCAS_0", "/ca.pem"),
        ("REGISTRY_HTTP_TLS_CERTIFICATE", "/cert.pem"),
        ("REGISTRY_HTTP_TLS_KEY", "/key.pem"),
        ("REGISTRY_STORAGE_MAINTENANCE_READONLY", "enabled: true"),
        ("REGISTRY_LOGLEVEL", "warn"),
    ];
    let (config, warnings) =
        configure("http:\n  debug:\n    addr: :5001\n", &said, Flags::default()).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(config.logs, Logs { level: Level::Warn, json: false, access: true });
    assert_eq!(config.web.headers, [("X-A".to_owned(), "b".to_owned())]);
    assert_eq!(config.web.tls.unwrap().client_cas, [Path::new("/ca.pem")]);
    assert!(config.read_only && config.web.debug.unwrap().metrics.is_some());
}

#[test]
fn what_is_wrong_where_keys_meet_is_told() {
    let tls = "certificate: /c, key: /k";
    for (file, told) in [
        ("http: {tls: {certificate: /c}}\n".to_owned(), "needs http.tls.key"),
        ("http: {tls: {key: /k}}\n".to_owned(), "needs http.tls.certificate"),
        ("http: {tls: {clientcas: [/ca]}}\n".to_owned(), "client certificates need TLS"),
        (
            format!("http: {{tls: {{{tls}, clientauth: require-and-verify-client-cert}}}}\n"),
            "needs http.tls.clientcas",
        ),
        (
            format!("http: {{tls: {{{tls}, clientcas: [/ca], clientauth: request-client-cert}}}}\n"),
            "checks none",
        ),
        (
            format!("http: {{tls: {{{tls}, clientcas: [/ca], clientauth: require-any-client-cert}}}}\n"),
            "checks none",
        ),
        (format!("http: {{net: unix, addr: /s, tls: {{{tls}}}}}\n"), "take http.tls away"),
    ] {
        let tree = file::parse(&file).unwrap();
        let said = Said::gather(Some((&tree, Source::Default)), &Environment::new());
        assert!(said.problems.is_empty(), "{:?}", said.problems);
        let error = Config::assemble(Flags::default(), &said, &Environment::new()).unwrap_err().to_string();
        assert!(error.contains(told), "{file}: {error}");
    }
}

#[test]
fn problems_are_told_together_and_are_bounded() {
    let many: Vec<String> = (0..1000).map(|number| format!("key{number}: x\n")).collect();
    assert_eq!(configure(&many.concat(), &[], Flags::default()).unwrap_err().len(), 20);
    let two = configure("htpp: x\nipfs:\n  network: wan\n", &[], Flags::default()).unwrap_err();
    assert_eq!(two.len(), 2, "{two:?}");
}

#[test]
fn every_used_key_is_shown_and_secrets_are_not() {
    let (config, warnings) = configure(PREDECESSOR, &[], Flags::default()).unwrap();
    let shown = format!("{:?} {warnings:?}", config.settings);
    assert!(!shown.contains("asecretforlocaldevelopment"), "{shown}");
    assert_eq!(setting(&config, "http.secret").0, MASK);
    let elsewhere = ["version", "storage.ipfs.readonlyipnskeys"];
    let used = keys::KEYS.iter().filter(|key| key.standing == keys::Standing::Used);
    for key in used.filter(|key| !elsewhere.contains(&key.path)) {
        let _ = setting(&config, key.path);
    }
}

proptest::proptest! {
    #[test]
    fn no_file_and_no_variable_ends_in_a_panic(file in ".{0,200}", name in "[A-Z_0-9]{0,40}", value in ".{0,40}") {
        let environment = Environment::from([(format!("REGISTRY_{name}"), value)]);
        if let Ok(tree) = file::parse(&file) {
            let said = Said::gather(Some((&tree, Source::Default)), &environment);
            let _ = Config::assemble(Flags::default(), &said, &environment);
        }
    }
}

#[test]
fn a_variable_with_a_name_that_no_terminal_shall_see_is_told_in_one_line() {
    let (_, warnings) = configure("", &[("REGISTRY_FOO\u{1b}[2J\n", "x")], Flags::default()).unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(!warnings.concat().contains(char::is_control), "{warnings:?}");
}
