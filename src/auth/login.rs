//! Passwords: who gives the right one is a user. What was right lately is known without being hashed again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use quick_cache::sync::Cache;

use super::LoginError;
use super::credentials::Password;
use super::htpasswd::{Htpasswd, Line};
use super::lane::Lane;
use super::watched::Watched;

/// How long a right password is known. A client that sends it with every request costs one hash in this time.
const KNOWN_FOR: Duration = Duration::from_mins(5);
/// Right passwords that are known, some 100 bytes each.
const KNOWN: usize = 4096;

#[derive(Debug)]
pub(super) struct Logins {
    file: Watched<Htpasswd>,
    lane: Lane,
    known: Arc<Known>,
}

/// Passwords that were right, by a keyed hash of user, password and the line that says so: of no use without the
/// process's own key, and none when the line changes.
struct Known {
    key: hmac::Key,
    until: Cache<[u8; 32], Instant>,
}

impl Logins {
    pub(super) fn new(file: Watched<Htpasswd>, lane: Lane, key: hmac::Key) -> Self {
        let known = Arc::new(Known { key, until: Cache::new(KNOWN) });
        Self { file, lane, known }
    }

    /// The user, where the password is right.
    pub(super) async fn check(&self, user: &str, password: Password) -> Result<Arc<Line>, LoginError> {
        let file = self.file.current().await;
        let line = file.get(user).map(Arc::clone);
        let mark = self.known.mark(user, &password, line.as_deref());
        if let Some(line) = line.as_ref().filter(|_| self.known.has(&mark)) {
            return Ok(Arc::clone(line));
        }
        // A user who does not exist costs as much as a wrong password.
        let Some(compared) = line.as_ref().or_else(|| file.stand_in()).map(Arc::clone) else {
            return Err(LoginError::Wrong);
        };
        let (known, exists) = (Arc::clone(&self.known), line.is_some());
        let right = self.lane.run(move || {
            // Several requests of one client wait together; the first of them answers for all.
            if exists && known.has(&mark) {
                return true;
            }
            let right = compared.hash.is_of(password.bytes()) && exists;
            if right {
                known.insert(mark);
            }
            right
        });
        match (right.await, line) {
            (Ok(true), Some(line)) => Ok(line),
            (Ok(_), _) => Err(LoginError::Wrong),
            (Err(_), _) => Err(LoginError::Busy),
        }
    }

    /// The line of a user as it is now.
    pub(super) async fn line(&self, user: &str) -> Option<Arc<Line>> {
        self.file.current().await.get(user).map(Arc::clone)
    }
}

impl Known {
    fn mark(&self, user: &str, password: &Password, line: Option<&Line>) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        let hash = line.map(|line| line.text.as_bytes()).unwrap_or_default();
        for part in [user.as_bytes(), password.bytes(), hash] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut mark = [0; 32];
        for (to, from) in mark.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        mark
    }

    fn has(&self, mark: &[u8; 32]) -> bool {
        self.until.get(mark).is_some_and(|until| Instant::now() < until)
    }

    fn insert(&self, mark: [u8; 32]) {
        self.until.insert(mark, Instant::now() + KNOWN_FOR);
    }
}

impl std::fmt::Debug for Known {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Known").finish_non_exhaustive()
    }
}
