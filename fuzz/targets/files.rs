//! The other files of a journal: books, ids, accounts and the identity. Each is used whole, as it was
//! written, or refused in one line that names it.

#![no_main]

use galo::base::clock::{Micros, Timestamp};
use galo::base::instance::Instance;
use galo::base::money::Cents;
use galo::journal::JournalError;
use galo::journal::accounts::{States, rewrite};
use galo::journal::books::{self, Remains};
use galo::journal::head::{self, Kind};
use galo::journal::identity::{Identity, Owner, Place, Table};
use galo::journal::names::Reference;
use galo::journal::volume::Volume;
use galo::payments::names::Names;
use galo::payments::{Attempts, Each, Line, Settlement, Totals, Window};
use galo_fuzz::records::Accounts;
use galo_fuzz::{Source, fuzz_target};

const NUMBER: u32 = 7;

fuzz_target!(|data: &[u8]| {
    let mut source = Source::new(data);
    match source.below(4) {
        0 => check_books(&mut source),
        1 => check_accounts(&mut source),
        2 => check_identity(&mut source),
        _ => check_anything(&mut source),
    }
});

fn check_books(source: &mut Source) {
    let mut remains =
        Remains { stands_alone: source.bool(), has_accounts: source.bool(), ..Remains::default() };
    let names = source.names();
    let mut expected = Each::<Totals>::default();
    let window = Window { from: Some(Timestamp(source.i64())), to: Some(Timestamp(source.i64())) };
    while !source.is_empty() {
        let processor = source.processor_of(names.count());
        let (requested_at, amount) = (Timestamp(source.i64()), Cents(source.i64()));
        let settlement = Settlement { processor, amount, requested_at };
        let id = source.id();
        remains.settled.push(Line { id: Some(id), settlement, attempts: Attempts(source.u8()) });
        if window.from <= Some(requested_at) && Some(requested_at) <= window.to {
            expected[processor.index()].count += 1;
            expected[processor.index()].amount.0 += i128::from(amount.0);
        }
        remains.ids.push((id, amount));
    }
    remains.sort();
    let bytes = remains.encode(NUMBER, Reference::to(&names));
    let volume = Volume::of_bytes(NUMBER, bytes.clone(), &names).expect("a volume");
    volume.check().expect("a whole volume");
    assert!(volume.lines().map(|it| it.expect("a line")).eq(remains.settled.iter().copied()));
    assert_eq!(volume.totals(window).expect("totals"), expected);
    for (id, _) in &remains.ids {
        let found = volume.find(*id).expect("places").expect("a line");
        assert!(found.id == Some(*id) && remains.settled.contains(&found));
    }
    let flags = books::flags(NUMBER, &bytes).expect("flags");
    assert_eq!(
        (flags.stands_alone, flags.has_accounts),
        (remains.stands_alone, remains.has_accounts)
    );
    let ids = remains.encode_ids(NUMBER);
    assert_eq!(books::ids(NUMBER, &ids).expect("ids").collect::<Vec<_>>(), remains.ids);
    assert_eq!(books::count_of_ids(NUMBER, &ids).expect("a head"), remains.ids.len());
    let place = source.below(256);
    refuse_damage(&bytes, place, Kind::Books, |it| books::check(NUMBER, it, &names).map(drop));
    refuse_damage(&ids, place, Kind::Ids, |it| books::ids(NUMBER, it).map(drop));
}

fn check_accounts(source: &mut Source) {
    let (mut accounts, mut files) = (Accounts::new(), vec![None::<Vec<u8>>]);
    for _ in 0..2 {
        let count = source.below(16);
        let mut entries = Vec::new();
        for at in 0..count {
            let before = accounts.clone();
            let entry = source.entry(&mut accounts);
            // Only what follows: another one refuses the file.
            match before.get(&entry.account).map_or(0, |it| it.sequence) + 1 == entry.sequence
                && accounts[&entry.account].sequence == entry.sequence
            {
                true => entries.push((at, entry)),
                false => accounts = before,
            }
        }
        let before = files.last().and_then(Option::as_deref);
        let states = before.map(|it| States::new(NUMBER, it).expect("the file before"));
        let file = rewrite(NUMBER, states, &mut entries).expect("entries that follow");
        files.push(Some(file));
    }
    accounts.retain(|_, history| history.sequence > 0);
    let file = files.pop().flatten().expect("two were made");
    let read = States::new(NUMBER, &file).and_then(States::collect).expect("accounts");
    assert_eq!(read.len(), accounts.len());
    assert!(read.iter().all(|(id, history)| accounts.get(id) == Some(history)));
    let place = source.below(256);
    refuse_damage(&file, place, Kind::Accounts, |it| {
        States::new(NUMBER, it).and_then(States::collect).map(drop)
    });
}

fn check_identity(source: &mut Source) {
    let mut line = || source.text(64).replace(['\n', '\r'], " ");
    let processors = (0..8).map(|it| (format!("p{it}"), line())).collect::<Vec<_>>();
    let processors = processors[..1 + source.below(8)].to_vec();
    let processors = Table::new(processors).expect("a table");
    let are_of_file = false;
    let id = u128::from(source.u64()) << 64 | u128::from(source.u64());
    let owner = Owner {
        instance: Instance(source.u8()),
        is_paired: source.bool(),
        processors,
        are_of_file,
        terms: None,
    };
    let identity = Identity {
        place: Place { file: source.u64(), directory: source.u64(), made_at: Micros(source.i64()) },
        copied_at: source.bool().then(|| Timestamp(source.i64())),
        ..Identity::new(id, owner)
    };
    let text = identity.encode();
    assert_eq!(Identity::decode(text.as_bytes()).expect("an identity"), identity);
    let mut bytes = text.into_bytes();
    let place = source.below(256) % bytes.len();
    assert!(Identity::decode(&bytes[..place]).is_err());
    bytes[place] ^= 1 << source.below(8);
    assert!(Identity::decode(&bytes).is_err());
    // Whatever is in the lines, with a checksum that is right.
    let lines = source.bytes(512);
    let sealed = [lines, format!("crc={:08x}\n", crc32c::crc32c(lines)).as_bytes()].concat();
    if let Ok(read) = Identity::decode(&sealed) {
        // One of before the table of names is written anew.
        let anew = read.clone().of_owner(read.owner.clone());
        assert_eq!(Identity::decode(read.encode().as_bytes()).expect("an identity"), anew.unwrap());
    }
}

/// Files with a head and a checksum that are right, and whatever in them.
fn check_anything(source: &mut Source) {
    let kind = [Kind::Books, Kind::Ids, Kind::Accounts][source.below(3)];
    let counts = [source.i64(), source.i64()];
    let flags = source.u8();
    let body = source.bytes(4096);
    let mut own = [0; head::OWN_BYTES];
    own[0] = flags;
    own[4..8].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    own[8..16].copy_from_slice(&counts[0].to_le_bytes());
    own[16..24].copy_from_slice(&counts[1].to_le_bytes());
    let names = source.names();
    let written_under = if source.u8() < 200 { &names } else { &Names::contest() };
    let reference = Reference::to(written_under);
    let mut file = [&head::encode(kind, NUMBER, own, reference), body].concat();
    if kind == Kind::Books && source.bool() {
        head::set_version(&mut file, 2);
    }
    let result = match kind {
        Kind::Books => books::check(NUMBER, &file, &names).map(|it| it.settled.iter().sum()),
        Kind::Ids => books::ids(NUMBER, &file).map(|it| it.count() as u64),
        _ => States::new(NUMBER, &file).and_then(States::collect).map(|it| it.len() as u64),
    };
    let is_abridged =
        kind == Kind::Books && books::flags(NUMBER, &file).is_ok_and(|it| it.is_abridged);
    match result {
        // Of many payments there are the sums alone.
        Ok(_) if is_abridged => {}
        Ok(count) => assert!(count <= body.len() as u64 / 16, "{count} in {} bytes", body.len()),
        Err(error) => check_named(&error, kind),
    }
}

fn refuse_damage(
    bytes: &[u8],
    place: usize,
    kind: Kind,
    mut read: impl FnMut(&[u8]) -> Result<(), JournalError>,
) {
    let mut damaged = bytes.to_vec();
    let place = place * 7 % damaged.len();
    damaged[place] ^= 0x10;
    check_named(&read(&damaged).expect_err("a flipped bit"), kind);
    check_named(&read(&bytes[..place]).expect_err("a part of a file"), kind);
}

fn check_named(error: &JournalError, kind: Kind) {
    let line = error.to_string();
    assert!(line.contains(&kind.file_name(NUMBER)) && !line.contains('\n'), "{line}");
}
