//! What a client wants: the path, the format and its options, from the URL and from `Accept`. The URL wins.

use std::borrow::Cow;

use actix_web::http::header::{ACCEPT, CACHE_CONTROL, HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;
use sampan_storage::dag::walk::{ByteRange, Scope};

use super::{GatewayError, RECORD};
use crate::content::{Address, ContentError, Reach};
use crate::http::error::HttpError;
use crate::http::v2::query::Query;

pub(super) const RAW: &str = "application/vnd.ipld.raw";
const CAR: &str = "application/vnd.ipld.car";
/// Types in one `Accept` that are looked at; browsers send some ten.
const MAX_TYPES: usize = 32;

/// A request, understood.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    /// As it came, still encoded.
    pub(super) path: String,
    pub(super) address: Address,
    pub(super) format: Format,
    /// The URL that says the same without `Accept`, where this one does not.
    pub(super) location: Option<String>,
    pub(super) filename: Option<String>,
    pub(super) reach: Reach,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Raw,
    Car(Car),
    Record,
}

/// The blocks of a CAR come depth first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Car {
    pub(super) scope: Scope,
    /// A block that is met again comes again.
    pub(super) dups: bool,
}

/// One type of `Accept`, with its parameters.
struct Type<'a> {
    name: &'a str,
    parameters: Vec<(String, String)>,
    /// Thousandths.
    quality: u16,
}

impl Wish {
    /// `path` begins with `/ipfs/` or `/ipns/`.
    pub(super) fn read(path: &str, query: &str, headers: &HeaderMap) -> Result<Self, HttpError> {
        let query_string = query;
        let query = Query::read(query)?;
        let address = address(path).ok_or(GatewayError::Address)?;
        let said = query.get("format").map(named).transpose()?;
        let accept = text(headers, &ACCEPT);
        let types = types(&accept);
        let accepted = best(&types)?;
        let name = match (said, accepted) {
            (Some(name), _) => name,
            (None, Some(accepted)) => accepted.name,
            (None, None) if types.iter().all(Type::is_anything) => {
                return Err(GatewayError::FormatMissing.into());
            }
            (None, None) => return Err(GatewayError::NotAcceptable.into()),
        };
        let differs = accepted.is_some_and(|accepted| accepted.name != name);
        let format = match name {
            RAW => Format::Raw,
            CAR => Format::Car(Car::read(&query, accepted.filter(|_| !differs))?),
            _ => Format::Record,
        };
        let location = (said.is_none() || differs).then(|| {
            let short = short(name);
            let rest: Vec<&str> = query_string
                .split('&')
                .filter(|pair| !pair.is_empty() && !pair.starts_with("format="))
                .collect();
            let rest = rest.iter().fold(String::new(), |text, pair| text + "&" + pair);
            format!("{path}?format={short}{rest}")
        });
        let only_cached = text(headers, &CACHE_CONTROL)
            .split(',')
            .any(|directive| directive.trim().eq_ignore_ascii_case("only-if-cached"));
        Ok(Self {
            path: path.to_owned(),
            address,
            format,
            location,
            filename: query.get("filename").filter(|name| !name.is_empty()).map(str::to_owned),
            reach: if only_cached { Reach::Here } else { Reach::Anywhere },
        })
    }

    /// What an error means to a client that wants only what is here.
    pub(super) fn judge(&self, error: ContentError) -> GatewayError {
        match error {
            ContentError::Missing(_) if self.reach == Reach::Here => GatewayError::NotCached,
            error => error.into(),
        }
    }
}

impl Car {
    fn read(query: &Query, accepted: Option<&Type<'_>>) -> Result<Self, GatewayError> {
        let value = |name: &str, parameter: &str| {
            query.get(name).or_else(|| accepted.and_then(|accepted| accepted.parameter(parameter)))
        };
        match value("car-version", "version") {
            None | Some("1") => {}
            Some(_) => return Err(GatewayError::Parameter { name: "car-version", expects: "1" }),
        }
        match value("car-order", "order") {
            None | Some("dfs" | "unk" | "") => {}
            Some(_) => return Err(GatewayError::Parameter { name: "car-order", expects: "dfs or unk" }),
        }
        let dups = match value("car-dups", "dups") {
            None | Some("n") => false,
            Some("y") => true,
            Some(_) => return Err(GatewayError::Parameter { name: "car-dups", expects: "y or n" }),
        };
        let range = query.get("entity-bytes").map(|text| {
            let expects = "from:to, where each is a byte counted from the start, or from the end if it is \
                           negative, and to may be *";
            ByteRange::parse(text).ok_or(GatewayError::Parameter { name: "entity-bytes", expects })
        });
        let scope = match (query.get("dag-scope"), range.transpose()?) {
            (None | Some("all"), None) => Scope::All,
            (Some("block"), None) => Scope::Block,
            (None | Some("all" | "block" | "entity"), range) => Scope::Entity(range.unwrap_or_default()),
            (Some(_), _) => {
                return Err(GatewayError::Parameter { name: "dag-scope", expects: "block, entity or all" });
            }
        };
        Ok(Self { scope, dups })
    }

    /// All of it, so that caches keep answers apart.
    pub(super) fn tag(self) -> String {
        let scope = match self.scope {
            Scope::Block => "block".to_owned(),
            Scope::All => "all".to_owned(),
            Scope::Entity(ByteRange { from, to: None }) => format!("entity.{from}:*"),
            Scope::Entity(ByteRange { from, to: Some(to) }) => format!("entity.{from}:{to}"),
        };
        format!("{scope}.{}", if self.dups { "y" } else { "n" })
    }

    pub(super) fn content_type(self) -> &'static str {
        if self.dups {
            "application/vnd.ipld.car; version=1; order=dfs; dups=y"
        } else {
            "application/vnd.ipld.car; version=1; order=dfs; dups=n"
        }
    }
}

impl Type<'_> {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// What clients send that do not think of it.
    fn is_anything(&self) -> bool {
        matches!(self.name, "*/*" | "application/*")
    }

    /// A CAR of a kind that is not made here; the client may like another one less.
    fn is_made(&self) -> bool {
        let among = |name, known: &[&str]| self.parameter(name).is_none_or(|value| known.contains(&value));
        match self.name {
            CAR => {
                among("version", &["1"]) && among("order", &["dfs", "unk", ""]) && among("dups", &["y", "n"])
            }
            RAW | RECORD => true,
            _ => false,
        }
    }
}

/// The type whose short name stands in the URL.
fn named(format: &str) -> Result<&'static str, GatewayError> {
    match format {
        "raw" => Ok(RAW),
        "car" => Ok(CAR),
        "ipns-record" => Ok(RECORD),
        // Known to the specifications, and not to this gateway.
        "tar" | "json" | "cbor" | "dag-json" | "dag-cbor" | "html" => Err(GatewayError::NotAcceptable),
        _ => Err(GatewayError::Parameter { name: "format", expects: "raw, car or ipns-record" }),
    }
}

fn short(name: &str) -> &'static str {
    match name {
        RAW => "raw",
        CAR => "car",
        _ => "ipns-record",
    }
}

/// `/ipfs/<cid>/…` with its names decoded.
fn address(path: &str) -> Option<Address> {
    let mut parts = path.strip_prefix('/')?.split('/');
    let (space, root) = (parts.next()?, parts.next()?);
    let decode = |part: &str| percent_decode_str(part).decode_utf8().ok().map(Cow::into_owned);
    let names: Option<Vec<String>> = parts.filter(|part| !part.is_empty()).map(decode).collect();
    Address::of(space, &decode(root)?, names?).ok()
}

/// The type that is liked best of those that are made here, and the first of equals.
fn best<'a, 'b>(types: &'b [Type<'a>]) -> Result<Option<&'b Type<'a>>, GatewayError> {
    let made = types.iter().filter(|one| one.quality > 0 && one.is_made());
    let best = made.reduce(|best, next| if next.quality > best.quality { next } else { best });
    let unmade = || types.iter().any(|one| one.name == CAR && !one.is_made());
    if best.is_none() && unmade() { Err(GatewayError::NotAcceptable) } else { Ok(best) }
}

fn types(accept: &str) -> Vec<Type<'_>> {
    let read = |text| {
        let mut parts = str::split(text, ';').map(str::trim);
        let name = parts.next().filter(|name| !name.is_empty())?;
        let mut one = Type { name, parameters: Vec::new(), quality: 1000 };
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim().trim_matches('"'));
            if key == "q" {
                one.quality = quality(value);
            } else {
                one.parameters.push((key, value.to_ascii_lowercase()));
            }
        }
        // Compared without regard to case (RFC 9110, 8.3.1).
        one.name =
            [RAW, CAR, RECORD].into_iter().find(|known| name.eq_ignore_ascii_case(known)).unwrap_or(name);
        Some(one)
    };
    accept.split(',').take(MAX_TYPES).filter_map(read).collect()
}

/// `0.5` as 500; what is no number counts as nothing.
fn quality(text: &str) -> u16 {
    let Some((whole, part)) = text.split_once('.').or(Some((text, ""))) else { return 0 };
    if whole == "1" {
        return 1000;
    }
    let digits: String = part.chars().chain("000".chars()).take(3).collect();
    if whole == "0" { digits.parse().unwrap_or(0) } else { 0 }
}

/// All lines of a header as one.
fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    let values: Vec<&str> = headers.get_all(name).filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}
