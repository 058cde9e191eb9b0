//! How this instance speaks to each of its processors: where one is, whom to believe to be it, how long
//! it is waited for, and what it is asked and answers.
//!
//! A processor of the contest is spoken to as `payments/processor.rs` has it; one of a file, as it is
//! described there. A processor has its number in the table of names, which may have more of them: those
//! that were used before and are not any more ("retired") have no connector, and nothing is outstanding
//! there.

use crate::base::money::{Cents, Fee};
use crate::instance::config::Config;
use crate::instance::files;
use crate::net::client::{Link, Target, Url};
use crate::net::tls::{self, Trust};
use crate::payments::fee::FeeSchedule;
use crate::payments::names::Names;
use crate::payments::observed::Report;
use crate::payments::terms::{Limits, Offers, Terms};
use crate::payments::{Attempt, Each, Outcome, PaymentId, Processor, processor};
use crate::processors::{Described, Processors, Timeouts};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// What the settings say of one processor.
#[derive(Clone, Debug)]
pub struct Settings {
    pub name: String,
    /// As it is told, and kept with a journal.
    pub url: String,
    /// As it is compared with the other instance's, if it comes from a flag.
    pub server: Url,
    trust: Option<Trust>,
    pub fee: FeeSchedule,
    pub limits: Limits,
    pub timeouts: Timeouts,
    protocol: Protocol,
    /// All that its file says of it.
    described: Option<Arc<Described>>,
}

/// What is said to a processor, and heard from it.
#[derive(Clone, Debug)]
enum Protocol {
    /// The contest's API, with nothing added.
    Contest,
    /// As it is described, with what its `Host` header says.
    Described(Arc<Described>, String),
}

impl Settings {
    /// One of the contest's two, as the flags have it.
    pub fn of_contest(
        name: &str,
        server: Url,
        trust: Option<Trust>,
        share: Fee,
        concurrency: u32,
        timeouts: Timeouts,
    ) -> Settings {
        let (url, fee) = (server.whole(), FeeSchedule { share, fixed: Cents(0) });
        let limits = Limits { concurrency, ..Limits::default() };
        let (name, protocol) = (name.into(), Protocol::Contest);
        let described = None;
        Settings { name, url, server, trust, fee, limits, timeouts, protocol, described }
    }

    /// Those of a file, in its order. Reads the file, what it names, and the authorities of this system if
    /// they are needed (blocking). No attempt is started whose answer is expected to take longer than
    /// `attempt_latency_max`.
    ///
    /// # Errors
    /// All that is wrong with the file, a line each; or which processor cannot be spoken to, and why.
    pub fn load(
        file: &Path,
        attempt_latency_max: Duration,
        is_paired: bool,
    ) -> Result<Vec<Settings>, String> {
        let all = Processors::load(file)?;
        let all: Result<Vec<_>, _> = all.iter().map(Settings::of_described).collect();
        let refused = |why| format!("{}: {why}", file.display());
        let all = all.map_err(refused)?;
        let fault = all.iter().find_map(|it| it.fault(attempt_latency_max, is_paired));
        fault.map_or(Ok(all), |fault| Err(refused(fault)))
    }

    /// What is wrong with it beside the other settings, if anything is.
    fn fault(&self, attempt_latency_max: Duration, is_paired: bool) -> Option<String> {
        let name = &self.name;
        if self.timeouts.answer <= attempt_latency_max {
            return Some(format!(
                "processor {name}: its time-out for an answer must be longer than \
                 --attempt-latency-max"
            ));
        }
        let tells_whose = self.described.as_ref().is_none_or(|it| it.exchanges.tell_whose());
        (is_paired && !tells_whose).then(|| {
            format!(
                "processor {name}: with --peer each booking must show its `time`, or nobody can tell \
                 which of the two instances it is of"
            )
        })
    }

    fn of_described(described: &Described) -> Result<Settings, String> {
        let Described { name, endpoint, fee, limits, timeouts, .. } = described;
        let refused = |why: String| format!("processor {name}: {why}");
        let scheme = if endpoint.is_tls { "https" } else { "http" };
        let server = format!("{scheme}://{}:{}", endpoint.host, endpoint.port);
        let server = Url::with_tls_or_without(&server).map_err(refused)?;
        let trust = endpoint.is_tls.then(|| trust_of(described)).transpose();
        Ok(Settings {
            name: name.clone(),
            url: endpoint.to_string(),
            server,
            trust: trust.map_err(refused)?,
            fee: *fee,
            limits: *limits,
            timeouts: *timeouts,
            protocol: match described.is_plain_contest() {
                true => Protocol::Contest,
                false => Protocol::Described(described.clone().into(), endpoint.authority()),
            },
            described: Some(described.clone().into()),
        })
    }

    /// Why these may not take the place of it while it runs, if that is so.
    fn refusal(&self, new: &Settings, is_paired: bool) -> Option<String> {
        let (name, bounds) = (&self.name, |it: &Limits| (it.smallest, it.largest));
        let agreed = |it: &Settings| (it.fee, bounds(&it.limits));
        if self.url != new.url {
            return Some(format!("processor {name} has another URL, which takes a restart"));
        }
        (is_paired && agreed(self) != agreed(new)).then(|| {
            format!(
                "processor {name} has another fee, `smallest` or `largest`, about which the other \
                 instance must agree: that takes a restart of both"
            )
        })
    }
}

/// Why these may not take the place of those while they run, if that is so.
fn refusal(old: &Connectors, new: &[Settings], names: &Names, is_paired: bool) -> Option<String> {
    let old_of = |it: &Settings| old.get(names.by_name(&it.name)?);
    if let Some(added) = new.iter().find(|it| old_of(it).is_none()) {
        return Some(format!("processor {} is new, which takes a restart", added.name));
    }
    let is_left_out = |name: &str| new.iter().all(|it| it.name != name);
    if let Some((_, gone)) = old.iter().find(|(_, it)| is_left_out(&it.settings.name)) {
        let name = &gone.settings.name;
        return Some(format!("processor {name} is not there any more, which takes a restart"));
    }
    new.iter().find_map(|it| old_of(it)?.settings.refusal(it, is_paired))
}

/// The first of several lines, and how many more there are.
pub fn in_one_line(faults: &str) -> String {
    match faults.split_once('\n') {
        None => faults.into(),
        Some((first, more)) => format!("{first} (and {} more)", more.lines().count()),
    }
}

/// What both instances of a pair must agree about: names and values. Of a file, in whichever order it
/// has its processors.
pub fn agreed(config: &Config) -> Vec<(String, String)> {
    if config.processors_file.is_none() {
        let both = || config.processors.iter();
        let urls = both().map(|it| (format!("--{}-url", it.name), it.server.to_string()));
        let fees = both().map(|it| (format!("--{}-fee", it.name), it.fee.share.to_string()));
        return urls.chain(fees).collect();
    }
    let one = |it: &Settings| {
        let Limits { smallest, largest, .. } = it.limits;
        let bound = |amount: Option<Cents>| amount.map_or("any".into(), |it| it.to_string());
        let (smallest, largest) = (bound(smallest), bound(largest));
        let value = format!("{}, fee {}, from {smallest} to {largest}", it.url, it.fee);
        (format!("processor {}", it.name), value)
    };
    let mut all: Vec<_> = config.processors.iter().map(one).collect();
    all.sort();
    let file = ("--processors".into(), "given".into());
    std::iter::once(file).chain(all).collect()
}

/// A checksum of what decides which processor is the cheapest for an amount.
pub fn terms(config: &Config) -> u32 {
    let one = |it: &Settings| {
        let Limits { smallest, largest, .. } = it.limits;
        format!("{} {} {smallest:?} {largest:?}\n", it.name, it.fee)
    };
    let mut all: Vec<_> = config.processors.iter().map(one).collect();
    all.sort();
    crc32c::crc32c(all.concat().as_bytes())
}

/// Whom to believe to be that processor, and what to show it.
fn trust_of(described: &Described) -> Result<Trust, String> {
    let roots = match &described.tls.authorities {
        Some(pem) => tls::roots_of(pem.text.as_bytes())?,
        None => tls::system_roots().map_err(|why| format!("{why}: name some by `ca`"))?,
    };
    let own = described.tls.identity.as_ref().map(|(certificate, key)| {
        let own = tls::own_of(certificate.text.as_bytes(), key.text.as_bytes());
        own.map_err(|fault| match fault {
            tls::OwnFault::Certificate(why) | tls::OwnFault::Key(why) => why,
        })
    });
    Ok(Trust::new(roots, own.transpose()?))
}

/// One processor, ready to be spoken to.
pub struct Connector {
    pub settings: Settings,
    target: Arc<Target>,
}

impl Connector {
    /// Begins to look up where it is.
    fn new(settings: Settings) -> Connector {
        let target = Target::new(settings.server.clone(), settings.trust.as_ref());
        Connector { settings, target }
    }

    /// In place of another one: the very same, if nothing has changed.
    fn replaced(self: &Arc<Connector>, settings: Settings) -> Arc<Connector> {
        let (old, new) = (&self.settings.described, &settings.described);
        if old.is_some() && old == new {
            return self.clone();
        }
        let tls = |it: &Option<Arc<Described>>| it.as_ref().map(|it| it.tls.clone());
        if tls(old) != tls(new) {
            return Arc::new(Connector::new(settings));
        }
        // What the name of its server stands for is known.
        Arc::new(Connector { settings, target: self.target.clone() })
    }

    /// The request for this attempt.
    pub fn write_pay(&self, out: &mut Vec<u8>, host: &str, attempt: &Attempt) {
        match &self.settings.protocol {
            Protocol::Contest => processor::write_pay(out, host, attempt),
            Protocol::Described(described, host) => described.write_pay(out, host, attempt),
        }
    }

    /// The question whether it holds this payment.
    pub fn write_look(&self, out: &mut Vec<u8>, host: &str, id: PaymentId) {
        match &self.settings.protocol {
            Protocol::Contest => processor::write_look(out, host, id),
            Protocol::Described(described, host) => described.write_look(out, host, id),
        }
    }

    /// What the answer to a request means. `is_whole`: the connection did not end with it.
    pub fn read_pay(
        &self,
        status: u16,
        body: &[u8],
        retry_after_s: Option<u32>,
        is_whole: bool,
        attempt: &Attempt,
        paired: bool,
    ) -> Outcome {
        match &self.settings.protocol {
            Protocol::Contest => {
                processor::read_pay(status, body, retry_after_s, is_whole, attempt)
            }
            Protocol::Described(described, _) => {
                described.read_pay(status, body, retry_after_s, is_whole, attempt, paired)
            }
        }
    }

    /// What the answer to a look means.
    pub fn read_look(
        &self,
        status: u16,
        body: &[u8],
        retry_after_s: Option<u32>,
        attempt: &Attempt,
        paired: bool,
    ) -> Outcome {
        match &self.settings.protocol {
            Protocol::Contest => processor::read_look(status, body, retry_after_s, attempt, paired),
            Protocol::Described(described, _) => {
                described.read_look(status, body, retry_after_s, attempt, paired)
            }
        }
    }

    /// Whether somebody should hear of an answer that means this. What a file describes is expected.
    pub fn is_odd(&self, outcome: Outcome) -> bool {
        match &self.settings.protocol {
            Protocol::Contest => processor::is_odd(outcome),
            Protocol::Described(..) => outcome == Outcome::Unknown,
        }
    }

    /// What it answered, for people. Of one that is shown secrets nothing: it may repeat them.
    pub fn excerpt(&self, body: &[u8]) -> String {
        match &self.settings.protocol {
            Protocol::Described(described, _) if !described.exchanges.secrets.is_empty() => {
                "(not shown: it may repeat a secret)".into()
            }
            _ => processor::excerpt(body).to_string(),
        }
    }

    /// Whether it can be asked how it is.
    pub fn has_health(&self) -> bool {
        match &self.settings.protocol {
            Protocol::Contest => true,
            Protocol::Described(described, _) => described.exchanges.health.is_some(),
        }
    }

    /// The question how it is.
    pub fn write_health(&self, out: &mut Vec<u8>, host: &str) {
        match &self.settings.protocol {
            Protocol::Contest => processor::write_health(out, host),
            Protocol::Described(described, host) => described.write_health(out, host),
        }
    }

    /// What the answer to that says, if it says anything.
    pub fn read_health(&self, status: u16, body: &[u8]) -> Option<Report> {
        match &self.settings.protocol {
            Protocol::Contest => processor::read_health(status, body),
            Protocol::Described(described, _) => described.read_health(status, body),
        }
    }
}

/// All connectors of a moment. See the module.
pub struct Connectors {
    /// In the order of the settings.
    order: Vec<Processor>,
    by_number: Each<Option<Arc<Connector>>>,
    /// What each takes. Of those that are retired nobody knows.
    pub fees: Each<Option<FeeSchedule>>,
    /// What each takes, and for how much.
    pub offers: Offers,
}

impl Connectors {
    /// Begins to look up where they are. `names` has the name of each; so many files may be open for
    /// connections to them.
    pub fn new(all: &[Settings], names: &Names, files: usize) -> Connectors {
        Connectors::with(all, names, files, |_, settings| Arc::new(Connector::new(settings)))
    }

    fn with(
        all: &[Settings],
        names: &Names,
        files: usize,
        connect: impl Fn(Processor, Settings) -> Arc<Connector>,
    ) -> Connectors {
        let (mut order, mut by_number) = (Vec::new(), Each::default());
        for settings in all {
            let Some(processor) = names.by_name(&settings.name) else { continue };
            order.push(processor);
            by_number[processor.index()] = Some(connect(processor, settings.clone()));
        }
        let most = files::most_at_once(files, &files::concurrency_of(all));
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let terms = |it: &Option<Arc<Connector>>| {
            let Settings { fee, limits, .. } = it.as_ref()?.settings;
            let concurrency = limits.concurrency.min(most);
            Some(Terms { fee, limits: Limits { concurrency, ..limits } })
        };
        let terms = by_number.each_ref().map(terms);
        let fees = terms.map(|it| it.map(|it| it.fee));
        Connectors { order, by_number, fees, offers: Offers::new(terms) }
    }

    /// Whether there is a processor that takes any amount.
    fn take_every_amount(&self) -> bool {
        let bounds = |it: &Connector| (it.settings.limits.smallest, it.settings.limits.largest);
        self.iter().any(|(_, it)| bounds(it) == (None, None))
    }

    /// All that payments may go to, in the order of the settings.
    pub fn order(&self) -> &[Processor] {
        &self.order
    }

    /// `None` for one that is retired.
    pub fn get(&self, processor: Processor) -> Option<&Arc<Connector>> {
        self.by_number[processor.index()].as_ref()
    }

    /// All of them, in the order of the settings.
    pub fn iter(&self) -> impl Iterator<Item = (Processor, &Arc<Connector>)> {
        self.order.iter().filter_map(|it| Some((*it, self.get(*it)?)))
    }
}

/// The connectors that count now, for all threads.
pub struct Switchboard {
    current: RwLock<Arc<Connectors>>,
    /// Counts how often they were replaced.
    generation: AtomicU64,
    /// Looked at for every payment.
    take_every_amount: AtomicBool,
    /// Held while others are made, so that those that were made last count.
    replacing: Mutex<()>,
}

/// At most one open connection to a processor, as the connectors have it.
pub struct Channel {
    pub connector: Arc<Connector>,
    pub link: Link,
    generation: u64,
}

impl Switchboard {
    pub fn new(connectors: Connectors) -> Switchboard {
        let (generation, replacing) = (AtomicU64::new(0), Mutex::default());
        let take_every_amount = AtomicBool::new(connectors.take_every_amount());
        let current = RwLock::new(Arc::new(connectors));
        Switchboard { current, generation, take_every_amount, replacing }
    }

    /// Takes these in place of what counts now, and says which have changed. Whatever was asked before is
    /// still answered to those that asked it.
    ///
    /// # Errors
    /// Why not, in one line.
    pub fn take_over(
        &self,
        settings: &[Settings],
        names: &Names,
        files: usize,
        is_paired: bool,
    ) -> Result<String, String> {
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.current();
        if let Some(why) = refusal(&old, settings, names, is_paired) {
            return Err(why);
        }
        let replaced = |processor, settings: Settings| match old.get(processor) {
            Some(it) => it.replaced(settings),
            None => Arc::new(Connector::new(settings)),
        };
        let new = Connectors::with(settings, names, files, replaced);
        let is_other = |(which, it): &(Processor, &Arc<Connector>)| {
            old.get(*which).is_none_or(|old| !Arc::ptr_eq(old, it))
        };
        let changed = new.iter().filter(is_other).map(|(_, it)| it.settings.name.clone());
        let said = match &changed.collect::<Vec<_>>()[..] {
            [] => "nothing has changed".into(),
            changed => format!("{} from now on as it says", changed.join(", ")),
        };
        self.take_every_amount.store(new.take_every_amount(), Ordering::Relaxed);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        self.generation.fetch_add(1, Ordering::Release);
        Ok(said)
    }

    /// Whether any processor takes a payment of this amount.
    pub fn takes(&self, amount: Cents) -> bool {
        self.take_every_amount.load(Ordering::Relaxed)
            || self.current().offers.cheapest(amount).is_some()
    }

    /// Is another one after each time that they were replaced. What counts now is at least as new.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub fn current(&self) -> Arc<Connectors> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A connection that is not open yet. `None` to one that is retired.
    pub fn channel(&self, processor: Processor) -> Option<Channel> {
        // Read first: what is replaced behind it is seen next time.
        let generation = self.generation();
        let connector = self.current().get(processor)?.clone();
        let link = Link::new(connector.target.clone());
        Some(Channel { connector, link, generation })
    }

    /// Brings a channel up to date: to be done before each question. One whose connector was replaced is
    /// closed.
    pub fn refresh(&self, processor: Processor, channel: &mut Channel) {
        if self.generation() != channel.generation
            && let Some(fresh) = self.channel(processor)
        {
            match Arc::ptr_eq(&fresh.connector, &channel.connector) {
                true => channel.generation = fresh.generation,
                false => *channel = fresh,
            }
        }
    }
}
