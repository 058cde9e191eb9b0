//! A client of the ledger: a transaction a second, what became of it, and what the accounts say.
//!
//! It is told of an account only what any client is. Each transaction is sent once: the ledger has
//! no id to know a second one by.

use super::client::{Call, Client};
use crate::base::json;
use crate::tools::text::{grouped, money};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

/// The accounts of the contest. Of those with an odd id the second instance is the home.
pub const ACCOUNTS: [u32; 5] = [1, 2, 3, 4, 5];

/// An account as the page shows it.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    pub id: u32,
    /// The instance that keeps it.
    pub home: u32,
    /// In cents; the balance is never below minus the limit.
    pub limit: i64,
    pub balance: i64,
    /// The newest first, ten at most.
    pub entries: Vec<Entry>,
    /// Why what is here may be old.
    pub trouble: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    #[serde(alias = "valor")]
    pub cents: i64,
    #[serde(alias = "tipo")]
    pub kind: String,
    #[serde(alias = "descricao")]
    pub text: String,
    #[serde(alias = "realizada_em")]
    pub at: String,
}

/// The ledger's words for a balance and a statement.
#[derive(Deserialize)]
struct Balance {
    #[serde(alias = "limite")]
    limit: i64,
    #[serde(alias = "saldo", alias = "total")]
    balance: i64,
}

#[derive(Deserialize)]
struct Statement {
    #[serde(rename = "saldo")]
    balance: Balance,
    #[serde(rename = "ultimas_transacoes")]
    entries: Vec<Entry>,
}

impl Account {
    fn read(id: u32, statement: &[u8]) -> Option<Account> {
        let Statement { balance: Balance { limit, balance }, entries } =
            json::read_object(statement).ok()?;
        Some(Account { id, home: home(id), limit, balance, entries, trouble: None })
    }
}

fn home(id: u32) -> u32 {
    if id.is_multiple_of(2) { 1 } else { 2 }
}

/// How the transactions of a till have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub done: u64,
    /// The limit did not allow it.
    pub refused: u64,
    /// The home was away: not done.
    pub turned_away: u64,
    /// No answer, or 504: done or not.
    pub unknown: u64,
}

/// See the module.
pub struct Till {
    entry: SocketAddr,
    client: Client,
    counts: Rc<Cell<Counts>>,
}

impl Till {
    /// `counts`: of several tills together.
    pub fn new(entry: SocketAddr, counts: Rc<Cell<Counts>>) -> Till {
        Till { entry, client: Client::new(entry), counts }
    }

    /// The next request goes over a new connection.
    pub fn reconnect(&mut self) {
        self.client = Client::new(self.entry);
    }

    /// A credit, or with cents below 0 a debit. In words what became of it.
    pub async fn transact(&mut self, id: u32, cents: i64, text: &str) -> String {
        let (kind, name) = if cents < 0 { ("d", "debit") } else { ("c", "credit") };
        let value = cents.unsigned_abs();
        let body = format!("{{\"valor\":{value},\"tipo\":\"{kind}\",\"descricao\":\"{text}\"}}");
        let path = format!("/clientes/{id}/transacoes");
        let reply = self.client.call(Call { method: "POST", path: &path, body: &body }).await;
        let status = reply.as_ref().map(|reply| reply.status);
        let mut counts = self.counts.get();
        *match status {
            Some(200) => &mut counts.done,
            Some(422) => &mut counts.refused,
            Some(503) => &mut counts.turned_away,
            _ => &mut counts.unknown,
        } += 1;
        self.counts.set(counts);
        let told = match (status, &reply) {
            (Some(200), Some(reply)) => {
                let balance = json::read_object::<Balance>(&reply.body);
                let balance = balance.map_or("?".into(), |it| money(it.balance.into()));
                format!("200, balance {balance}")
            }
            (Some(422), _) => "422, refused by its limit".into(),
            (Some(503), _) => "503, its home is away".into(),
            (Some(status), _) => format!("{status}"),
            (None, _) => "no answer".into(),
        };
        format!("{name} of {}: {told}", money(value.into()))
    }

    /// What an account says, or why it does not.
    ///
    /// # Errors
    /// In a few words.
    pub async fn look(&mut self, id: u32) -> Result<Account, String> {
        let path = format!("/clientes/{id}/extrato");
        let reply = self.client.call(Call { method: "GET", path: &path, body: "" }).await;
        match reply {
            Some(reply) if reply.status == 200 => {
                Account::read(id, &reply.body).ok_or_else(|| "an unclear statement".into())
            }
            Some(reply) if reply.status == 503 => {
                Err(format!("its home, instance {}, is away (503)", home(id)))
            }
            Some(reply) => Err(format!("status {}", reply.status)),
            None => Err("no answer".into()),
        }
    }
}

/// The accounts in lines for a terminal.
pub fn table(accounts: &[Account], counts: Counts) -> String {
    let mut text = format!("{:<12}{:>14}{:>18}{:>20}\n", "", "its home", "limit", "balance");
    for Account { id, home, limit, balance, .. } in accounts {
        let [limit, balance] = [limit, balance].map(|cents| money((*cents).into()));
        let (name, home) = (format!("account {id}"), format!("instance {home}"));
        text += &format!("{name:<12}{home:>14}{limit:>18}{balance:>20}\n");
    }
    let Counts { done, refused, turned_away, unknown } = counts;
    let [done, refused, turned_away, unknown] = [done, refused, turned_away, unknown].map(grouped);
    text += &format!(
        "{done} transactions done, {refused} refused, {turned_away} turned away, {unknown} unknown"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_read_and_told_in_80_columns() {
        let statement = concat!(
            r#"{"saldo":{"total":-123456,"data_extrato":"2024-01-17T02:36:40.217753Z","limite":100000000},"#,
            r#""ultimas_transacoes":[{"valor":3,"tipo":"d","descricao":"bread","realizada_em":"x"}]}"#
        );
        let account = Account::read(3, statement.as_bytes()).unwrap();
        assert_eq!((account.id, account.home, account.limit), (3, 2, 100_000_000));
        assert_eq!((account.balance, account.entries[0].cents), (-123_456, 3));
        let text = table(&[account], Counts { done: 1_000, ..Counts::default() });
        assert!(text.contains("1,000,000.00") && text.contains("-1,234.56"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(Account::read(3, b"{}").is_none());
    }
}
