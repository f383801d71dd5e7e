//! `Range` requests and their answers (RFC 9110, section 14), for content whose length is known.

use std::ops::Range;

/// Ranges of one request. zstd:chunked and stargz ask for dozens; more than this is answered whole.
const MAX_RANGES: usize = 512;

/// What to send for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// No range was asked for, or one that may be ignored.
    Whole,
    /// Byte ranges, end excluded, none empty, in the order asked for.
    Parts(Vec<Range<u64>>),
    /// 416.
    Unsatisfiable,
}

/// Reads a `Range` header against content of `size` bytes.
///
/// A unit other than `bytes` is ignored. Ranges that are not well formed are refused, which RFC 9110 allows: a client
/// that got its own range wrong should hear of it. Ranges that together are longer than the content are answered
/// whole, because they would only cost more.
pub(crate) fn select(header: Option<&str>, size: u64) -> Selection {
    let Some(set) = header.and_then(bytes_unit) else { return Selection::Whole };
    let mut parts = Vec::new();
    let mut total: u64 = 0;
    for spec in set.split(',').map(str::trim).filter(|spec| !spec.is_empty()) {
        let Some(range) = parse(spec, size) else { return Selection::Unsatisfiable };
        if range.is_empty() {
            continue;
        }
        total = total.saturating_add(range.end - range.start);
        parts.push(range);
        if parts.len() > MAX_RANGES {
            return Selection::Whole;
        }
    }
    if parts.is_empty() {
        Selection::Unsatisfiable
    } else if parts.len() > 1 && total > size {
        Selection::Whole
    } else {
        Selection::Parts(parts)
    }
}

/// The value of `Content-Range`.
pub(crate) fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))
}

/// The value of `Content-Range` beside 416.
pub(crate) fn unsatisfied(size: u64) -> String {
    format!("bytes */{size}")
}

fn bytes_unit(header: &str) -> Option<&str> {
    let (unit, set) = header.split_once('=')?;
    unit.trim().eq_ignore_ascii_case("bytes").then_some(set)
}

/// `first-last`, `first-` or `-suffix`. An empty range begins behind the end; `None` is not well formed.
fn parse(spec: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = spec.split_once('-')?;
    match (first.trim(), last.trim()) {
        ("", suffix) => {
            let length = number(suffix)?;
            Some(size.saturating_sub(length)..size)
        }
        (first, "") => Some(number(first)?.min(size)..size),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            Some(first.min(size)..last.saturating_add(1).min(size))
        }
    }
}

/// Digits only. What does not fit is farther than any content.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(header: &str, size: u64) -> Vec<(u64, u64)> {
        match select(Some(header), size) {
            Selection::Parts(parts) => parts.iter().map(|part| (part.start, part.end)).collect(),
            other => panic!("{header}: {other:?}"),
        }
    }

    #[test]
    fn single_ranges_are_cut_at_the_end() {
        assert_eq!(parts("bytes=500-1499", 2048), [(500, 1500)]);
        assert_eq!(parts("bytes=500-", 2048), [(500, 2048)]);
        assert_eq!(parts("bytes=-500", 2048), [(1548, 2048)]);
        assert_eq!(parts("bytes=2000-5000", 2048), [(2000, 2048)]);
        assert_eq!(parts("bytes=-5000", 2048), [(0, 2048)]);
        assert_eq!(parts("bytes=0-0", 1), [(0, 1)]);
        assert_eq!(parts("Bytes = 0-1", 9), [(0, 2)]);
        assert_eq!(parts("bytes=0-99999999999999999999999", 9), [(0, 9)]);
    }

    #[test]
    fn several_ranges_keep_their_order() {
        assert_eq!(parts("bytes=0-0, 4-5 ,-1", 10), [(0, 1), (4, 6), (9, 10)]);
        assert_eq!(parts("bytes=0-1,100-200", 10), [(0, 2)]);
    }

    #[test]
    fn what_lies_behind_the_end_or_is_no_range_is_unsatisfiable() {
        for header in
            ["bytes=500-0", "bytes=5000-10000", "bytes=2048-", "bytes=-0", "bytes=", "bytes=x-y", "bytes=5"]
        {
            assert_eq!(select(Some(header), 2048), Selection::Unsatisfiable, "{header}");
        }
        assert_eq!(select(Some("bytes=0-0"), 0), Selection::Unsatisfiable);
    }

    #[test]
    fn what_may_be_ignored_is() {
        for header in [None, Some("items=0-1"), Some("nonsense"), Some("bytes=0-9,0-9")] {
            assert_eq!(select(header, 10), Selection::Whole, "{header:?}");
        }
        let many = format!("bytes={}", "0-0,".repeat(MAX_RANGES + 1));
        assert_eq!(select(Some(&many), 10_000), Selection::Whole);
    }

    proptest! {
        #[test]
        fn parts_lie_within_the_content(header in "bytes=[-0-9, ]{0,40}", size in 0u64..5000) {
            if let Selection::Parts(parts) = select(Some(&header), size) {
                prop_assert!(!parts.is_empty());
                prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= size));
            }
        }

        /// Each range against every byte of the content, one by one.
        #[test]
        fn what_is_sent_is_what_the_words_mean(
            asked in prop::collection::vec(
                (prop::option::of(0_u64..40), prop::option::of(0_u64..40))
                    .prop_filter("a range says something", |asked| *asked != (None, None)),
                1..6,
            ),
            size in 0_u64..32,
        ) {
            let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
            let specs = asked.iter().map(|(first, last)| format!("{}-{}", number(*first), number(*last)));
            let header = format!("bytes={}", specs.collect::<Vec<_>>().join(", "));
            let is_meant = |asked: &(Option<u64>, Option<u64>), byte: u64| match *asked {
                (Some(first), Some(last)) => (first..=last).contains(&byte),
                (Some(first), None) => byte >= first,
                (None, suffix) => byte + suffix.unwrap_or_default() >= size,
            };
            let bytes = |asked: &_| (0..size).filter(|byte| is_meant(asked, *byte)).collect::<Vec<_>>();
            let meant: Vec<Vec<u64>> = asked.iter().map(bytes).filter(|bytes| !bytes.is_empty()).collect();
            let total = meant.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
            let backwards = asked.iter().any(|asked| matches!(asked, (Some(first), Some(last)) if first > last));
            match select(Some(&header), size) {
                Selection::Unsatisfiable => prop_assert!(meant.is_empty() || backwards),
                Selection::Whole => prop_assert!(meant.len() > 1 && total > size),
                Selection::Parts(parts) => {
                    prop_assert!(!backwards && (meant.len() == 1 || total <= size));
                    prop_assert_eq!(parts.into_iter().map(Iterator::collect).collect::<Vec<Vec<u64>>>(), meant);
                }
            }
        }

        #[test]
        fn any_header_is_answered(header in ".*", size: u64) {
            let _ = select(Some(&header), size);
        }
    }
}
