//! The ledger as its clients see it: requests as bytes, and its answers read strictly.
//!
//! What is read here is read by another JSON reader than the one under test.

use super::system::{Instance, free_address, pair};
use super::{Answer, Client, PATIENCE, request, wait_until_within};
use serde::Deserialize;
use serde_json::json;

/// `POST /clientes/ID/transacoes` with this body.
pub fn post(id: impl std::fmt::Display, body: &str) -> String {
    let target = format!("/clientes/{id}/transacoes");
    request("POST", &target, "content-type: application/json\r\n", body)
}

/// `GET /clientes/ID/extrato`
pub fn get(id: impl std::fmt::Display) -> String {
    request("GET", &format!("/clientes/{id}/extrato"), "", "")
}

/// The body of a transaction: a credit of so many cents, or a debit if it is negative.
pub fn body(change: i64, description: &str) -> String {
    let kind = if change > 0 { "c" } else { "d" };
    json!({ "valor": change.unsigned_abs(), "tipo": kind, "descricao": description }).to_string()
}

/// What a transaction that was carried out is answered.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Balance {
    pub limite: i64,
    pub saldo: i64,
}

impl Balance {
    /// Reads the answer strictly; it must be one of 200.
    pub fn read(answer: &Answer) -> Balance {
        read(answer)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    saldo: DocumentBalance,
    ultimas_transacoes: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentBalance {
    total: i64,
    data_extrato: String,
    limite: i64,
}

/// A line of a statement.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub valor: i64,
    pub tipo: String,
    pub descricao: String,
    pub realizada_em: String,
}

impl Entry {
    /// The change of the balance, and the description.
    pub fn change(&self) -> (i64, String) {
        let sign = if self.tipo == "c" { 1 } else { -1 };
        (sign * self.valor, self.descricao.clone())
    }
}

/// A statement, but for the time it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub total: i64,
    pub limit: i64,
    /// The newest first.
    pub newest: Vec<Entry>,
}

impl Statement {
    /// Reads the answer strictly; it must be one of 200. What every statement must be is asserted:
    /// at most ten entries with positive amounts, each dated after the next, none in the future.
    pub fn read(answer: &Answer) -> Statement {
        let Document { saldo, ultimas_transacoes: newest } = read(answer);
        assert!(newest.len() <= 10, "{answer:?}");
        assert!(saldo.total >= -saldo.limite, "below the limit: {answer:?}");
        for entry in &newest {
            assert!(entry.valor > 0 && matches!(&*entry.tipo, "c" | "d"), "{answer:?}");
        }
        let times = newest.iter().map(|entry| &entry.realizada_em);
        let times: Vec<i128> = [&saldo.data_extrato].into_iter().chain(times).map(time).collect();
        let falls = |pair: &[i128]| pair[0] > pair[1];
        assert!(times[1..].windows(2).all(falls), "two at the same time: {answer:?}");
        assert!(times.is_sorted_by(|one, next| one >= next), "not by time: {answer:?}");
        Statement { total: saldo.total, limit: saldo.limite, newest }
    }

    /// The changes and descriptions, the newest first.
    pub fn changes(&self) -> Vec<(i64, String)> {
        self.newest.iter().map(Entry::change).collect()
    }
}

fn read<T: for<'a> Deserialize<'a>>(answer: &Answer) -> T {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

/// The one form of time there is: `2024-01-17T02:34:41.217753Z`.
fn time(text: &String) -> i128 {
    let template: String =
        text.chars().map(|it| if it.is_ascii_digit() { '0' } else { it }).collect();
    assert_eq!(template, "0000-00-00T00:00:00.000000Z", "{text}");
    text.parse::<jiff::Timestamp>().expect("a time").as_nanosecond()
}

/// Both instances and a connection to each. Accounts with an even id are the first one's.
pub struct Bank {
    pub instances: [Instance; 2],
    pub clients: [Client; 2],
}

impl Bank {
    /// Two instances that know each other, without processors: nobody pays here.
    pub fn open(args: &[&str]) -> Bank {
        let instances = pair([free_address(), free_address()], args);
        let clients = instances.each_ref().map(Instance::client);
        Bank { instances, clients }
    }

    /// Connects again, as to instances that were started again.
    pub fn reconnect(&mut self) {
        self.clients = self.instances.each_ref().map(Instance::client);
    }

    /// Sends to this instance.
    pub fn call(&mut self, at: usize, request: impl AsRef<[u8]>) -> Answer {
        self.clients[at].call(request)
    }

    pub fn post(&mut self, at: usize, id: u64, body: &str) -> Answer {
        self.call(at, post(id, body))
    }

    /// A transaction that must be carried out → the balance after it.
    pub fn change(&mut self, at: usize, id: u64, change: i64, description: &str) -> i64 {
        Balance::read(&self.post(at, id, &body(change, description))).saldo
    }

    /// A statement, which must be given.
    pub fn look(&mut self, at: usize, id: u64) -> Statement {
        Statement::read(&self.call(at, get(id)))
    }

    /// A statement, which must be the same at both.
    pub fn look_at_both(&mut self, id: u64) -> Statement {
        let [one, other] = [0, 1].map(|at| self.look(at, id));
        assert_eq!(one, other, "account {id}");
        one
    }
}

/// Waits until an instance gives this account's statement.
pub fn wait_for_statement(instance: &Instance, id: u64) -> Statement {
    wait_until_within(PATIENCE, "a statement is given", || {
        let answer = instance.client().call(get(id));
        if answer.status == 200 { Ok(Statement::read(&answer)) } else { Err(answer.body) }
    })
}

/// Waits until an instance carries this transaction out → the balance. Until then it must say that it
/// has not: an owner that was started again may be looked at before it is known enough to be written to.
pub fn wait_for_change(instance: &Instance, id: u64, change: i64, description: &str) -> i64 {
    wait_until_within(PATIENCE, "a transaction is carried out", || {
        let answer = instance.client().call(post(id, &body(change, description)));
        if answer.status == 503 { Err(answer.body) } else { Ok(Balance::read(&answer).saldo) }
    })
}
