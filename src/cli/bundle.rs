//! `sampan bundle`: a registry's state as files that somebody carries.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use sampan_node::Name;
use serde_json::json;

use super::print;
use crate::bundle::{Applied, Description, LEAST_PART, Made, Outcome, WHOLE, Wish, peek};
use crate::config::parse_size;
use crate::control::{self, Ask, Bytes};
use crate::pattern::Pattern;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Bundle {
    /// Write a name's tree and blobs to a file, signed, while the registry runs
    Create {
        /// The name whose tree it is: this registry's, or one that is followed [default: this registry's]
        #[arg(long)]
        name: Option<Name>,
        /// Leave out what this root has: `bundle create` and `sampan root` print them
        #[arg(long, value_name = "ROOT")]
        since: Option<String>,
        /// Take the blobs of these repositories only, such as 'team/*'
        #[arg(long, value_name = "PATTERN", value_parser = pattern)]
        repos: Option<String>,
        /// Cut it into parts of at most this size, such as 4G: FILE, FILE.002, FILE.003 …
        #[arg(long, value_name = "SIZE", value_parser = size)]
        split: Option<u64>,
        #[arg(long)]
        json: bool,
        /// Where it goes; it must not be there yet. - is standard output
        file: PathBuf,
    },
    /// Take bundles in, and follow their names from then on
    Apply {
        /// Take a bundle of this name only
        #[arg(long)]
        name: Option<Name>,
        #[arg(long)]
        json: bool,
        /// Bundles and parts of them, in any order; - is standard input
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// Bytes of names of files that go along with one question.
const MAX_NAMES: usize = 48 * 1024;
/// Written bytes are put on the medium this often: a slow one would else take minutes for all of them at the end, while the
/// registry waits.
const SYNC_EVERY: u64 = 16 * 1024 * 1024;

/// Parts as they come, each with its length before it; each becomes a file.
struct Parts {
    base: PathBuf,
    /// Whole and in their place.
    written: Vec<(PathBuf, u64)>,
    length: Vec<u8>,
    open: Option<Open>,
}

/// The part that is being written, under a name of its own until it is whole.
struct Open {
    output: Output,
    length: u64,
    left: u64,
}

enum Output {
    Stdout,
    File { file: File, unsynced: u64, unfinished: PathBuf, path: PathBuf },
}

/// Files on their way to the registry, one after the other.
struct Feed {
    files: VecDeque<PathBuf>,
    current: Option<Box<dyn Read + Send>>,
}

pub(super) fn run(dir: &Path, bundle: Bundle) -> anyhow::Result<()> {
    match bundle {
        Bundle::Create { name, since, repos, split, json, file } => {
            let wish = Wish { name, since, repositories: repos, split };
            create(dir, wish, &file, json)
        }
        Bundle::Apply { name, json, files } => apply(dir, name, files, json),
    }
}

fn create(dir: &Path, wish: Wish, file: &Path, json: bool) -> anyhow::Result<()> {
    let to_stdout = file.as_os_str() == "-";
    if to_stdout && wish.split.is_some() {
        bail!("standard output cannot be split; give a file");
    }
    if !to_stdout && file.symlink_metadata().is_ok() {
        bail!("{} is there already; give another file", file.display());
    }
    let mut parts = Parts::new(file.to_owned());
    let mut meter = print::Meter::start();
    let question = Ask::BundleCreate(wish);
    let bytes = Bytes { input: None, output: &mut parts };
    let made: anyhow::Result<Made> =
        control::must_exchange(dir, &question, bytes, &mut |text| meter.show(text));
    drop(meter);
    let made = match made.and_then(|made| parts.finish().map(|()| made).map_err(Into::into)) {
        Ok(made) => made,
        Err(error) => {
            parts.remove();
            return Err(error);
        }
    };
    if to_stdout {
        return Ok(());
    }
    if json {
        let files: Vec<_> = parts
            .written
            .iter()
            .map(|(path, bytes)| json!({"file": path.display().to_string(), "bytes": bytes}))
            .collect();
        let mut value = serde_json::to_value(&made)?;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("files".to_owned(), files.into());
        }
        return print::json(&value);
    }
    for (path, bytes) in &parts.written {
        print::line(&format!("{}  {bytes} bytes", path.display()));
    }
    print::line(&format!("{} sequence {}, root {}", made.name, made.sequence, made.root));
    Ok(())
}

fn apply(dir: &Path, name: Option<Name>, files: Vec<PathBuf>, json: bool) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for files in bundles(files)? {
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        if names.iter().map(String::len).sum::<usize>() > MAX_NAMES {
            bail!(
                "the names of the files are too long for one question; call the command in their directory"
            );
        }
        let feed = Feed { files: files.into(), current: None };
        let mut meter = print::Meter::start();
        let bytes = Bytes { input: Some(Box::new(feed)), output: &mut io::sink() };
        let question = Ask::BundleApply { files: names, name };
        let applied: Applied = control::must_exchange(dir, &question, bytes, &mut |text| meter.show(text))?;
        drop(meter);
        if !json {
            print::line(&describe(&applied));
        }
        all.push(applied);
    }
    if json { print::json(&all) } else { Ok(()) }
}

fn describe(applied: &Applied) -> String {
    let Applied { name, sequence, root, outcome, blobs, lacking, parts, .. } = applied;
    match outcome {
        Outcome::Applied => format!("{name} is at sequence {sequence}, root {root}; {blobs} new blobs"),
        Outcome::Present => format!("{name} sequence {sequence}, root {root} is there already"),
        Outcome::Incomplete => format!(
            "kept, and not visible yet: {lacking} blobs are to come; apply the others of the {parts} parts too"
        ),
    }
}

/// Files that belong together, older bundles first, each with its parts in their order: nobody need think of how a shell
/// sorts.
fn bundles(files: Vec<PathBuf>) -> anyhow::Result<Vec<Vec<PathBuf>>> {
    if files.iter().any(|file| file.as_os_str() == "-") {
        if files.len() > 1 {
            bail!("standard input is one file; give it alone");
        }
        return Ok(vec![files]);
    }
    let mut told = Vec::new();
    for file in files {
        let open = File::open(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        told.push((peek(open), file));
    }
    // What is no bundle comes last, and is refused by the registry with the reason.
    let order = |description: &Option<Description>| {
        description.as_ref().map_or((u64::MAX, 0), |it| (it.sequence, it.part))
    };
    told.sort_by_key(|(description, _)| order(description));
    let mut bundles: Vec<(Option<Description>, Vec<PathBuf>)> = Vec::new();
    for (description, file) in told {
        let is_of = |known: &Option<Description>| {
            known.as_ref().zip(description.as_ref()).is_some_and(|(known, it)| it.is_of(known))
        };
        match bundles.iter_mut().find(|(known, _)| is_of(known)) {
            Some((_, files)) => files.push(file),
            None => bundles.push((description, vec![file])),
        }
    }
    Ok(bundles.into_iter().map(|(_, files)| files).collect())
}

impl Parts {
    fn new(base: PathBuf) -> Self {
        Self { base, written: Vec::new(), length: Vec::new(), open: None }
    }

    fn begin(&mut self, length: u64) -> io::Result<Open> {
        let output = if self.base.as_os_str() == "-" {
            Output::Stdout
        } else {
            let path = numbered(&self.base, self.written.len() + 1);
            let mut unfinished = path.clone().into_os_string();
            unfinished.push(".unfinished");
            let unfinished = PathBuf::from(unfinished);
            if path.symlink_metadata().is_ok() {
                let text = format!("{} is there already; give another file", path.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            Output::File { file: File::create(&unfinished)?, unsynced: 0, unfinished, path }
        };
        Ok(Open { output, length, left: length })
    }

    /// Whether the last part is whole.
    fn finish(&mut self) -> io::Result<()> {
        if self.open.is_some() || !self.length.is_empty() {
            return Err(io::Error::other("the bundle was cut off"));
        }
        Ok(())
    }

    /// A bundle that was not made in the end leaves no file.
    fn remove(&mut self) {
        let unfinished = self.open.take().and_then(|open| match open.output {
            Output::Stdout => None,
            Output::File { unfinished, .. } => Some(unfinished),
        });
        for path in self.written.drain(..).map(|(path, _)| path).chain(unfinished) {
            // What is left says so by its name, or is whole.
            let _ = fs::remove_file(path);
        }
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(open) = &mut self.open else {
            let (head, _) = bytes.split_at(bytes.len().min(size_of::<u64>() - self.length.len()));
            self.length.extend_from_slice(head);
            if let Ok(length) = <[u8; 8]>::try_from(self.length.as_slice()) {
                self.length.clear();
                self.open = Some(self.begin(u64::from_be_bytes(length))?);
            }
            return Ok(head.len());
        };
        let most = usize::try_from(open.left).unwrap_or(usize::MAX);
        let (piece, _) = bytes.split_at(bytes.len().min(most));
        match &mut open.output {
            Output::Stdout => print::bytes().write_all(piece)?,
            Output::File { file, unsynced, .. } => {
                file.write_all(piece)?;
                *unsynced += piece.len() as u64;
                if *unsynced >= SYNC_EVERY {
                    file.sync_data()?;
                    *unsynced = 0;
                }
            }
        }
        open.left -= piece.len() as u64;
        if open.left == 0
            && let Some(open) = self.open.take()
            && let Output::File { file, unfinished, path, .. } = open.output
        {
            // Whoever is told that it is done takes the medium out.
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            self.written.push((path, open.length));
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(current) = &mut self.current {
                let read = current.read(buffer)?;
                if read > 0 || buffer.is_empty() {
                    return Ok(read);
                }
            }
            let Some(path) = self.files.pop_front() else { return Ok(0) };
            let (length, input): (u64, Box<dyn Read + Send>) = if path.as_os_str() == "-" {
                (WHOLE, Box::new(io::stdin()))
            } else {
                let file = File::open(&path)
                    .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
                let length = file.metadata()?.len();
                (length, Box::new(file.take(length)))
            };
            self.current = Some(Box::new(io::Cursor::new(length.to_be_bytes()).chain(input)));
        }
    }
}

/// The first part is the file itself, as if it were the only one.
fn numbered(base: &Path, part: usize) -> PathBuf {
    if part == 1 {
        return base.to_owned();
    }
    let mut name = base.as_os_str().to_owned();
    name.push(format!(".{part:03}"));
    name.into()
}

fn pattern(text: &str) -> Result<String, String> {
    Pattern::of_repositories(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn size(text: &str) -> Result<u64, String> {
    let size = parse_size(text).ok_or("a size looks like 4G, 700M or 4GiB")?;
    if size < LEAST_PART {
        return Err(format!("a part has at least {} MiB", LEAST_PART / 1024 / 1024));
    }
    Ok(size)
}
