//! What the running registry does for itself, by the clock or when a command asks.

mod gc;

pub(crate) use gc::{Collector, GcAnswer};
