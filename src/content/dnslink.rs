//! DNSLink: a domain points to content by a TXT record, `dnslink=/ipfs/…` or `dnslink=/ipns/…`
//! (dnslink.dev). Here an answer is read, remembered for as long as it may be, and asked for again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::dns::{DnsError, Txt};
use super::{Address, Domain, Root};

/// A TTL of nothing must not have the DNS asked for each request.
const MIN_TTL: Duration = Duration::from_secs(30);
/// A TTL that was set in quiet times must not keep followers from a link that changed for a week.
const MAX_TTL: Duration = Duration::from_hours(1);
/// After an answer that did not come.
pub(crate) const RETRY: Duration = Duration::from_secs(30);
/// What was true is answered for so long after its time, while the DNS is asked again or does not answer.
const MAX_STALE: Duration = Duration::from_hours(7 * 24);
/// Domains that are remembered; the one whose time was over first goes for another.
const MAX_DOMAINS: usize = 1024;
/// Questions at once, so that many names cannot make this a flood.
const MAX_ASKING: usize = 16;
/// Domains that point to domains, and so on; kubo follows 32 links of any kind.
const MAX_LINKS: usize = 16;

const PREFIX: &str = "dnslink=";

/// What domains point to. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Domains(Arc<Shared>);

/// Where a domain points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) address: Address,
    /// For how long that may be believed.
    pub(crate) ttl: Duration,
    /// It could not be asked for again since its time was over.
    pub(crate) stale: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("the DNS knows no dnslink=/ipns/… or dnslink=/ipfs/… of {0}, nor of _dnslink.{0}")]
    None(Domain),
    #[error("the DNS has several links of {0}, and they differ; one may be there")]
    Several(Domain),
    #[error("the link of {0} is neither /ipfs/<cid> nor /ipns/<name>")]
    Malformed(Domain),
    #[error("more than {MAX_LINKS} domains point to one another, beginning with {0}")]
    TooMany(Domain),
    #[error("the link of {domain} could not be asked for: {error}")]
    Dns { domain: Domain, error: DnsError },
}

#[derive(Debug)]
struct Shared {
    dns: Arc<dyn Txt>,
    known: Mutex<Known>,
    asking: Semaphore,
    /// Counts answers that differ from what was known.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    links: HashMap<Domain, Remembered>,
    /// Those that are asked for again while the old answer is given.
    refreshing: HashSet<Domain>,
}

#[derive(Clone, Debug)]
struct Remembered {
    address: Address,
    until: Instant,
}

impl Domains {
    pub(crate) fn new(dns: Arc<dyn Txt>) -> Self {
        let asking = Semaphore::new(MAX_ASKING);
        Self(Arc::new(Shared { dns, known: Mutex::default(), asking, changes: watch::Sender::new(0) }))
    }

    /// What is remembered of a domain; nobody is asked.
    pub(crate) fn known(&self, domain: &Domain) -> Option<Link> {
        let now = Instant::now();
        let remembered = self.lock().links.get(domain).cloned()?;
        let stale = remembered.until <= now;
        let useful = now < remembered.until + MAX_STALE;
        let ttl = remembered.until.saturating_duration_since(now);
        useful.then_some(Link { address: remembered.address, ttl, stale })
    }

    /// What is remembered, and what the DNS says where nothing is. What is old is answered once more, and asked for
    /// behind the answer.
    pub(crate) async fn link(&self, domain: &Domain) -> Result<Link, LinkError> {
        let Some(link) = self.known(domain) else { return self.ask(domain).await };
        if link.stale && self.lock().refreshing.insert(domain.clone()) {
            let (domains, domain) = (self.clone(), domain.clone());
            tokio::spawn(async move {
                if let Err(error) = domains.ask(&domain).await {
                    tracing::debug!(%domain, %error, "the last answer stays");
                }
                domains.lock().refreshing.remove(&domain);
            });
        }
        Ok(link)
    }

    /// What the DNS says now.
    pub(crate) async fn ask(&self, domain: &Domain) -> Result<Link, LinkError> {
        let Ok(_permit) = self.0.asking.acquire().await else {
            return Err(LinkError::Dns { domain: domain.clone(), error: DnsError::Stopped });
        };
        for name in [format!("_dnslink.{domain}."), format!("{domain}.")] {
            let texts = self.0.dns.txt(name).await;
            let texts = texts.map_err(|error| LinkError::Dns { domain: domain.clone(), error })?;
            if let Some(address) = read(domain, &texts.values)? {
                let ttl = texts.ttl.clamp(MIN_TTL, MAX_TTL);
                self.remember(domain, &address, Instant::now() + ttl);
                return Ok(Link { address, ttl, stale: false });
            }
        }
        Err(LinkError::None(domain.clone()))
    }

    /// What the DNS says now, through domains that point to domains: what is at the end is none.
    pub(crate) async fn ask_through(&self, domain: &Domain) -> Result<Link, LinkError> {
        self.through(domain, true).await
    }

    /// The same from memory where that is good enough.
    pub(crate) async fn link_through(&self, domain: &Domain) -> Result<Link, LinkError> {
        self.through(domain, false).await
    }

    async fn through(&self, domain: &Domain, now: bool) -> Result<Link, LinkError> {
        let mut link = self.step(domain, now).await?;
        for _ in 1..MAX_LINKS {
            let Root::Domain(next) = link.address.root.clone() else { return Ok(link) };
            let mut further = self.step(&next, now).await?;
            further.address.path.append(&mut link.address.path);
            further.ttl = further.ttl.min(link.ttl);
            link = further;
        }
        match link.address.root {
            Root::Domain(_) => Err(LinkError::TooMany(domain.clone())),
            _ => Ok(link),
        }
    }

    async fn step(&self, domain: &Domain, now: bool) -> Result<Link, LinkError> {
        if now { self.ask(domain).await } else { self.link(domain).await }
    }

    /// What was true before the program began: better than nothing until the DNS has answered.
    pub(crate) fn remind(&self, domain: &Domain, address: &Address) {
        if !self.lock().links.contains_key(domain) {
            self.remember(domain, address, Instant::now());
        }
    }

    /// Wakes when an answer differs from the one before.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    fn remember(&self, domain: &Domain, address: &Address, until: Instant) {
        let mut known = self.lock();
        if known.links.len() >= MAX_DOMAINS && !known.links.contains_key(domain) {
            let oldest =
                known.links.iter().min_by_key(|(_, link)| link.until).map(|(domain, _)| domain.clone());
            oldest.and_then(|oldest| known.links.remove(&oldest));
        }
        let before = known.links.insert(domain.clone(), Remembered { address: address.clone(), until });
        drop(known);
        if before.is_none_or(|before| before.address != *address) {
            self.0.changes.send_modify(|count| *count += 1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The link among the texts of one name. The same twice is one.
fn read(domain: &Domain, texts: &[String]) -> Result<Option<Address>, LinkError> {
    let mut found = None;
    let mut malformed = false;
    for value in texts.iter().filter_map(|text| text.strip_prefix(PREFIX)) {
        match parse(value) {
            Some(address) if found.as_ref().is_some_and(|found| *found != address) => {
                return Err(LinkError::Several(domain.clone()));
            }
            Some(address) => found = Some(address),
            None => malformed = true,
        }
    }
    if found.is_none() && malformed {
        return Err(LinkError::Malformed(domain.clone()));
    }
    Ok(found)
}

/// `/ipfs/<cid>` or `/ipns/<name>`, with names behind it.
fn parse(value: &str) -> Option<Address> {
    let is_path = value.starts_with("/ipfs/") || value.starts_with("/ipns/");
    if is_path { value.parse().ok() } else { None }
}

/// Fuzz target for TXT records.
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz {
    #![allow(
        clippy::missing_panics_doc,
        clippy::unwrap_used,
        clippy::panic,
        reason = "a target is there to panic"
    )]

    use super::{Domain, PREFIX, parse, read};

    /// A domain on the first line, texts of its TXT record on those behind it.
    pub fn dnslink(data: &[u8]) {
        let text = String::from_utf8_lossy(data);
        let mut lines = text.lines();
        let Ok(domain) = lines.next().unwrap_or_default().parse::<Domain>() else { return };
        assert_eq!(domain.to_string().parse(), Ok(domain.clone()), "one spelling of each");
        let texts: Vec<String> = lines.map(str::to_owned).collect();
        let Ok(Some(address)) = read(&domain, &texts) else { return };
        let said = texts.iter().filter_map(|text| parse(text.strip_prefix(PREFIX)?));
        assert!(said.into_iter().all(|other| other == address), "no two that differ");
        // Written and read again it is the same.
        assert_eq!(parse(&address.to_string()), Some(address));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::BoxFuture;

    use super::super::dns::Texts;
    use super::*;

    const CID: &str = "bafkqaaa";

    /// What each name has, and how often it was asked.
    #[derive(Debug, Default)]
    struct Zone(Mutex<(HashMap<String, Vec<String>>, bool, usize)>);

    impl Zone {
        fn put(&self, name: &str, texts: &[&str]) {
            let texts = texts.iter().map(|text| (*text).to_owned()).collect();
            self.0.lock().unwrap().0.insert(name.to_owned(), texts);
        }

        fn fail(&self, fails: bool) {
            self.0.lock().unwrap().1 = fails;
        }

        fn asked(&self) -> usize {
            std::mem::take(&mut self.0.lock().unwrap().2)
        }
    }

    impl Txt for Zone {
        fn txt(&self, name: String) -> BoxFuture<'_, Result<Texts, DnsError>> {
            let mut zone = self.0.lock().unwrap();
            zone.2 += 1;
            let values = zone.0.get(&name).cloned().unwrap_or_default();
            let answer = Texts { values, ttl: Duration::from_mins(2) };
            let answer = if zone.1 { Err(DnsError::Failed("timed out".to_owned())) } else { Ok(answer) };
            async move { answer }.boxed()
        }
    }

    fn domains() -> (Arc<Zone>, Domains) {
        let zone = Arc::new(Zone::default());
        (Arc::clone(&zone), Domains::new(zone))
    }

    /// As if so much time had passed.
    fn pass(domains: &Domains, time: Duration) {
        let mut known = domains.lock();
        known.links.values_mut().for_each(|link| link.until = link.until.checked_sub(time).unwrap());
    }

    fn domain(text: &str) -> Domain {
        text.parse().unwrap()
    }

    fn ipfs(path: &str) -> Address {
        format!("/ipfs/{path}").parse().unwrap()
    }

    #[tokio::test]
    async fn the_label_dnslink_stands_above_the_domain_itself() {
        let (zone, domains) = domains();
        let it = domain("a.example");
        zone.put("a.example.", &["v=spf1 -all", "dnslink=/ipfs/bafkqaaa/below"]);
        assert_eq!(domains.ask(&it).await.unwrap().address, ipfs("bafkqaaa/below"));
        zone.put("_dnslink.a.example.", &["dnslink=/ipfs/bafkqaaa"]);
        assert_eq!(domains.ask(&it).await.unwrap().address, ipfs(CID));
    }

    #[tokio::test]
    async fn what_is_no_link_or_not_one_is_said() {
        let (zone, domains) = domains();
        let it = domain("a.example");
        assert_eq!(domains.ask(&it).await, Err(LinkError::None(it.clone())));
        zone.put("_dnslink.a.example.", &["dnslink=/ipfs/bafkqaaa", "dnslink=/ipfs/bafkqaaa"]);
        assert!(domains.ask(&it).await.is_ok());
        zone.put("_dnslink.a.example.", &["dnslink=/ipfs/bafkqaaa", "dnslink=/ipns/b.example"]);
        assert_eq!(domains.ask(&it).await, Err(LinkError::Several(it.clone())));
        for bad in
            ["dnslink=", "dnslink=/ipfs/", "dnslink=bafkqaaa", "dnslink=/ipns/localhost", "dnslink=https://a"]
        {
            zone.put("_dnslink.a.example.", &[bad]);
            assert_eq!(domains.ask(&it).await, Err(LinkError::Malformed(it.clone())), "{bad}");
        }
    }

    #[tokio::test]
    async fn domains_that_point_to_domains_come_to_an_end() {
        let (zone, domains) = domains();
        for number in 0..15 {
            let link = format!("dnslink=/ipns/d{}.example/p{number}", number + 1);
            zone.put(&format!("_dnslink.d{number}.example."), &[&link]);
        }
        zone.put("_dnslink.d15.example.", &["dnslink=/ipfs/bafkqaaa"]);
        let link = domains.ask_through(&domain("d13.example")).await.unwrap();
        assert_eq!(link.address, ipfs("bafkqaaa/p14/p13"));
        assert!(domains.ask_through(&domain("d0.example")).await.is_ok());
        zone.put("_dnslink.d15.example.", &["dnslink=/ipns/d0.example"]);
        let first = domain("d0.example");
        assert_eq!(domains.ask_through(&first).await, Err(LinkError::TooMany(first)));
    }

    #[tokio::test]
    async fn an_answer_is_remembered_for_its_time_and_stays_when_the_dns_fails() {
        let (zone, domains) = domains();
        let it = domain("a.example");
        zone.put("_dnslink.a.example.", &["dnslink=/ipfs/bafkqaaa"]);
        assert!(!domains.link(&it).await.unwrap().stale);
        assert!(!domains.link(&it).await.unwrap().stale);
        assert_eq!(zone.asked(), 1);
        zone.fail(true);
        pass(&domains, Duration::from_mins(3));
        let old = domains.link(&it).await.unwrap();
        assert_eq!((old.address, old.stale), (ipfs(CID), true));
        tokio::task::yield_now().await;
        assert_eq!(zone.asked(), 1, "it is asked for behind the answer");
        // And not for ever.
        pass(&domains, MAX_STALE);
        assert!(matches!(domains.link(&it).await, Err(LinkError::Dns { .. })));
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_another_answer_and_of_no_other() {
        let (zone, domains) = domains();
        let (it, mut changes) = (domain("a.example"), domains.changes());
        zone.put("_dnslink.a.example.", &["dnslink=/ipfs/bafkqaaa"]);
        domains.ask(&it).await.unwrap();
        assert!(changes.changed().now_or_never().is_some());
        domains.ask(&it).await.unwrap();
        assert!(changes.changed().now_or_never().is_none());
        zone.put("_dnslink.a.example.", &["dnslink=/ipns/b.example"]);
        domains.ask(&it).await.unwrap();
        assert!(changes.changed().now_or_never().is_some());
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let (_, domains) = domains();
        for number in 0..=MAX_DOMAINS {
            domains.remind(&domain(&format!("d{number}.example")), &ipfs(CID));
        }
        assert_eq!(domains.lock().links.len(), MAX_DOMAINS);
    }
}
