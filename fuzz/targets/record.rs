//! Records of the journal: what is written is read, at that very place and nowhere else; whatever
//! else is there is never taken for a record.

#![no_main]

use galo::journal::record::{Decoded, RESOLVED_BYTES_MAX, Record, Seed};
use galo_fuzz::records::{Accounts, sealed};
use galo_fuzz::{Source, fuzz_target};

fuzz_target!(|data: &[u8]| {
    let mut source = Source::new(data);
    let segment = 1 + source.below(3) as u32;
    let offset = 8 * source.below(64);
    let mode = source.below(3);
    match mode {
        0 => check_written(segment, offset, &mut source),
        1 => {
            let (kind, detail) = (source.u8() % 70, source.u8());
            let bytes = sealed(segment, offset, kind, detail, source.bytes(1024));
            check_intact(segment, offset, &bytes);
        }
        // What the rest of the input says by itself.
        _ => {
            let bytes = source.rest();
            for offset in 0..=bytes.len() {
                if let Decoded::Record { record, length } =
                    Record::decode(Seed::of_segment(segment), bytes, offset)
                {
                    check_record(segment, &record, offset, &bytes[offset..offset + length]);
                }
            }
        }
    }
});

/// At this offset of a segment, of which nothing else matters.
fn decode(segment: u32, offset: usize, bytes: &[u8]) -> Decoded {
    let all = [&vec![0xee; offset][..], bytes].concat();
    Record::decode(Seed::of_segment(segment), &all, offset)
}

fn check_written(segment: u32, offset: usize, source: &mut Source) {
    let record = source.record(&mut Accounts::new());
    let mut bytes = Vec::new();
    record.encode(Seed::of_segment(segment), offset, &mut bytes);
    let length = bytes.len();
    assert_eq!(length, record.length());
    assert!((8..=RESOLVED_BYTES_MAX).contains(&length) && length.is_multiple_of(8));
    assert_eq!(decode(segment, offset, &bytes), Decoded::Record { record, length });
    // Elsewhere, cut off, or with any bit turned it is none.
    for (segment, offset) in [(segment + 1, offset), (segment, offset + 8)] {
        assert!(matches!(decode(segment, offset, &bytes), Decoded::Bad(_)));
    }
    let cut = source.below(length);
    let part = decode(segment, offset, &bytes[..cut]);
    assert!(matches!(part, Decoded::Bad(_)) || (part == Decoded::Blank && cut < 8), "{part:?}");
    let bit = source.below(256) % (8 * length);
    bytes[bit / 8] ^= 1 << (bit % 8);
    assert!(matches!(decode(segment, offset, &bytes), Decoded::Bad(_)), "bit {bit}");
}

fn check_intact(segment: u32, offset: usize, bytes: &[u8]) {
    match decode(segment, offset, bytes) {
        Decoded::Record { record, length } => {
            assert_eq!(length, bytes.len());
            check_record(segment, &record, offset, bytes);
        }
        Decoded::UnknownKind { length, .. } => assert_eq!(length, bytes.len()),
        other => panic!("{other:?} of a record that is intact"),
    }
}

/// It is what it is read as, and can be shown on a line.
fn check_record(segment: u32, record: &Record, offset: usize, bytes: &[u8]) {
    let mut again = Vec::new();
    record.encode(Seed::of_segment(segment), offset, &mut again);
    assert_eq!(again.len(), bytes.len());
    let length = again.len();
    assert_eq!(decode(segment, offset, &again), Decoded::Record { record: record.clone(), length });
    assert!(!record.to_string().contains(['\n', '\r']));
}
