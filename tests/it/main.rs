//! The hermetic tests: one binary, no network beyond loopback, nothing installed.

mod tidy;
