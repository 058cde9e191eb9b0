//! Whatever is found by its name: it has one name, and nothing else is taken for it.

#![no_main]

use galo::journal::head::Kind;
use galo::ledger::AccountId;
use galo::payments::names::Names;
use galo::payments::{Accepted, PaymentId};
use galo_fuzz::{Source, fuzz_target};

fuzz_target!(|data: &[u8]| {
    if let Some(id) = PaymentId::parse(data) {
        assert_eq!(data.len(), 36);
        assert_eq!(id.text().to_vec(), data.to_ascii_lowercase());
        assert_eq!(id.to_string().as_bytes(), id.text());
        assert_eq!(PaymentId::parse(&data.to_ascii_uppercase()), Some(id));
    }
    if let Some(id) = AccountId::parse(data) {
        assert!(id.0 > 0);
        assert_eq!(id.0.to_string().as_bytes(), data);
    }
    if let Ok(name) = str::from_utf8(data) {
        if let Some((kind, number)) = Kind::of_file_name(name) {
            assert_eq!(kind.file_name(number), name);
        }
        let contest = Names::contest();
        if let Some(which) = contest.by_name(name) {
            assert_eq!(contest.name_of(which), name);
        }
        if let Some(table) = Names::new(name.split(' ').map(str::to_owned).collect()) {
            for (which, name) in table.iter() {
                assert_eq!((table.by_name(name), table.name_of(which)), (Some(which), name));
            }
        }
        if let Some(accepted) = Accepted::by_name(name) {
            assert_eq!(accepted.name(), name);
        }
    }
    let mut source = Source::new(data);
    let (id, number) = (source.id(), source.u64());
    assert_eq!(PaymentId::parse(&id.text()), Some(id));
    let account = AccountId(number.max(1));
    assert_eq!(AccountId::parse(account.0.to_string().as_bytes()), Some(account));
    for kind in [Kind::Segment, Kind::Books, Kind::Ids, Kind::Accounts] {
        let name = kind.file_name(number as u32);
        assert_eq!(Kind::of_file_name(&name), Some((kind, number as u32)));
    }
});
