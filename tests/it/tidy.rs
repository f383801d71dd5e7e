//! The dependency law and the house rules, held by reading the source.
//!
//! `src -> node -> storage`, and each outside library in one room. What a rule says stands in its message, so that
//! whoever breaks one learns the reason where it fails. It reads names, not types: a rule can be got round on
//! purpose, not by accident.

use std::fs;
use std::path::{Path, PathBuf};

/// Longer files hold more than one duty.
const LONGEST_FILE: usize = 800;

const CRATES: [&str; 3] = ["src", "node/src", "storage/src"];

/// Files under `room` must not name any of `names`, unless they are under one of `except`.
struct Law {
    room: &'static str,
    except: &'static [&'static str],
    names: &'static [Name],
    reason: &'static str,
}

enum Name {
    /// A crate, or a family of crates, as the first segment of a path: `libp2p` also means `libp2p_swarm`.
    Family(&'static str),
    /// A crate of exactly this name.
    Crate(&'static str),
    /// A path, as it is written with `::`, also when it is imported inside braces.
    Path(&'static str),
}

use Name::{Crate, Family};

const LAWS: &[Law] = &[
    Law {
        room: "storage/src",
        except: &[],
        names: &[
            Family("libp2p"),
            Family("actix"),
            Crate("hyper"),
            Crate("reqwest"),
            Name::Path("tokio::net"),
            Name::Path("std::net"),
        ],
        reason: "storage knows no network",
    },
    Law {
        room: "storage/src",
        except: &[],
        names: &[Crate("sampan_node"), Crate("sampan")],
        reason: "storage is the ground floor: dependencies run src -> node -> storage",
    },
    Law {
        room: "storage/src",
        except: &["storage/src/index"],
        names: &[Crate("sled")],
        reason: "sled stays behind one adapter, storage's index",
    },
    Law {
        room: "node/src",
        except: &[],
        names: &[Family("actix"), Crate("sampan")],
        reason: "the node knows no HTTP server and no registry",
    },
    Law {
        room: "node/src",
        except: &[],
        names: &[Crate("sled")],
        reason: "sled's types do not leave storage",
    },
    Law {
        room: "src",
        except: &[],
        names: &[Family("libp2p")],
        reason: "libp2p's types do not leave the node",
    },
    Law { room: "src", except: &[], names: &[Crate("sled")], reason: "sled's types do not leave storage" },
    Law {
        room: "src",
        except: &["src/content/dns.rs"],
        names: &[Family("hickory")],
        reason: "how the DNS is asked is behind the port Txt",
    },
    Law {
        room: "src",
        except: &["src/client.rs", "src/http/tests"],
        names: &[Crate("reqwest")],
        reason: "HTTP as a client is behind one bounded room",
    },
    Law {
        room: "src",
        except: &["src/http", "src/control", "src/app.rs", "src/lib.rs"],
        names: &[Family("actix")],
        reason: "actix is named by src/http, by the control socket and by the wiring only",
    },
    Law {
        room: "src",
        except: &[
            "src/bundle",
            "src/control",
            "src/cli",
            "src/app.rs",
            "src/app",
            "src/lib.rs",
            "src/fuzz.rs",
        ],
        names: &[Name::Path("crate::bundle")],
        reason: "what follows, serves and collects knows nothing of bundles",
    },
    Law {
        room: "src/registry",
        except: &[],
        names: &[Crate("sampan_node"), Name::Path("crate::http"), Name::Path("crate::sync")],
        reason: "the registry knows OCI and trees; HTTP and sync stand above it",
    },
    Law {
        room: "src/content",
        except: &[],
        names: &[Name::Path("crate::http"), Name::Path("crate::sync")],
        reason: "content knows DAGs and names; HTTP and sync stand beside or above it",
    },
    Law {
        room: "src/sync",
        except: &[],
        names: &[Name::Path("crate::http")],
        reason: "http stands above sync",
    },
];

/// What a manifest must not depend on, tests aside.
const MANIFESTS: &[(&str, &[&str])] = &[
    ("storage/Cargo.toml", &["libp2p", "actix", "hyper", "reqwest", "sampan-node"]),
    ("node/Cargo.toml", &["actix", "sled", "sampan="]),
    ("Cargo.toml", &["libp2p", "sled"]),
];

#[test]
fn the_dependency_law_holds() {
    let breaches: Vec<String> =
        sources().iter().flat_map(|(file, text)| law_breaches(file, &code_of(text))).collect();
    assert!(breaches.is_empty(), "the dependency law is broken:\n{}", breaches.join("\n"));
}

#[test]
fn the_manifests_hold_the_law() {
    let breaches: Vec<String> = MANIFESTS
        .iter()
        .flat_map(|(file, banned)| manifest_breaches(file, &read(&root().join(file)), banned))
        .collect();
    assert!(breaches.is_empty(), "the dependency law is broken:\n{}", breaches.join("\n"));
}

#[test]
fn every_file_is_tidy() {
    let breaches: Vec<String> = sources().iter().flat_map(|(file, text)| untidy(file, text)).collect();
    assert!(breaches.is_empty(), "house rules are broken:\n{}", breaches.join("\n"));
}

#[test]
fn the_law_bites() {
    let broken = [
        ("storage/src/blob.rs", "use libp2p_identity::PeerId;"),
        ("storage/src/blob.rs", "use tokio::{fs, net::TcpStream};"),
        ("storage/src/blob.rs", "fn f(tree: &sled::Tree) {}"),
        ("node/src/swarm.rs", "use actix_web::web;"),
        ("node/src/swarm.rs", "use sampan::config::Config;"),
        ("src/sync/follow.rs", "use libp2p::PeerId;"),
        ("src/cli/serve.rs", "let _ = actix_web::HttpServer::new(app);"),
        ("src/registry/tags.rs", "use crate::{config::Config, http::Error};"),
        ("src/registry/tags.rs", "use sampan_node::Handle;"),
        ("src/content/names.rs", "use crate::http::State;"),
        ("src/sync/follow.rs", "use crate::bundle::Bundles;"),
    ];
    for (file, code) in broken {
        assert_eq!(law_breaches(file, &code_of(code)).len(), 1, "{file}: {code}");
    }
    let sound = [
        ("storage/src/index/sled.rs", "use sled::Db;"),
        (
            "storage/src/blob.rs",
            "// unlike libp2p::Swarm\nlet filter = \"libp2p=warn\"; let c = '\"'; sampan_storage::f();",
        ),
        ("node/src/swarm.rs", "use libp2p::Swarm; use sampan_storage::Cid; let x = self.sampan;"),
        ("src/http/v2/blobs.rs", "use actix_web::{web, HttpResponse};"),
        ("src/cli/bundle.rs", "use crate::bundle::Made;"),
        ("src/registry/tags.rs", "use crate::{config::http, registry}; use crate::https;"),
    ];
    for (file, code) in sound {
        assert_eq!(law_breaches(file, &code_of(code)), Vec::<String>::new(), "{file}: {code}");
    }
    let manifest = "[dependencies]\nserde.workspace = true\nlibp2p-swarm = \"1\"\n[dev-dependencies]\nactix-web = \"4\"\n";
    assert_eq!(manifest_breaches("storage/Cargo.toml", manifest, &["libp2p", "actix"]).len(), 1);
    assert_eq!(untidy("src/a.rs", "use std::fs;\n").len(), 1);
    assert_eq!(untidy("src/a.rs", &format!("//! A.\n// {}: later\n", "FIXME")).len(), 1);
    assert_eq!(untidy("src/a.rs", &format!("//! A.\nfn f() {{ {}!() }}\n", "todo")).len(), 1);
}

fn law_breaches(file: &str, code: &str) -> Vec<String> {
    LAWS.iter()
        .filter(|law| under(file, law.room) && !law.except.iter().any(|room| under(file, room)))
        .flat_map(|law| {
            law.names.iter().filter_map(move |name| {
                let line = name.line_in(code)?;
                Some(format!("  {file}:{line} names {name}: {}", law.reason))
            })
        })
        .collect()
}

/// Whether `file` is `room` or lies in it: `storage/src/index` means index.rs, index_rows.rs and all of index/.
fn under(file: &str, room: &str) -> bool {
    file.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.', '_']))
}

fn manifest_breaches(file: &str, text: &str, banned: &[&str]) -> Vec<String> {
    let mut bound = false;
    let mut breaches = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let dependency = if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            bound = table.ends_with("dependencies")
                && !table.ends_with("dev-dependencies")
                && !table.starts_with("workspace");
            table.split_once("dependencies.").map(|(_, name)| name).filter(|_| !table.starts_with("dev-"))
        } else {
            line.split(['.', '=', ' ']).next().filter(|name| bound && !name.is_empty())
        };
        let Some(name) = dependency else { continue };
        // A trailing `=` in the list means this very name, not a family.
        let hit = banned.iter().find(|ban| match ban.strip_suffix('=') {
            Some(exact) => name == exact,
            None => name.starts_with(*ban),
        });
        if hit.is_some() {
            breaches.push(format!("  {file}:{}: must not depend on {name}", number + 1));
        }
    }
    breaches
}

fn untidy(file: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    let name = file.rsplit('/').next().unwrap_or(file);
    let only_tests = name == "tests.rs" || file.contains("/tests/");
    if !text.starts_with("//!") && !only_tests {
        breaches.push(format!("  {file}:1 has no `//!` header that says what it is for"));
    }
    let lines = text.lines().count();
    if lines > LONGEST_FILE {
        breaches.push(format!("  {file} has {lines} lines, {LONGEST_FILE} are enough for one duty"));
    }
    let marks = ["TODO", "FIXME", "XXX"];
    let code = code_of(text);
    for (number, (line, code)) in text.lines().zip(code.lines()).enumerate() {
        let left_open = marks.iter().find(|mark| words(line).any(|word| word == **mark));
        let unfinished = ["todo!", "dbg!", "unimplemented!"].iter().find(|mark| code.contains(**mark));
        if let Some(mark) = left_open.or(unfinished) {
            breaches.push(format!("  {file}:{} has a {mark} left: finish it or file it", number + 1));
        }
    }
    breaches
}

impl Name {
    /// The first line of `code` that has this name.
    fn line_in(&self, code: &str) -> Option<usize> {
        match self {
            Self::Family(family) => roots(code).find(|(word, _)| {
                word.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
            }),
            Self::Crate(name) => roots(code).find(|(word, _)| word == name),
            Self::Path(path) => {
                let (head, tail) = path.split_once("::")?;
                return children(code, head).find(|(child, _)| *child == tail).map(|(_, line)| line);
            }
        }
        .map(|(_, line)| line)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Family(name) => write!(f, "{name}*"),
            Self::Crate(name) | Self::Path(name) => f.write_str(name),
        }
    }
}

/// Words that begin a path (`word::`) or are used whole (`use word;`, `use word as w;`), each with its line.
fn roots(code: &str) -> impl Iterator<Item = (&str, usize)> {
    code.lines().enumerate().flat_map(|(number, line)| {
        words(line).filter_map(move |word| {
            let start = word.as_ptr() as usize - line.as_ptr() as usize;
            let (before, after) = (line[..start].trim_end(), line[start + word.len()..].trim_start());
            let path = after.starts_with("::") && !before.ends_with("::");
            let used = before.ends_with("use") || before.ends_with("extern crate");
            (path || used).then_some((word, number + 1))
        })
    })
}

/// First segments below `head::`, through braces over several lines, each with its line.
fn children<'a>(code: &'a str, head: &'a str) -> impl Iterator<Item = (&'a str, usize)> {
    let prefix = format!("{head}::");
    let starts: Vec<usize> = code.match_indices(&prefix).map(|(at, found)| at + found.len()).collect();
    starts.into_iter().flat_map(move |start| {
        let line = code[..start].matches('\n').count() + 1;
        let tail = &code[start..];
        let segments = match tail.strip_prefix('{') {
            Some(group) => first_segments(group),
            None => words(tail).next().into_iter().collect(),
        };
        segments.into_iter().map(move |segment| (segment, line))
    })
}

/// `a, b::c, d::{e}}` gives a, b, d.
fn first_segments(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0_usize, 0, Vec::new());
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' | ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    parts.into_iter().filter_map(|part| words(part).next()).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// Rust source with comments and what stands in quotes blanked out; lines stay where they are.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = comment(rest).or_else(|| quoted(rest));
        let (length, keep) = skipped.map_or((first.len_utf8(), true), |length| (length, false));
        let (taken, remaining) = rest.split_at(length);
        if keep {
            code.push_str(taken);
        } else {
            code.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        rest = remaining;
    }
    code
}

/// The length of a comment at the start of `text`.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    text.starts_with("/*").then(|| text.find("*/").map_or(text.len(), |end| end + 2))
}

/// The length of a string or character literal at the start of `text`; a lifetime is none.
fn quoted(text: &str) -> Option<usize> {
    if let Some(raw) = text.strip_prefix('r') {
        let hashes = raw.bytes().take_while(|byte| *byte == b'#').count();
        if raw[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = hashes + 2;
            return Some(text[body..].find(&close).map_or(text.len(), |end| body + end + close.len()));
        }
    }
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        if character == quote && !escaped {
            return Some(at + 1);
        }
        // 'a is a lifetime unless the quote closes after one character.
        if quote == '\'' && !escaped && at > 1 && !text[1..].starts_with('\\') {
            return None;
        }
        escaped = character == '\\' && !escaped;
    }
    None
}

/// All source files with their text, by their path from the root.
fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for dir in CRATES {
        walk(&root().join(dir), &mut files);
    }
    files.sort();
    assert!(!files.is_empty(), "no source files found");
    files
        .into_iter()
        .map(|path| {
            let text = read(&path);
            (path.strip_prefix(root()).unwrap_or(&path).to_string_lossy().into_owned(), text)
        })
        .collect()
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("the tree of sources") {
        let path = entry.expect("the tree of sources").path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("a source file in UTF-8")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
