//! Durations as Go writes them, and Distribution's configuration with it: `168h`, `1h30m`, `45s`, `500ms`.

use std::fmt::Write;
use std::time::Duration;

/// Nobody means more than ten years.
const MAX: Duration = Duration::from_hours(24 * 366 * 10);

/// `None` for what is no duration, is negative or too long. `0` needs no unit.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (amount, tail) = rest.split_at(number);
        let unit = tail.find(|letter: char| letter.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += amount.parse::<f64>().ok()? * seconds;
        rest = tail;
    }
    Duration::try_from_secs_f64(total).ok().filter(|duration| !text.is_empty() && *duration <= MAX)
}

/// The same duration as text, in whole units.
pub(crate) fn show_duration(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s"), (millis.into(), "ms")];
    let mut text = String::new();
    for (count, unit) in parts.iter().filter(|(count, _)| *count > 0) {
        // Writing to a String does not fail.
        let _ = write!(text, "{count}{unit}");
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        let cases = [
            ("168h", 604_800_000),
            ("1h30m", 5_400_000),
            ("45s", 45_000),
            ("1.5h", 5_400_000),
            ("500ms", 500),
            ("0", 0),
            ("0s", 0),
        ];
        for (text, millis) in cases {
            let duration = parse_duration(text).expect(text);
            assert_eq!(duration.as_millis(), millis, "{text}");
            assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }
        for text in ["", "5", "h", "-1h", "1d", "1h-", "1 h", "9999999h", "1e9h", "..h", "NaNh", "infs"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
