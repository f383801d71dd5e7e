//! What the running registry does for itself, by the clock or when a command asks.

mod clock;
mod gc;
mod scrub;
mod uploads;
mod verify;

pub(crate) use clock::watch_clock;
pub(crate) use gc::{Collector, GcAnswer, Totals};
pub(crate) use scrub::scrub;
pub(crate) use uploads::purge_uploads;
pub(crate) use verify::{Verifier, describe_progress};
