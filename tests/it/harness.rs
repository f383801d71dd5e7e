//! The program under test: a [`Home`] is a data directory and how to start on it, a [`Server`] is one that runs.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

/// Longest wait for anything that must happen. Generous: the tests share few cores, and nobody waits in vain.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);
/// Between two looks at what gives no event.
const POLL: Duration = Duration::from_millis(20);
/// Lines of a server's log that are shown when its test fails.
const LOG_LINES: usize = 20;
/// A file of users, each with the password "open sesame".
pub(crate) const USERS: &str = "\
alice:$2y$04$0ZX901egekCLYh9umFYdTOg4oJTYkP4d3fT4jTCDtkoXNlw/wBvMG
bob:$2y$04$0ZX901egekCLYh9umFYdTOg4oJTYkP4d3fT4jTCDtkoXNlw/wBvMG
";
/// What would change how the program starts.
const ENVIRONMENT: [&str; 4] = ["SAMPAN_DATA", "SAMPAN_LOG", "SAMPAN_FAILPOINT", "LIBP2P_FORCE_PNET"];

/// How a server is started. The default is what a newcomer gets, on free ports.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Where HTTP listens; a free port of 127.0.0.1 when empty.
    pub(crate) addr: &'static str,
    /// Multiaddrs of peers that are kept connected.
    pub(crate) peers: Vec<String>,
    /// Names that the configuration follows, or sections with names, as JSON.
    pub(crate) follow: Vec<String>,
    /// Other flags.
    pub(crate) flags: Vec<String>,
    /// A configuration file of somebody else. Where data and ports are is said in the environment then.
    pub(crate) file: Option<String>,
    /// Variables of the environment.
    pub(crate) environment: Vec<(&'static str, &'static str)>,
}

/// A data directory that nobody runs on, in a folder that goes away with it.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) options: Options,
    dir: TempDir,
}

/// A running registry and node. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) peer: String,
    pub(crate) http: SocketAddr,
    /// The multiaddr of the node, with its peer id.
    pub(crate) p2p: String,
    pub(crate) client: reqwest::Client,
    // Ends before its directory goes.
    process: Process,
    pub(crate) home: Home,
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Server {
    /// Starts on an empty data directory and waits for the first answer.
    pub(crate) async fn start(options: Options) -> Self {
        Home::new(options).start().await
    }

    /// Starts a follower of this one, connected to `peer`: an address of it, or of a wire to it.
    pub(crate) async fn start_follower(&self, peer: &str) -> Self {
        let (peers, follow) = (vec![peer.to_owned()], vec![self.name.clone()]);
        Self::start(Options { peers, follow, ..Options::default() }).await
    }

    /// Ends it as the system does, and it has to end well.
    pub(crate) async fn stop(self) -> Home {
        self.terminate();
        self.ended().await
    }

    /// Tells it to stop.
    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.process.0), Signal::TERM).unwrap();
    }

    /// Waits for the end of one that was told to stop.
    pub(crate) async fn ended(self) -> Home {
        let Self { home, mut process, .. } = self;
        let status = eventually("it stops", async || process.0.try_wait().unwrap()).await;
        assert!(status.success(), "it stopped with {status}\n{}", home.log());
        home
    }

    /// Ends it as a crash does: kill -9.
    pub(crate) fn kill(self) -> Home {
        drop(self.process);
        self.home
    }

    pub(crate) async fn restart(self) -> Self {
        self.stop().await.start().await
    }

    /// Bytes of memory that it had resident at its peak.
    pub(crate) fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    pub(crate) async fn status(&self) -> Value {
        self.home.json(&["status", "--json"]).await
    }
}

impl Home {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) async fn start(self) -> Server {
        let config = self.dir.path().join("config.yml");
        fs::write(&config, self.configuration()).unwrap();
        let addr = if self.options.addr.is_empty() { "127.0.0.1:0" } else { self.options.addr };
        let mut command = if self.options.file.is_some() {
            let mut command = self.bare();
            command.args(["serve", "--p2p", "/ip4/127.0.0.1/tcp/0", "--config"]).arg(config);
            command
                .env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", self.data())
                .env("REGISTRY_HTTP_ADDR", addr);
            command
        } else {
            let mut command =
                self.command(&["serve", "--addr", addr, "--p2p", "/ip4/127.0.0.1/tcp/0", "--config"]);
            command.arg(config);
            command
        };
        command.args(&self.options.flags).envs(self.options.environment.iter().copied());
        command.stdout(Stdio::piped()).stderr(self.log_file());
        let mut process = Process(command.spawn().unwrap());
        let stdout = process.0.stdout.take().unwrap();
        let greeting = timeout(DEADLINE, spawn_blocking(move || greeting(stdout)));
        let greeting = greeting.await.expect("a greeting in time").unwrap();
        let told = |what: &str| {
            let line = greeting.iter().find_map(|line| line.trim().strip_prefix(what));
            line.unwrap_or_else(|| panic!("no {what} in {greeting:?}\n{}", self.log())).trim().to_owned()
        };
        let url = told("registry");
        let http = url.split_once("://").unwrap().1.parse().unwrap();
        // The client wants one for plain HTTP, too.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let server = Server {
            name: told("name"),
            peer: told("peer"),
            p2p: told("p2p"),
            http,
            client: reqwest::Client::builder().timeout(DEADLINE).build().unwrap(),
            process,
            home: self,
        };
        // The port is bound before the greeting; who answers there has opened its control socket too.
        if url.starts_with("http://") && server.home.options.file.is_none() {
            assert_eq!(server.get("/v2/").await.status(), 200);
        }
        server
    }

    /// Runs a command on this data directory.
    pub(crate) async fn sampan(&self, arguments: &[&str]) -> Said {
        let child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let process = Pid::from_child(&child);
        let Ok(output) = timeout(DEADLINE, spawn_blocking(|| child.wait_with_output())).await else {
            kill_process(process, Signal::KILL).unwrap();
            panic!("sampan {arguments:?} did not end in time");
        };
        let output = output.unwrap().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// What a command prints when all is well.
    pub(crate) async fn prints(&self, arguments: &[&str]) -> String {
        let said = self.sampan(arguments).await;
        assert!(said.code == Some(0), "sampan {arguments:?}: {said:?}");
        said.stdout.trim_end().to_owned()
    }

    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.prints(arguments).await).unwrap()
    }

    /// The end of what its servers have logged.
    fn log(&self) -> String {
        let log = self.whole_log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// All that its servers have logged.
    pub(crate) fn whole_log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn log_file(&self) -> File {
        File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare();
        command.arg("--data").arg(self.data()).args(arguments);
        command
    }

    /// The program without a word.
    pub(crate) fn bare(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sampan"));
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        for variable in ENVIRONMENT {
            command.env_remove(variable);
        }
        command
    }

    fn configuration(&self) -> String {
        let Options { peers, follow, file, .. } = &self.options;
        if let Some(file) = file {
            return file.clone();
        }
        // What is no name is a section, as JSON.
        let section =
            |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str()));
        let follow: Vec<Value> = follow.iter().map(section).collect();
        format!("ipfs:\n  peers: {}\n  follow: {}\n", Value::from(peers.clone()), Value::from(follow))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- end of the log of {}\n{}", self.dir.path().display(), self.log());
        }
    }
}

#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The lines that a server greets with. The last one says where its data are.
fn greeting(stdout: ChildStdout) -> Vec<String> {
    let mut lines = Vec::new();
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let last = line.trim().starts_with("data");
        lines.push(line);
        if last {
            break;
        }
    }
    lines
}

/// Asks until there is an answer, and fails the test when there is none in time.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(since.elapsed() < DEADLINE, "not in time: {what}");
        sleep(POLL).await;
    }
}

/// Bytes that no other test has and no compression shortens: whoever has them got them from this test's servers.
pub(crate) fn noise(seed: &str, length: usize) -> Vec<u8> {
    let mut state = seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Every file below a directory with its content, by its path from there.
pub(crate) fn contents(dir: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let mut files = std::collections::BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for item in fs::read_dir(next).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.is_file() {
                files.insert(path.strip_prefix(dir).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    files
}
