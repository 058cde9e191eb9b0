//! Bodies of transactions in, answers and statements out: the two readers agree, and what is written
//! is JSON that says the same.

#![no_main]

use galo::base::clock::Micros;
use galo::base::money::Cents;
use galo::ledger::{Description, History, Kind, NEWEST_MAX, Transaction, contract};
use galo_fuzz::{Source, fuzz_target};

#[derive(serde::Deserialize)]
struct Fields {
    valor: i64,
    tipo: String,
    descricao: String,
}

#[derive(serde::Deserialize)]
struct Statement {
    saldo: Balance,
    ultimas_transacoes: Vec<Fields>,
}

#[derive(serde::Deserialize)]
struct Balance {
    total: i64,
    limite: i64,
}

fuzz_target!(|body: &[u8]| {
    let read = contract::read(body);
    if let Ok(transaction) = read {
        let theirs: Fields = serde_json::from_slice(body).expect("JSON with three fields");
        assert_eq!(meaning(&theirs), Some(transaction));
        check(&transaction);
        for cut in 0..body.trim_ascii_end().len() {
            assert!(contract::read(&body[..cut]).is_err(), "cut at {cut}");
        }
        let rest = body.trim_ascii_start().strip_prefix(b"{").expect("an object");
        assert_eq!(contract::read(&[b"{\"other\":[],", rest].concat()), read);
    }
    let mut source = Source::new(body);
    let mut history = History::default();
    let (limit, now) = (Cents(source.i64()), Micros(source.i64()));
    let mut newest = Vec::new();
    while !source.is_empty() && newest.len() < 12 {
        let transaction = source.transaction();
        check(&transaction);
        let Some(balance) = history.balance_after(&transaction) else { break };
        let entry = galo::ledger::Entry {
            account: galo::ledger::AccountId(1),
            sequence: history.sequence + 1,
            transaction,
            balance,
            at: history.next_at(Micros(source.i64())),
            key: galo::ledger::Key::NONE,
        };
        history.apply(&entry).expect("the next entry");
        newest.insert(0, transaction);
    }
    newest.truncate(NEWEST_MAX);
    let mut out = Vec::new();
    contract::write_statement(&mut out, limit, &history, now);
    let statement: Statement = serde_json::from_slice(&out).expect("a statement");
    assert_eq!((statement.saldo.total, statement.saldo.limite), (history.balance.0, limit.0));
    let said: Vec<_> = statement.ultimas_transacoes.iter().filter_map(meaning).collect();
    assert_eq!(said, newest);
});

fn meaning(fields: &Fields) -> Option<Transaction> {
    let kind = match &fields.tipo[..] {
        "c" => Kind::Credit,
        "d" => Kind::Debit,
        _ => return None,
    };
    let description = Description::new(&fields.descricao)?;
    (fields.valor > 0).then_some(Transaction { kind, value: Cents(fields.valor), description })
}

fn check(transaction: &Transaction) {
    let count = transaction.description.as_str().chars().count();
    assert!((1..=10).contains(&count) && transaction.value > Cents(0));
    let mut out = Vec::new();
    contract::write_transaction(&mut out, transaction);
    assert_eq!(contract::read(&out), Ok(*transaction));
}
