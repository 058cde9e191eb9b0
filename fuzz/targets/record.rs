//! Records of the journal: what is written is read, at that very place and nowhere else; whatever
//! else is there is never taken for a record.

#![no_main]

use galo::journal::record::{Decoded, RESOLVED_BYTES_MAX, Record, Seed};
use galo::payments::event::Event;
use galo::payments::names::Names;
use galo_fuzz::records::{Accounts, sealed};
use galo_fuzz::{Source, fuzz_target};

fuzz_target!(|data: &[u8]| {
    let mut source = Source::new(data);
    let segment = 1 + source.below(3) as u32;
    let offset = 8 * source.below(64);
    let mode = source.below(3);
    let names = source.names();
    let of = Of { segment, names: &names };
    match mode {
        0 => check_written(of, offset, &mut source),
        1 => {
            let (kind, detail) = (source.u8() % 70, source.u8());
            let bytes = sealed(segment, offset, kind, detail, source.bytes(1024));
            check_intact(of, offset, &bytes);
        }
        // What the rest of the input says by itself.
        _ => {
            let bytes = source.rest();
            for offset in 0..=bytes.len() {
                if let Decoded::Record { record, length } = Record::decode(of.seed(), bytes, offset)
                {
                    check_record(of, &record, offset, &bytes[offset..offset + length]);
                }
            }
        }
    }
});

/// A segment, and the table it is written under.
#[derive(Clone, Copy)]
struct Of<'a> {
    segment: u32,
    names: &'a Names,
}

impl Of<'_> {
    fn seed(self) -> Seed {
        Seed::of_segment(self.segment, self.names.count() as u8)
    }
}

/// At this offset of a segment, of which nothing else matters.
fn decode(of: Of, offset: usize, bytes: &[u8]) -> Decoded {
    let all = [&vec![0xee; offset][..], bytes].concat();
    Record::decode(of.seed(), &all, offset)
}

fn check_written(of: Of, offset: usize, source: &mut Source) {
    let record = source.record(&mut Accounts::new(), of.names.count());
    let mut bytes = Vec::new();
    record.encode(of.seed(), offset, &mut bytes);
    let length = bytes.len();
    assert_eq!(length, record.length(of.seed()));
    assert!((8..=RESOLVED_BYTES_MAX).contains(&length) && length.is_multiple_of(8));
    assert_eq!(decode(of, offset, &bytes), Decoded::Record { record, length });
    // Elsewhere, cut off, or with any bit turned it is none.
    let next = Of { segment: of.segment + 1, ..of };
    for (of, offset) in [(next, offset), (of, offset + 8)] {
        assert!(matches!(decode(of, offset, &bytes), Decoded::Bad(_)));
    }
    let cut = source.below(length);
    let part = decode(of, offset, &bytes[..cut]);
    assert!(matches!(part, Decoded::Bad(_)) || (part == Decoded::Blank && cut < 8), "{part:?}");
    let bit = source.below(256) % (8 * length);
    bytes[bit / 8] ^= 1 << (bit % 8);
    assert!(matches!(decode(of, offset, &bytes), Decoded::Bad(_)), "bit {bit}");
}

fn check_intact(of: Of, offset: usize, bytes: &[u8]) {
    match decode(of, offset, bytes) {
        Decoded::Record { record, length } => {
            assert_eq!(length, bytes.len());
            check_record(of, &record, offset, bytes);
        }
        Decoded::UnknownKind { length, .. } => assert_eq!(length, bytes.len()),
        other => panic!("{other:?} of a record that is intact"),
    }
}

/// It is what it is read as, and can be shown on a line.
fn check_record(of: Of, record: &Record, offset: usize, bytes: &[u8]) {
    let mut again = Vec::new();
    record.encode(of.seed(), offset, &mut again);
    // One with fewer statuses than there are names is read, and written with all.
    let is_rejected = matches!(record, Record::Event(Event::Rejected(_)));
    assert!(again.len() == bytes.len() || is_rejected && again.len() > bytes.len());
    let length = again.len();
    assert_eq!(decode(of, offset, &again), Decoded::Record { record: record.clone(), length });
    assert!(!record.show(of.names).to_string().contains(['\n', '\r']));
}
