//! Every limit that is not a setting: each with its unit and its reason, and asserted against the
//! others where they hang together. Settings are in `instance/config.rs`.

use std::time::Duration;

/// Payments on their way from a serving thread to the dispatcher. More than arrive while the
/// dispatcher's thread is throttled for one period of 100 ms at 200,000/s.
pub const RING_CAPACITY: usize = 32_768;
/// Messages to the dispatcher other than payments.
pub const CONTROLS_CAPACITY: usize = 64;
/// A connection that sends requests without end is answered at least this often, in bytes.
pub const RESPONSES_SIZE_MAX: usize = 16 * 1024;
/// The first size of a connection's read buffer: several requests as HAProxy sends them.
pub const READ_BUFFER_SIZE: usize = 2 * 1024;
/// What one read takes at most, from a client that sends much at once: 80 payments. Requests sent 64
/// at once cost half as much again if each read takes 2 KiB of them.
pub const READ_SIZE_MAX: usize = 16 * 1024;
/// Connections beyond the limit of a door that are being told so at once; meanwhile the kernel
/// holds whoever else comes. Each is told in a moment, and looked after for [`LINGER`].
pub const TURNED_AWAY_MAX: usize = 16;
/// After a start, so long at most the totals wait for what became of the attempts of the process
/// before. Processors answer such a question at once, but may yet book what they do not hold.
pub const PAST_KNOWN_WITHIN: Duration = Duration::from_secs(2);
/// A listener that cannot accept says so no more often than this.
pub const ACCEPT_COMPLAINT_EVERY: Duration = Duration::from_secs(10);
/// Without free descriptors or memory, accepting again at once would only spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// Connections at the admin door: operators, a page each, and whoever scrapes.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// A file with a token is one line.
pub const TOKEN_FILE_BYTES_MAX: u64 = 4_096;
/// Files that are open whatever comes: standard ones, signals, the journals' directories and
/// segments and those being rewritten, volumes of books, name look-ups. 21 at rest, with both journals,
/// and a volume for each doubling of the history.
pub const FILES_FIXED: usize = 64;
/// Files of an event loop: its ring, its event, a pair to see the end of a turn, its connection for
/// the peer's accounts, and one more that is being replaced.
pub const FILES_PER_LOOP: usize = 6;
/// Files for one processor beside its attempts and looks: the health call, and probes that hang.
pub const FILES_AT_PROCESSOR: usize = 4;
/// What is left of the peer's door, in connections, if there is no peer and files are few.
pub const PEER_CONNECTIONS_MIN: usize = 8;
/// What stays of a connection's buffers while it waits: the read buffer, and answers of the usual
/// sizes, a statement among them.
pub const BUFFERS_KEPT: usize = 2 * READ_BUFFER_SIZE;
/// What the buffers of all connections may hold beyond that, in bytes a process. A third of the
/// memory of a contest's container; 600 clients that all send a body of 4 KiB slowly need a tenth.
pub const BUFFERS_SIZE_MAX: usize = 32 * 1024 * 1024;
/// Lists of settlements that are read at once, each on a thread with a segment in memory.
pub const READS_MAX: u32 = 2;
/// How often those who follow the events are told what is new.
pub const EVENTS_EVERY: Duration = Duration::from_millis(250);
/// So many are told at once, and so long, times the open streams, the event loop is left to others
/// before the next ones: all who have to catch up hear 20,000 events a second at most, together.
pub const EVENTS_AT_ONCE: usize = 100;
pub const EVENTS_PAUSE: Duration = Duration::from_millis(5);
/// Streams of events at once: a quarter of the admin door's connections, so that those who follow
/// never shut out who looks.
pub const EVENTS_STREAMS_MAX: u64 = 16;
/// After so long without an event they are sent a sign of life.
pub const EVENTS_SIGN_EVERY: Duration = Duration::from_secs(15);
/// So much of the journal is kept for those who follow it, if nothing else is said: 2.3 million
/// settlements, or an hour of what the contest sends at its fastest.
pub const EVENTS_KEPT_BYTES: u64 = 256 << 20;
/// So many events are pushed to a webhook in one request, some 70 KB: many servers take no body beyond
/// 100 KB if nothing else is said to them.
pub const WEBHOOK_EVENTS_MAX: usize = 300;
/// How long the receiver of a webhook may take in all to connect, to take a request and to answer it.
pub const WEBHOOK_PATIENCE: Duration = Duration::from_secs(15);
/// A webhook's request that was not taken is sent again after this, then after twice as long …
pub const WEBHOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// … and so on, up to this.
pub const WEBHOOK_AGAIN_AFTER_MAX: Duration = Duration::from_secs(60);
/// How often it is written down at most how far the receiver is: it hears so much twice after a start.
pub const WEBHOOK_STORED_EVERY: Duration = Duration::from_secs(1);
/// So many log lines are kept for the admin door.
pub const LOG_LINES_RECENT: usize = 20;
/// A client that takes its answer more slowly than this is cut off.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// After a closing answer: how long we go on reading, so that the kernel does not answer late
/// bytes with a reset that would destroy the answer on its way (RFC 9112, 9.6).
pub const LINGER: Duration = Duration::from_secs(1);
/// How long the peer may take to give its totals. With the parsing on both sides and the sweep of
/// a timer, a summary is answered within 300 ms whether it can or not.
pub const PEER_TIMEOUT: Duration = Duration::from_millis(250);
/// How long the peer may take to answer for one of its accounts. Whatever came of it, the client is
/// told within 300 ms.
pub const LEDGER_PATIENCE: Duration = Duration::from_millis(250);
/// How soon the peer is asked again what came of a transaction whose answer was lost.
pub const LEDGER_ASK_AGAIN: Duration = Duration::from_millis(20);
/// How long the peer may take for anything else: to be offered a payment, to tell what it adopted.
/// Longer, since a payment that is not answered for by its home has to be taken in the home's place.
pub const PEER_PATIENCE: Duration = Duration::from_secs(1);
/// How long a greeting may take. Two in a row without an answer, and the peer is taken to be away.
pub const GREETING_PATIENCE: Duration = Duration::from_millis(500);
/// A connection to the peer for what is answered at once is given up when its oldest question has no
/// answer after so long; and a question that had little time left takes nothing from the others.
pub const PEER_SILENCE_MAX: Duration = Duration::from_millis(200);
/// How often the peer is asked whether it is there.
pub const GREETING_EVERY: Duration = Duration::from_millis(500);
/// Payments that this instance drove in place of its absent peer and that the peer has not written
/// down yet, and those that wait for that. Beyond it no more are accepted before it has.
pub const ADOPTED_MAX: usize = 262_144;
/// So many rejected payments are kept in memory, about 5 MB, and those that are outstanding by then:
/// after that no new ones are accepted until some are resolved.
pub const REJECTED_MAX: usize = 100_000;
/// So many payments are resolved by hand at most, up to 50 MB.
pub const RESOLUTIONS_MAX: usize = 100_000;
/// So many payments are adopted with one write to the journal.
pub const ADOPT_BATCH: usize = 4_096;
/// So many payments are offered to their home at a time.
pub const OFFERS_AT_ONCE: usize = 64;
/// So many of them are told at a time.
pub const ADOPTED_PAGE: usize = 500;
/// An instance that has not looked after its peer for so long has stood still.
pub const STOOD_STILL_MIN: Duration = Duration::from_secs(2);
/// How often guests are looked after while there are any.
pub const GUESTS_EVERY: Duration = Duration::from_millis(100);
/// What a client that meets a full queue or a draining instance is told to wait, in seconds.
pub const RETRY_AFTER_S: u32 = 1;
/// Tokens at the entry: a shop each, say. All of them are compared with each request.
pub const ENTRY_TOKENS_MAX: usize = 64;
/// The shortest of them: 96 bits of randomness in base64.
pub const ENTRY_TOKEN_LENGTH_MIN: usize = 16;
/// The longest: a head has room for it beside all else.
pub const ENTRY_TOKEN_LENGTH_MAX: usize = 512;
/// Their file in bytes, with all comments.
pub const ENTRY_TOKENS_BYTES_MAX: u64 = 64 * 1024;
/// The shortest token between the instances.
pub const PEER_TOKEN_LENGTH_MIN: usize = 8;
/// Payments that wait so long, while nothing known is in their way, are told of: longer than the
/// pauses between probes, and than `--processor-timeout` unless that is raised.
pub const STUCK_AFTER: Duration = Duration::from_secs(10);
/// How often that is told while it lasts.
pub const STUCK_TOLD_EVERY: Duration = Duration::from_secs(60);
/// How often it is looked at.
pub const STUCK_LOOK_EVERY: Duration = Duration::from_secs(2);
/// Lines of the log that wait to be written, while nobody reads: more than a start and an end say.
pub const LOG_QUEUE_LINES: usize = 1_024;
/// A longer line is cut, in bytes. With the queue full of them, the log takes 1 MiB.
pub const LOG_LINE_BYTES_MAX: usize = 1_024;
/// Lines of the log a second: what a person can still follow, and 200 MB a day at most.
pub const LOG_LINES_A_SECOND: u32 = 20;
/// Of these, from one place in the program; the others' turn comes, too.
pub const LOG_LINES_A_SECOND_AND_SITE: u32 = 5;
/// How long the end of the process waits for the log to be written.
pub const LOG_FLUSH_WITHIN: Duration = Duration::from_millis(500);
/// Payments that the judge of a contest reads from a processor, or takes to have been posted: as many
/// as a simulated processor books. Half a gigabyte, when both processors have so many.
pub const BOOKINGS_JUDGED_MAX: usize = 4_000_000;
/// A line of a processor's books, in bytes: three times what one needs.
pub const BOOKING_LINE_BYTES_MAX: u64 = 512;
/// A score sheet, and what k6 had to say on its console, in bytes: a line of 200 for each of 300,000
/// posts that failed.
pub const RUN_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Payments that `galo reconcile` compares, on both sides together: 32 bytes each, 1 GiB at most.
pub const PAYMENTS_RECONCILED_MAX: usize = 32_000_000;
/// A record of a file of comma-separated values, in bytes: a statement's has a hundred or two. What
/// is longer is another kind of file, or a quotation mark that never closes.
pub const TABLE_RECORD_BYTES_MAX: usize = 64 * 1024;
/// Columns of such a record.
pub const TABLE_COLUMNS_MAX: usize = 256;
/// How long a server may take for each step of an answer to the judge.
pub const JUDGE_PATIENCE: Duration = Duration::from_secs(10);
/// How often the judge looks whether all is settled.
pub const JUDGE_LOOK_EVERY: Duration = Duration::from_millis(250);

const _: () = assert!(STOOD_STILL_MIN.as_millis() > PEER_PATIENCE.as_millis());
const _: () = assert!(PEER_SILENCE_MAX.as_millis() < LEDGER_PATIENCE.as_millis());
const _: () = assert!(PEER_SILENCE_MAX.as_millis() < PEER_TIMEOUT.as_millis());
const _: () = assert!(PEER_TIMEOUT.as_millis() + 50 <= 300);
const _: () = assert!(LEDGER_PATIENCE.as_millis() + 50 <= 300);
