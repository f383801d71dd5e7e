//! Runs fuzz targets over the seeds in `fuzz/corpus`, and over small changes of them, in ordinary unit tests.
//!
//! This file belongs to each of the three crates that have targets; it is a module of their `fuzz`.

use std::fs;
use std::path::Path;

/// A fuzz target: its name, which is that of its folder of seeds, and what it does with some bytes.
pub(super) type Target = (&'static str, fn(&[u8]));

/// Changed inputs that are made of each seed.
const CHANGES: usize = 64;

/// Every seed as it is, cut short, and changed.
pub(super) fn run(crate_dir: &str, targets: &[Target]) {
    let root = Path::new(crate_dir).ancestors().find(|dir| dir.join("fuzz/corpus").is_dir()).unwrap();
    for (name, target) in targets {
        let folder = root.join("fuzz/corpus").join(name);
        let mut seeds: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|file| file.unwrap().path())
            .collect();
        seeds.sort();
        assert!(!seeds.is_empty(), "{} has no seed", folder.display());
        for seed in seeds {
            let bytes = fs::read(&seed).unwrap();
            // What a failing target printed stands below this line.
            println!("{}", seed.display());
            target(&bytes);
            for changed in changes(&bytes) {
                target(&changed);
            }
        }
    }
}

/// The same at every run: a failure can be looked at.
fn changes(seed: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ seed.len() as u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below.max(1) as u64).unwrap()
    };
    (0..CHANGES).map(move |_| {
        let mut bytes = seed.to_vec();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at.min(bytes.len()), random(256) as u8),
                2 if !bytes.is_empty() => bytes[at] = random(256) as u8,
                _ if !bytes.is_empty() => bytes[at] ^= 1 << random(8),
                _ => {}
            }
        }
        bytes
    })
}
