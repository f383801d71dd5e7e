//! The part of the day in which a mirror fetches. Times are UTC: a registry that moves between zones, or whose zone
//! changes its clocks twice a year, has the same night.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// From one time of the day to another, over midnight where the second is the earlier one. The end is outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Seconds since midnight.
    from: u64,
    to: u64,
}

/// It is not two times of the day with a dash between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoWindow;

impl Window {
    /// How long until it opens; `None` while it is open.
    pub(crate) fn opens_in(&self, now: SystemTime) -> Option<Duration> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() % DAY;
        let since = |from: u64, to: u64| (to + DAY - from) % DAY;
        let is_open = since(self.from, now) < since(self.from, self.to);
        (!is_open).then(|| Duration::from_secs(since(now, self.from)))
    }

    /// When it opens, for people.
    pub(crate) fn beginning(&self) -> String {
        format!("{} UTC", time(self.from))
    }
}

impl FromStr for Window {
    type Err = NoWindow;

    fn from_str(text: &str) -> Result<Self, NoWindow> {
        let (from, to) = text.split_once('-').ok_or(NoWindow)?;
        let (from, to) = (seconds(from).ok_or(NoWindow)?, seconds(to).ok_or(NoWindow)?);
        if from == to { Err(NoWindow) } else { Ok(Self { from, to }) }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", time(self.from), time(self.to))
    }
}

fn time(seconds: u64) -> String {
    format!("{:02}:{:02}", seconds / HOUR, seconds % HOUR / 60)
}

fn seconds(text: &str) -> Option<u64> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let number = |text: &str, limit: u64| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten().filter(|number| *number < limit)
    };
    Some(number(hours, 24)? * HOUR + number(minutes, 60)? * 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some day at this time.
    fn at(text: &str) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(20_000 * DAY + seconds(text).unwrap())
    }

    fn minutes(window: &str, now: &str) -> Option<u64> {
        window.parse::<Window>().unwrap().opens_in(at(now)).map(|wait| wait.as_secs() / 60)
    }

    #[test]
    fn a_window_is_open_from_its_beginning_to_before_its_end() {
        assert_eq!(minutes("01:00-05:30", "00:59"), Some(1));
        assert_eq!(minutes("01:00-05:30", "01:00"), None);
        assert_eq!(minutes("01:00-05:30", "05:29"), None);
        assert_eq!(minutes("01:00-05:30", "05:30"), Some(19 * 60 + 30));
    }

    #[test]
    fn it_may_go_over_midnight() {
        assert_eq!(minutes("22:00-04:00", "21:00"), Some(60));
        for open in ["22:00", "23:59", "00:00", "03:59"] {
            assert_eq!(minutes("22:00-04:00", open), None, "{open}");
        }
        assert_eq!(minutes("22:00-04:00", "04:00"), Some(18 * 60));
        assert_eq!(minutes("22:00-00:00", "00:00"), Some(22 * 60));
    }

    #[test]
    fn what_is_no_window_is_refused_and_what_is_one_is_written_back() {
        for bad in
            ["", "01:00", "01:00-01:00", "1:00-02:00", "01:00-24:00", "01:60-02:00", "+1:00-02:00", "a-b"]
        {
            assert_eq!(bad.parse::<Window>(), Err(NoWindow), "{bad}");
        }
        assert_eq!(" 01:05 - 23:59 ".parse::<Window>().unwrap().to_string(), "01:05-23:59");
        assert_eq!("01:05-23:59".parse::<Window>().unwrap().beginning(), "01:05 UTC");
    }
}
