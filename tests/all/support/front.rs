//! The API with idempotency keys (docs/processors.md) in front of a simulated processor, whose books,
//! faults and scripts are then those of a processor of that API: what it answers in good order is
//! said in the words of that API, what it answers besides is passed on, and what it does not answer
//! is not answered.

use super::{Answer, Client, request};
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// See the module. A connection ends with its client, or with the processor behind it.
pub struct Front {
    pub address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl Front {
    pub fn start(processor: SocketAddr) -> Front {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let is_over = Arc::new(AtomicBool::new(false));
        let front = Front { address, is_over: is_over.clone() };
        thread::spawn(move || {
            let mut clients = listener.incoming().flatten();
            while let Some(client) = clients.next()
                && !is_over.load(Ordering::Relaxed)
            {
                // However it ends, there is nobody left to tell.
                thread::spawn(move || _ = converse(&client, processor));
            }
        });
        front
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // So that it is seen.
        let _ = TcpStream::connect(self.address);
    }
}

/// Until either side ends it.
fn converse(client: &TcpStream, processor: SocketAddr) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut reader = BufReader::new(client);
    let mut inner = Client::try_connect(processor)?;
    loop {
        let asked = Asked::read(&mut reader)?;
        let Answer { status, headers, body } = asked.answer(&mut inner)?;
        let retry_after = headers.iter().find(|(name, _)| name == "retry-after");
        let retry_after =
            retry_after.map(|(_, value)| format!("Retry-After: {value}\r\n")).unwrap_or_default();
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status} X\r\n{retry_after}Content-Length: {length}\r\n\r\n{body}");
        (&*client).write_all(answer.as_bytes())?;
    }
}

/// A request.
struct Asked {
    method: String,
    target: String,
    key: String,
    body: Vec<u8>,
}

impl Asked {
    fn read(reader: &mut BufReader<&TcpStream>) -> io::Result<Asked> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            match line.strip_suffix("\r\n") {
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some("") => break,
                Some(line) => lines.push(line.to_owned()),
            }
        }
        let header = |name: &str| lines.iter().find_map(|it| it.strip_prefix(name));
        let length = header("Content-Length: ").map_or(Ok(0), str::parse);
        let mut body = vec![0; length.map_err(io::Error::other)?];
        reader.read_exact(&mut body)?;
        let key = header("Idempotency-Key: ").unwrap_or_default().to_owned();
        let mut words = lines.first().into_iter().flat_map(|it| it.split(' ').map(str::to_owned));
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        Ok(Asked { method, target, key, body })
    }

    fn answer(&self, inner: &mut Client) -> io::Result<Answer> {
        match (&self.method[..], &self.target[..]) {
            ("POST", "/payments") => self.pay(inner),
            ("GET", "/health") => health(inner),
            ("GET", target) if target.starts_with("/payments/") => look(inner, target),
            _ => Ok(answer(405, "")),
        }
    }

    fn pay(&self, inner: &mut Client) -> io::Result<Answer> {
        let read = || {
            let document: Value = serde_json::from_slice(&self.body).ok()?;
            let id = document["id"].as_str().filter(|id| *id == self.key)?;
            let at = document["requestedAt"].as_str()?;
            Some((id.to_owned(), document["amount"].as_u64()?, at.to_owned()))
        };
        let Some((id, cents, at)) = read() else { return Ok(answer(405, "")) };
        let amount = super::system::decimal(cents.into());
        let body = format!(r#"{{"correlationId":"{id}","amount":{amount},"requestedAt":"{at}"}}"#);
        let said = inner.try_call(request("POST", "/payments", JSON, &body))?;
        let says = |text: &str| said.body.contains(text);
        match said.status {
            200 if says("payment processed successfully") => Ok(booked(201, &id, cents, &at)),
            // What was booked under the key is told again, whoever asks.
            422 if says("CorrelationId already exists") => look(inner, &format!("/payments/{id}")),
            500 if said.body.is_empty() => Ok(answer(503, r#"{"status":"not-booked"}"#)),
            _ => Ok(said),
        }
    }
}

const JSON: &str = "content-type: application/json\r\n";

fn look(inner: &mut Client, target: &str) -> io::Result<Answer> {
    let said = inner.try_call(request("GET", target, "", ""))?;
    let read = || {
        let rest = said.body.strip_prefix(r#"{"correlationId":""#)?.strip_suffix(r#""}"#)?;
        let (id, rest) = rest.split_once(r#"","amount":"#)?;
        let (amount, at) = rest.split_once(r#","requestedAt":""#)?;
        let cents = super::system::cents(amount)?.try_into().ok()?;
        Some(booked(200, id, cents, &format!("{at}Z")))
    };
    Ok(read().unwrap_or(said))
}

fn health(inner: &mut Client) -> io::Result<Answer> {
    let said = inner.try_call(request("GET", "/payments/service-health", "", ""))?;
    let is_failing = said.body.starts_with(r#"{"failing":true"#);
    Ok(if is_failing { answer(503, "") } else { said })
}

fn booked(status: u16, id: &str, cents: u64, at: &str) -> Answer {
    let body = json!({"status": "booked", "id": id, "amount": cents, "requestedAt": at});
    answer(status, &body.to_string())
}

fn answer(status: u16, body: &str) -> Answer {
    Answer { status, headers: Vec::new(), body: body.into() }
}
