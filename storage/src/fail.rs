//! Named places where a test can end the process, so that a crash at each step of a write can be shown to lose
//! nothing. Without `SAMPAN_FAILPOINT` in the environment a pass costs one load of a static.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// `NAME` or `NAME:N`: abort at the N-th pass of the point.
pub const VARIABLE: &str = "SAMPAN_FAILPOINT";

pub const POINTS: [&str; 24] = [
    "upload.sync.before",
    "upload.sync.after",
    "upload.rename.after",
    "upload.directory.after",
    "quarantine.rename.after",
    "journal.append.before",
    "journal.append.half",
    "journal.append.after",
    "journal.sync.after",
    "journal.apply.after",
    "journal.rotate.before",
    "journal.rotate.after",
    "fold.apply.after",
    "fold.pack.after",
    "fold.sync.after",
    "fold.withdraw.after",
    "fold.public.after",
    "fold.entry.after",
    "publish.sign.after",
    "publish.record.after",
    "sweep.unlink.before",
    "sweep.unlink.after",
    "adopt.pack.after",
    "adopt.entry.after",
];

struct Armed {
    name: String,
    left: AtomicU64,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// Ends the process here if this point is armed and its turn has come.
pub fn point(name: &'static str) {
    debug_assert!(POINTS.contains(&name), "{name} is not in POINTS");
    if let Some(armed) = ARMED.get_or_init(read)
        && armed.name == name
        && armed.left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        std::process::abort();
    }
}

fn read() -> Option<Armed> {
    let value = std::env::var(VARIABLE).ok()?;
    let (name, count) = value.split_once(':').unwrap_or((&value, "1"));
    Some(Armed { name: name.to_owned(), left: AtomicU64::new(count.parse().unwrap_or(1)) })
}
