//! Forms of values that the table knows and the standard library does not read: Go's durations, URLs, paths, headers.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use super::said::shown;
use crate::content::DnsServer;

/// Where name servers listen (RFC 1035).
const DNS_PORT: u16 = 53;

/// Headers that may be added to each answer, and bytes of each.
const MAX_HEADERS: usize = 32;
const MAX_HEADER: usize = 4096;
/// What HTTP itself says; a second one of these breaks answers.
const FRAMING: [&str; 6] =
    ["connection", "content-length", "content-type", "transfer-encoding", "location", "upgrade"];

/// `60s`, `1h30m`, `1.5h`, `0`: numbers with units, as Go writes durations. Negative ones mean nothing here.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("μs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.trim();
    let mut seconds = 0.0;
    while !rest.is_empty() || text.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, behind) = rest.split_at_checked(end)?;
        let unit_end = behind.find(|letter: char| letter.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at_checked(unit_end)?;
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        seconds += number.parse::<f64>().ok()? * factor;
        rest = behind;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

/// As Go writes it, in its shortest form.
pub(super) fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (duration.subsec_millis(), seconds) {
        (0, _) if seconds > 0 && seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        (0, _) if seconds > 0 && seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        (0, _) => format!("{seconds}s"),
        _ => format!("{}ms", duration.as_millis()),
    }
}

/// `4MiB`, `500K`, `1048576`: bytes, with a power of 1,024 behind them.
pub(crate) fn size(text: &str) -> Option<u64> {
    const UNITS: [(&str, u32); 10] = [
        ("KiB", 1),
        ("MiB", 2),
        ("GiB", 3),
        ("TiB", 4),
        ("K", 1),
        ("M", 2),
        ("G", 3),
        ("T", 4),
        ("B", 0),
        ("", 0),
    ];
    let (number, power) = UNITS.iter().find_map(|(unit, power)| Some((text.strip_suffix(unit)?, power)))?;
    let number = number.trim_end();
    let digits = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    digits.then(|| number.parse::<u64>().ok()?.checked_mul(1024_u64.checked_pow(*power)?))?
}

/// The same, in its shortest form.
pub(crate) fn size_text(size: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let whole = units.iter().find(|(unit, _)| size > 0 && size.is_multiple_of(*unit));
    whole.map_or_else(|| size.to_string(), |(unit, name)| format!("{}{name}", size / unit))
}

/// Scheme, host and perhaps a port and a path: what a location can begin with.
pub(super) fn is_origin(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    let (host, path) = rest.find('/').and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, "/"));
    is_host(host) && is_path(path)
}

/// A DNS server: an IP address, with a port or without, or a URL.
pub(crate) fn dns(text: &str) -> Option<DnsServer> {
    if is_origin(text) {
        return Some(DnsServer::Https(text.to_owned()));
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let address = bare.map(|ip| SocketAddr::new(ip, DNS_PORT)).ok().or_else(|| text.parse().ok());
    address.map(DnsServer::Plain)
}

/// A name or an address, in brackets where it has colons, and perhaps a port. Nothing else gets through.
pub(crate) fn is_host(text: &str) -> bool {
    const MAX: usize = 255 + ":65535".len();
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, behind)) => match behind.strip_prefix(':') {
                Some(port) => (address, Some(port)),
                None => return false,
            },
            None => return false,
        },
        None => text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port))),
    };
    let is_name = if text.starts_with('[') {
        name.parse::<Ipv6Addr>().is_ok()
    } else {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    text.len() <= MAX && is_name && port.is_none_or(is_port)
}

/// Segments of plain letters, none of which climbs.
pub(super) fn is_path(text: &str) -> bool {
    let plain = |segment: &str| {
        segment != "."
            && segment != ".."
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
    };
    text.starts_with('/') && !text.contains("//") && text.split('/').all(plain)
}

/// Names, each with a value or a list of values, in their order.
pub(super) fn headers(value: &Value) -> Result<Vec<(String, String)>, String> {
    let what = || "must be names of headers, each with a list of values".to_owned();
    let section = value.as_object().ok_or_else(what)?;
    let mut headers = Vec::new();
    for (name, values) in section {
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || name.len() > MAX_HEADER || !name.bytes().all(is_token) {
            return Err(format!("has {}, which is no name of a header", shown(name)));
        }
        if FRAMING.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(format!("has {name}, which each answer sets itself"));
        }
        let text = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(switch) => Some(switch.to_string()),
            _ => None,
        };
        let values = match values {
            Value::Array(list) => list.iter().map(text).collect::<Option<Vec<_>>>(),
            one => text(one).map(|text| vec![text]),
        };
        for text in values.ok_or_else(what)? {
            if text.len() > MAX_HEADER || !text.bytes().all(|b| b == b'\t' || (b' '..0x7f).contains(&b)) {
                return Err(format!("has a value of {name} that no header can have"));
            }
            headers.push((name.clone(), text));
        }
    }
    if headers.len() > MAX_HEADERS {
        return Err(format!("has more than {MAX_HEADERS} headers"));
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_are_go_s() {
        for (text, seconds) in [
            ("60s", 60.0),
            ("168h", 604_800.0),
            ("1h30m", 5400.0),
            ("1.5h", 5400.0),
            ("100ms", 0.1),
            ("2h45m30s", 9930.0),
            ("0", 0.0),
            ("0s", 0.0),
        ] {
            assert_eq!(duration(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        for bad in ["", "60", "s", "-5s", "1d", "1h 30m", "h1", ".", "1..5s", "999999999999999999999h", "1s5"]
        {
            assert_eq!(duration(bad), None, "{bad}");
        }
        for text in ["168h", "20s", "90m", "100ms", "0s"] {
            assert_eq!(duration_text(duration(text).unwrap()), text);
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("4MiB", 4 << 20),
            ("4 MiB", 4 << 20),
            ("500K", 500 << 10),
            ("7B", 7),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for bad in ["", "MiB", "-1", "1.5M", "4MB", "4 M iB", "99999999999T", "x"] {
            assert_eq!(size(bad), None, "{bad}");
        }
        for text in ["4MiB", "500KiB", "7", "0", "1TiB"] {
            assert_eq!(size_text(size(text).unwrap()), text);
        }
    }

    #[test]
    fn hosts_have_letters_of_hosts_only() {
        for host in ["a", "registry.example:5000", "127.0.0.1", "[::1]:80", "[fe80::1]", "my_host-1"] {
            assert!(is_host(host), "{host}");
        }
        for host in [
            "",
            ":80",
            "a:b",
            "a:",
            "a:99999",
            "a/b",
            "a@b",
            "a b",
            "a\r\nx: y",
            "[::1",
            "[]",
            "[::1]x",
            "[::::1:]:5015",
            "a,b",
            "ä",
        ] {
            assert!(!is_host(host), "{host}");
        }
        assert!(!is_host(&"a".repeat(1000)));
    }

    #[test]
    fn urls_end_with_a_path() {
        for url in ["https://registry.example", "http://a:5000/", "https://a/b/c/", "http://[::1]:5000"] {
            assert!(is_origin(url), "{url}");
        }
        for url in
            ["registry.example", "ftp://a", "https://", "https://a?b", "https://a/b#c", "https://u@a", "//a"]
        {
            assert!(!is_origin(url), "{url}");
        }
        assert!(is_path("/") && is_path("/my/nested/registry/"));
        assert!(!is_path("") && !is_path("a") && !is_path("/..") && !is_path("/a//b") && !is_path("/a?b"));
    }

    #[test]
    fn a_dns_server_is_an_address_or_a_url() {
        let plain = |text: &str| Some(DnsServer::Plain(text.parse().unwrap()));
        assert_eq!(dns("192.0.2.1"), plain("192.0.2.1:53"));
        assert_eq!(dns("192.0.2.1:5353"), plain("192.0.2.1:5353"));
        assert_eq!(dns("2001:db8::1"), plain("[2001:db8::1]:53"));
        assert_eq!(dns("[2001:db8::1]:5353"), plain("[2001:db8::1]:5353"));
        let url = "https://dns.example/dns-query";
        assert_eq!(dns(url), Some(DnsServer::Https(url.to_owned())));
        for bad in ["", "dns.example", "dns.example:53", "192.0.2.1:x", "https://"] {
            assert_eq!(dns(bad), None, "{bad}");
        }
    }

    #[test]
    fn headers_are_names_with_values() {
        let read = headers(&json!({"X-A": ["1", "2"], "X-B": "3"})).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read, [pair("X-A", "1"), pair("X-A", "2"), pair("X-B", "3")]);
        for bad in [
            json!("X-A: 1"),
            json!(["a"]),
            json!({"X A": ["1"]}),
            json!({"": ["1"]}),
            json!({"X-A": ["1\r\nX-B: 2"]}),
            json!({"X-A": {"b": "c"}}),
            json!({"Content-Length": ["0"]}),
            json!({"location": ["x"]}),
        ] {
            assert!(headers(&bad).is_err(), "{bad}");
        }
    }
}
