//! What goes back to a client: a status, a little JSON, or the long list of all payments.
//!
//! Knows monoio-http only as the trait by which its encoder asks for a body.

use super::books::{Booking, Books};
use bytes::Bytes;
use monoio_http::common::body::{Body, StreamHint};
use monoio_http::common::error::HttpError;
use std::cell::RefCell;
use std::fmt::Write;
use std::io;
use std::rc::Rc;

/// One answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Seconds for a `Retry-After` header.
    pub retry_after: Option<u32>,
    pub body: AnswerBody,
}

/// The body of an answer, as monoio-http's encoder takes it.
#[derive(Debug)]
pub enum AnswerBody {
    Empty,
    Json(Bytes),
    Listing(Listing),
}

impl Answer {
    /// Nothing but a status.
    pub fn empty(status: u16) -> Answer {
        Answer { status, retry_after: None, body: AnswerBody::Empty }
    }

    /// A status and a JSON document.
    pub fn json(status: u16, document: impl Into<Bytes>) -> Answer {
        Answer { body: AnswerBody::Json(document.into()), ..Answer::empty(status) }
    }

    /// `{"message":…}`. The message must need no escape in JSON.
    pub fn message(status: u16, message: &str) -> Answer {
        Answer::json(status, format!(r#"{{"message":"{message}"}}"#))
    }

    /// What both limiters say: come back in five seconds.
    pub fn too_many() -> Answer {
        Answer { retry_after: Some(5), ..Answer::empty(429) }
    }

    /// All payments, one JSON document a line.
    pub fn listing(books: Rc<RefCell<Books>>) -> Answer {
        let purges = books.borrow().purges();
        let body = AnswerBody::Listing(Listing { books, next: 0, purges });
        Answer { body, ..Answer::empty(200) }
    }
}

/// `{"correlationId":…,"amount":…,"requestedAt":…}`, the time in UTC with this zone behind it.
pub fn write_booking(text: &mut String, booking: &Booking, zone: &str) {
    let Booking { id, amount, requested_at } = booking;
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        r#"{{"correlationId":"{id}","amount":{amount},"requestedAt":"{requested_at}{zone}"}}"#
    );
}

/// A walk through the books in pages, so that a long list never is in memory as a whole.
#[derive(Debug)]
pub struct Listing {
    books: Rc<RefCell<Books>>,
    next: usize,
    purges: u64,
}

impl Listing {
    const PAGE_ROWS: usize = 500;

    /// The next page as text, `None` after the last.
    ///
    /// # Errors
    /// If the books were purged since the walk began: the client must not take the part it has for
    /// the whole.
    fn next_page(&mut self) -> Option<io::Result<Bytes>> {
        let books = self.books.borrow();
        if books.purges() != self.purges {
            return Some(Err(io::Error::other("purged while being listed")));
        }
        let page = books.page(self.next, Listing::PAGE_ROWS);
        if page.is_empty() {
            return None;
        }
        self.next += page.len();
        let mut text = String::with_capacity(page.len() * 128);
        for booking in page {
            write_booking(&mut text, booking, "Z");
            text.push('\n');
        }
        Some(Ok(text.into()))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = HttpError;

    async fn next_data(&mut self) -> Option<Result<Bytes, HttpError>> {
        match self {
            AnswerBody::Empty => None,
            AnswerBody::Json(document) => Some(Ok(document.clone())),
            AnswerBody::Listing(listing) => {
                listing.next_page().map(|page| page.map_err(HttpError::from))
            }
        }
    }

    fn stream_hint(&self) -> StreamHint {
        match self {
            AnswerBody::Empty => StreamHint::None,
            AnswerBody::Json(_) => StreamHint::Fixed,
            AnswerBody::Listing(_) => StreamHint::Stream,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::money::Cents;
    use crate::payments::PaymentId;
    use crate::tools::simulator::units::MicroTimestamp;

    fn books(rows: u128) -> Rc<RefCell<Books>> {
        let mut books = Books::default();
        for id in 0..rows {
            let id = PaymentId(id);
            let requested_at = MicroTimestamp(1_500_000);
            books.book(Booking { id, amount: Cents(1990), requested_at }).unwrap();
        }
        Rc::new(RefCell::new(books))
    }

    #[test]
    fn a_listing_is_one_line_a_payment_in_pages() {
        let rows = Listing::PAGE_ROWS + 1;
        let mut listing = Listing { books: books(rows as u128), next: 0, purges: 0 };
        let mut lines = Vec::new();
        while let Some(page) = listing.next_page() {
            lines.extend(
                String::from_utf8(page.unwrap().to_vec()).unwrap().lines().map(str::to_owned),
            );
        }
        assert_eq!(lines.len(), rows);
        assert_eq!(
            lines[1],
            concat!(
                r#"{"correlationId":"00000000-0000-0000-0000-000000000001","#,
                r#""amount":19.90,"requestedAt":"1970-01-01T00:00:01.5Z"}"#
            )
        );
    }

    #[test]
    fn a_purge_breaks_a_listing_off() {
        let books = books(Listing::PAGE_ROWS as u128 * 2);
        let mut listing = Listing { books: books.clone(), next: 0, purges: 0 };
        assert!(listing.next_page().unwrap().is_ok());
        books.borrow_mut().purge();
        assert!(listing.next_page().unwrap().is_err());
    }
}
