//! What the floor and the bare client share: galo's event loop, and where a message ends.

use memchr::{memchr, memmem};
use monoio::{FusionDriver, LegacyDriver, RuntimeBuilder};
use std::future::Future;

/// Room for a read, as in galo.
pub const READ_BUFFER_SIZE: usize = 2 * 1024;

/// Runs `main` on this thread's event loop: on io_uring with COOP_TASKRUN as galo does, or on epoll.
///
/// # Panics
/// If the kernel refuses the loop: a yardstick that falls back to another one measures nothing.
pub fn block_on<F: Future>(on_epoll: bool, main: F) -> F::Output {
    if on_epoll {
        let built = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build();
        return built.expect("an epoll loop").block_on(main);
    }
    let mut flags = io_uring::IoUring::builder();
    flags.setup_coop_taskrun();
    let built = RuntimeBuilder::<FusionDriver>::new().uring_builder(flags).enable_timer().build();
    built.expect("an io_uring loop; is io_uring allowed here?").block_on(main)
}

/// The length of the first whole message (head and body), if it is whole. Believes every word of
/// the head, and knows no other framing than `Content-Length`.
pub fn message_length(bytes: &[u8]) -> Option<usize> {
    let head = memmem::find(bytes, b"\r\n\r\n")? + 4;
    let whole = head + content_length(&bytes[..head]);
    (bytes.len() >= whole).then_some(whole)
}

fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"content-length:";
    let mut rest = head;
    while let Some(end) = memchr(b'\n', rest) {
        let line = &rest[..end];
        if line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME) {
            let digits = line[NAME.len()..].trim_ascii().iter();
            return digits
                .fold(0, |value, digit| value * 10 + usize::from(digit.wrapping_sub(b'0') % 10));
        }
        rest = &rest[end + 1..];
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_message_ends() {
        let post = b"POST / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 5\r\n\r\nhelloGET";
        assert_eq!(message_length(post), Some(post.len() - 3));
        for cut in 0..post.len() - 3 {
            assert_eq!(message_length(&post[..cut]), None);
        }
        assert_eq!(message_length(b"GET / HTTP/1.1\r\n\r\n"), Some(18));
    }
}
