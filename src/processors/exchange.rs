//! The questions a processor is asked, and what its answers mean: read from a file, or built in.

use super::answers::{Meaning, Rule};
use super::headers::{self, Content, Header};
use super::outside::Outside;
use super::request::{Parts, Request};
use super::rules::{self, Author, Question};
use super::table::Table;
use super::template::{Place, Template};

/// A path with its query, in bytes, before its places are filled.
const PATH_BYTES_MAX: usize = 1_024;
/// A body, before its places are filled.
const BODY_BYTES_MAX: usize = 8_192;

/// A question, and what its answers mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    pub request: Request,
    pub rules: Vec<Rule>,
}

/// What a processor does with a request for a payment that it has booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeated {
    /// It answers as it did before: a booking in its answer may be somebody else's.
    Replayed,
    /// It refuses it: a booking in its answer is the one that was asked for.
    Refused,
}

/// All that a processor is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchanges {
    pub pay: Exchange,
    pub look: Exchange,
    pub health: Option<Exchange>,
    pub repeated: Repeated,
    /// Of any of the requests: its name, and where its value comes from.
    pub secrets: Vec<(String, String)>,
}

impl Exchanges {
    /// Whether every booking shows its time, or is certainly ours. Without that nobody can tell which
    /// of two instances has made it.
    pub fn tell_whose(&self) -> bool {
        let show_time = |it: &Exchange| {
            let mut booked = it.rules.iter().filter(|rule| rule.meaning == Meaning::Booked);
            booked.all(|rule| rule.proof.time.is_some())
        };
        show_time(&self.look) && (self.repeated == Repeated::Refused || show_time(&self.pay))
    }

    /// Whether every look that finds a booking shows its amount.
    pub fn check_amounts(&self) -> bool {
        let mut booked = self.look.rules.iter().filter(|it| it.meaning == Meaning::Booked);
        booked.all(|rule| rule.proof.amount.is_some())
    }
}

/// What all requests to a processor have in common.
pub struct Common<'a> {
    pub prefix: &'a str,
    pub headers: Vec<Header>,
    pub author: Author,
    pub outside: &'a dyn Outside,
}

/// The tables `pay`, `look` and `health`. `None` if a fault was told.
pub fn read(table: &mut Table<'_>, common: &Common<'_>) -> Option<Exchanges> {
    let (pay, look) = (table.need_table("pay"), table.need_table("look"));
    let health = table.table("health");
    let mut secrets = Vec::new();
    let paid = pay.and_then(|pay| read_pay(pay, common, &mut secrets));
    let look = look.and_then(|look| read_asked(look, Question::Look, common, &mut secrets));
    let health = health.map(|it| read_asked(it, Question::Health, common, &mut secrets));
    secrets.sort();
    secrets.dedup();
    let (pay, repeated) = paid?;
    let health = match health {
        Some(health) => Some(health?),
        None => None,
    };
    Some(Exchanges { pay, look: look?, health, repeated, secrets })
}

type Named = Vec<(String, String)>;

fn read_pay(
    mut table: Table<'_>,
    common: &Common<'_>,
    secrets: &mut Named,
) -> Option<(Exchange, Repeated)> {
    let (at, faults) = (table.at, table.faults());
    let method = read_method(&mut table);
    let path = read_path(&mut table, common, &Place::ALL);
    let headers = read_headers(&mut table, common, &[Place::Id, Place::RequestedAt], secrets);
    let body = read_body(&mut table);
    let repeated = read_repeated(&mut table);
    let rules = rules::read(&mut table, Question::Pay, common.author);
    table.end();
    let (path, (content_type, body)) = (path?, body?);
    let is_in_header =
        |it: &Header| matches!(&it.value, Content::Open(value) if value.has(Place::Id));
    if !path.has(Place::Id) && !body.has(Place::Id) && !headers.iter().any(is_in_header) {
        faults.add(at, "{id} is in neither path, body nor headers: what is paid must be named");
    }
    if !body.has(Place::Amount) && !body.has(Place::Cents) {
        faults.add(at, "the body has neither {amount} nor {cents}");
    }
    let body = Some((content_type.as_str(), body));
    let request = Request::new(Parts { method: method?, path: &path, headers: &headers, body });
    Some((Exchange { request, rules }, repeated?))
}

/// A look, or the health question.
fn read_asked(
    mut table: Table<'_>,
    question: Question,
    common: &Common<'_>,
    secrets: &mut Named,
) -> Option<Exchange> {
    let (at, faults) = (table.at, table.faults());
    let is_look = question == Question::Look;
    let allowed: &[Place] = if is_look { &[Place::Id] } else { &[] };
    let path = read_path(&mut table, common, allowed);
    let headers = read_headers(&mut table, common, allowed, secrets);
    let rules = rules::read(&mut table, question, common.author);
    table.end();
    let path = path?;
    if is_look && !path.has(Place::Id) {
        faults.add(at, "{id} is not in the path: which payment is asked for must be named");
    }
    let request = Request::new(Parts { method: "GET", path: &path, headers: &headers, body: None });
    Some(Exchange { request, rules })
}

fn read_method(table: &mut Table<'_>) -> Option<&'static str> {
    match table.text("method") {
        None => Some("POST"),
        Some(method) => {
            let known = ["POST", "PUT"].into_iter().find(|it| *it == method.text);
            if known.is_none() {
                table.faults().add(method.at, "`method` must be POST or PUT");
            }
            known
        }
    }
}

fn read_path(table: &mut Table<'_>, common: &Common<'_>, allowed: &[Place]) -> Option<Template> {
    let path = table.need_text("path")?;
    let refused = |reason: String| table.faults().add(path.at, reason);
    let whole = format!("{}{}", common.prefix, path.text);
    if whole.len() > PATH_BYTES_MAX {
        refused(format!("a path has {PATH_BYTES_MAX} bytes at most, with that of the URL"));
        return None;
    }
    // By itself first, or one without a slash would be glued to what it begins with.
    let read = Template::path(path.text, allowed).and_then(|_| Template::path(&whole, allowed));
    read.map_err(refused).ok()
}

fn read_headers(
    table: &mut Table<'_>,
    common: &Common<'_>,
    allowed: &[Place],
    secrets: &mut Named,
) -> Vec<Header> {
    let at = table.at;
    let own = table.table("headers");
    let mut headers = common.headers.clone();
    let own = headers::read(own, allowed, common.outside);
    for header in own {
        if headers.iter().any(|it| it.name.eq_ignore_ascii_case(&header.name)) {
            let reason = format!("the header {} stands in `headers` as well", header.name);
            table.faults().add(at, reason);
        }
        headers.push(header);
    }
    if headers.len() > headers::HEADERS_MAX {
        table.faults().add(at, format!("a request has more than {} headers", headers::HEADERS_MAX));
    }
    let secret = headers.iter().filter(|it| it.is_secret());
    secrets.extend(secret.map(|it| (it.name.clone(), it.source())));
    headers
}

/// With its type.
fn read_body(table: &mut Table<'_>) -> Option<(String, Template)> {
    let content_type = table.text("content-type");
    let body = table.need_text("body")?;
    let faults = table.faults();
    if body.text.len() > BODY_BYTES_MAX {
        faults.add(body.at, format!("a body has {BODY_BYTES_MAX} bytes at most"));
        return None;
    }
    let shown = content_type.map_or("application/json", |it| it.text);
    let template = match shown {
        "application/json" | "application/json; charset=utf-8" => Template::json(body.text),
        "application/x-www-form-urlencoded" => Template::form(body.text),
        _ => {
            let reason = "`content-type` must be application/json, or \
                application/x-www-form-urlencoded";
            faults.add(content_type?.at, reason);
            return None;
        }
    };
    let template = template.map_err(|reason| faults.add(body.at, reason)).ok()?;
    Some((shown.into(), template))
}

fn read_repeated(table: &mut Table<'_>) -> Option<Repeated> {
    match table.text("repeated") {
        None => Some(Repeated::Replayed),
        Some(it) if it.text == "replayed" => Some(Repeated::Replayed),
        Some(it) if it.text == "refused" => Some(Repeated::Refused),
        Some(it) => {
            table.faults().add(it.at, "`repeated` must be \"replayed\" or \"refused\"");
            None
        }
    }
}
