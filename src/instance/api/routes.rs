//! What there is at which door: the table that the OpenAPI document is held against.
//!
//! It routes nothing, so that it costs nothing: the tests below hold the router to it, and
//! `tests/all/openapi.rs` holds `docs/openapi.json` to it. What the two instances ask each other
//! (`/peer/…`) is theirs alone and not in it.

use super::Door;

/// A path at a door, and what may be done there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub door: Door,
    /// `{id}` stands for one segment.
    pub path: &'static str,
    /// As an `Allow` header lists them.
    pub methods: &'static str,
}

const GET: &str = "GET, HEAD";
const POST: &str = "POST";

const fn route(door: Door, path: &'static str, methods: &'static str) -> Route {
    Route { door, path, methods }
}

/// All of them, door by door.
pub const ROUTES: &[Route] = &[
    route(Door::Entry, "/payments", POST),
    route(Door::Entry, "/payments/{id}", GET),
    route(Door::Entry, "/payments-summary", GET),
    // Only with --allow-purge.
    route(Door::Entry, "/purge-payments", POST),
    route(Door::Entry, "/clientes/{id}/transacoes", POST),
    route(Door::Entry, "/clientes/{id}/extrato", GET),
    route(Door::Entry, "/healthz", GET),
    route(Door::Admin, "/", GET),
    route(Door::Admin, "/status.json", GET),
    route(Door::Admin, "/metrics", GET),
    route(Door::Admin, "/events", GET),
    route(Door::Admin, "/payments", GET),
    route(Door::Admin, "/payments/{id}", GET),
    route(Door::Admin, "/payments/{id}/resolution", POST),
    route(Door::Admin, "/payments-summary", GET),
    route(Door::Admin, "/healthz", GET),
    route(Door::Peer, "/metrics", GET),
    route(Door::Peer, "/healthz", GET),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::api::{Frame, Then, handle};
    use crate::instance::config::tests::config;
    use crate::instance::node::Node;
    use crate::net::http::Connection;
    use crate::net::http::request::{self, Parsed};
    use std::path::PathBuf;

    /// A payment's, and an account's.
    const IDS: [(&str, &str); 2] =
        [("/payments/", "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3"), ("/clientes/", "1")];
    const TOKEN: &str = "a-token-of-the-admin-door";

    /// With everything that can be allowed.
    fn node() -> std::sync::Arc<Node> {
        let path = std::env::temp_dir().join(format!("galo-{}-token", std::process::id()));
        std::fs::write(&path, TOKEN).unwrap();
        let flags = format!("--allow-purge --admin-token-file {}", path.display());
        let node = Node::new(config(&flags).unwrap()).unwrap();
        std::fs::remove_file(path).unwrap();
        node
    }

    /// The answer, or `None` if others are asked first: then there is something.
    fn ask(node: &Node, door: Door, method: &str, path: &str) -> Option<String> {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}");
        let (bytes, mut scratch) = (format!("{head}\r\n\r\n").into_bytes(), Vec::new());
        let Parsed::Complete { request, .. } = request::parse(&bytes, &mut scratch) else {
            panic!("not a request: {head}");
        };
        let frame = Frame { connection: Connection::KeepAlive, head_only: method == "HEAD" };
        let mut out = Vec::new();
        let then = handle(node, door, &request, frame, &mut out);
        (!matches!(then, Then::Call(_))).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_router_knows_each_route_with_its_methods_and_no_others() {
        let node = node();
        for Route { door, path, methods } in ROUTES {
            let id = IDS.iter().find(|(under, _)| path.starts_with(under));
            let path = path.replace("{id}", id.map_or("", |(_, id)| id));
            for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
                let answer = ask(&node, *door, method, &path).unwrap_or_default();
                let place = format!("{door:?} {method} {path}: {answer}");
                // At the peer's door nobody is told of methods.
                let refused = if *door == Door::Peer { " 404 " } else { " 405 " };
                let is_allowed = methods.split(", ").any(|it| it == method);
                assert!(!is_allowed || !answer.contains("nothing at this path"), "{place}");
                assert_eq!(
                    !is_allowed,
                    answer.starts_with(&format!("HTTP/1.1{refused}")),
                    "{place}"
                );
                if answer.contains(" 405 ") {
                    assert!(answer.contains(&format!("\r\nAllow: {methods}\r\n")), "{place}");
                }
            }
        }
    }

    /// Every path that the sources of the router name is, between its variables, one of the table's.
    #[test]
    fn no_route_of_the_router_is_left_out() {
        let files = std::fs::read_dir("src/instance/api").unwrap().map(|it| it.unwrap().path());
        let is_router = |it: &PathBuf| it.extension().is_some_and(|it| it == "rs");
        let files = files.filter(is_router).filter(|it| !it.ends_with("routes.rs"));
        let pieces: Vec<&str> = ROUTES.iter().flat_map(|it| it.path.split("{id}")).collect();
        let mut named = Vec::new();
        for file in files {
            let source = std::fs::read_to_string(file).unwrap();
            let shipped = source.split("#[cfg(test)]").next().unwrap_or_default();
            let literals = shipped.split("b\"/").skip(1).filter_map(|it| it.split('"').next());
            named.extend(literals.map(|it| format!("/{it}")));
        }
        named.retain(|it| !it.starts_with("/peer/"));
        for literal in &named {
            assert!(pieces.contains(&&literal[..]), "{literal} is not in ROUTES");
        }
        for piece in pieces.iter().filter(|it| !it.is_empty()) {
            assert!(named.iter().any(|it| it == piece), "no source names {piece}");
        }
    }
}
