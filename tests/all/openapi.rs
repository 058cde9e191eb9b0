//! `docs/openapi.json` is held to the routes, both ways, and to what the real binary answers.

use crate::resolutions::write_rejected;
use crate::support::journals::Scratch;
use crate::support::system::{
    Instance, Processor, QUICK, SIGTERM, addresses, free_address, id, payment,
};
use crate::support::{Answer, Client, request, wait_until};
use galo::instance::api::Door;
use galo::instance::api::routes::ROUTES;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

const TOKEN: &str = "correct-horse";

/// What a path item has beside its operations.
const NO_METHODS: [&str; 1] = ["parameters"];

/// The document, and what is looked up in it.
struct Document(Value);

/// One call that it describes, at one door.
struct Operation<'a> {
    door: &'static str,
    method: String,
    path: &'a str,
    value: &'a Value,
}

fn name_of(door: Door) -> &'static str {
    match door {
        Door::Entry => "entry",
        Door::Peer => "peer",
        Door::Admin => "admin",
    }
}

impl Document {
    fn read() -> Document {
        let text = std::fs::read_to_string("docs/openapi.json").unwrap();
        Document(serde_json::from_str(&text).unwrap())
    }

    /// What a reference leads to, or the value itself.
    fn follow<'a>(&'a self, value: &'a Value) -> &'a Value {
        let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return value };
        let pointer = reference.strip_prefix('#').unwrap();
        let found = self.0.pointer(pointer).unwrap_or_else(|| panic!("there is no {reference}"));
        self.follow(found)
    }

    /// An operation that is at two doors is there twice.
    fn operations(&self) -> Vec<Operation<'_>> {
        let mut all = Vec::new();
        for (path, item) in self.0["paths"].as_object().unwrap() {
            let methods = item.as_object().unwrap().iter();
            for (method, value) in methods.filter(|(name, _)| !NO_METHODS.contains(&&name[..])) {
                for server in value["servers"].as_array().unwrap() {
                    let door = match server["url"].as_str().unwrap() {
                        "http://localhost:9999" => "entry",
                        "http://localhost:9101" => "peer",
                        "http://localhost:9201" => "admin",
                        other => panic!("no door is at {other}"),
                    };
                    all.push(Operation { door, method: method.to_uppercase(), path, value });
                }
            }
        }
        all
    }

    fn operation(&self, door: &str, method: &str, path: &str) -> Operation<'_> {
        let is_it = |it: &Operation| (it.door, &it.method[..], it.path) == (door, method, path);
        self.operations()
            .into_iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("{door} {method} {path}"))
    }

    /// The path with the examples of its parameters in it.
    fn example_path(&self, path: &str) -> String {
        let mut filled = path.to_owned();
        let parameters = self.0["paths"][path]["parameters"].as_array();
        for parameter in parameters.into_iter().flatten().map(|it| self.follow(it)) {
            let name = format!("{{{}}}", parameter["name"].as_str().unwrap());
            let example = &parameter["example"];
            let example = example.as_str().map_or(example.to_string(), str::to_owned);
            filled = filled.replace(&name, &example);
        }
        assert!(!filled.contains('{'), "{path} has a variable that is not described");
        filled
    }

    /// Whether an answer is one that is described: its status, its headers, its body.
    fn check_answer(&self, operation: &Operation, answer: &Answer) -> Result<(), String> {
        let responses = &operation.value["responses"];
        let described = responses.get(answer.status.to_string());
        // What befalls any request is described once.
        let other = (answer.status == 400 && operation.path == "/").then(|| &responses["default"]);
        let described = described.or(other).ok_or("the status is not described")?;
        let described = self.follow(described);
        for (name, header) in described["headers"].as_object().into_iter().flatten() {
            let value = answer.header(&name.to_lowercase()).ok_or(format!("no {name}"))?;
            let value = value.parse::<u64>().map_or(json!(value), Value::from);
            self.fit(&header["schema"], &value, name)?;
        }
        let Some(content) = described.get("content") else {
            return answer.body.is_empty().then_some(()).ok_or("there is a body".into());
        };
        let media_type = answer.header("content-type").unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap();
        let schema = &content.get(media_type).ok_or(format!("no {media_type}"))?["schema"];
        let body = match media_type {
            "application/json" => {
                serde_json::from_str(&answer.body).map_err(|it| it.to_string())?
            }
            _ => Value::from(answer.body.clone()),
        };
        self.fit(schema, &body, "body")
    }

    /// Whether a value fits a schema, of which the part of JSON Schema is known that is used. Stricter
    /// than that in one thing: a field that no schema describes fits none.
    fn fit(&self, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
        let schema = self.follow(schema);
        for (keyword, rule) in schema.as_object().unwrap() {
            let count = || match value {
                Value::String(text) => Some(text.chars().count()),
                Value::Array(items) => Some(items.len()),
                _ => None,
            };
            let is_between =
                |low: u64, high: u64| count().is_none_or(|it| (low..=high).contains(&(it as u64)));
            let (number, bound) = (value.as_f64(), rule.as_f64().unwrap_or_default());
            let fits = match &keyword[..] {
                "description" | "default" | "required" | "additionalProperties" => true,
                "type" => match rule {
                    Value::Array(types) => types.iter().any(|it| is_of_type(it, value)),
                    one => is_of_type(one, value),
                },
                "enum" => rule.as_array().unwrap().contains(value),
                "minimum" => number.is_none_or(|it| it >= bound),
                "maximum" => number.is_none_or(|it| it <= bound),
                "exclusiveMinimum" => number.is_none_or(|it| it > bound),
                "minLength" | "minItems" => is_between(rule.as_u64().unwrap(), u64::MAX),
                "maxLength" | "maxItems" => is_between(0, rule.as_u64().unwrap()),
                "format" => value.as_str().is_none_or(|it| is_of_format(rule, it)),
                "oneOf" => {
                    let choices = rule.as_array().unwrap().iter();
                    choices.filter(|it| self.fit(it, value, place).is_ok()).count() == 1
                }
                "items" => {
                    for item in value.as_array().into_iter().flatten() {
                        self.fit(rule, item, &format!("{place}[]"))?;
                    }
                    true
                }
                "properties" => {
                    self.fit_fields(schema, value, place)?;
                    true
                }
                other => panic!("{place}: the checker does not know {other}"),
            };
            if !fits {
                return Err(format!("{place} is {value}, not of {keyword} {rule}"));
            }
        }
        Ok(())
    }

    fn fit_fields(&self, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
        let Some(fields) = value.as_object() else { return Ok(()) };
        for name in schema["required"].as_array().unwrap() {
            let name = name.as_str().unwrap();
            assert!(schema["properties"].get(name).is_some(), "{place}: {name} is not described");
            fields.get(name).ok_or(format!("{place} has no {name}"))?;
        }
        for (name, field) in fields {
            let place = format!("{place}.{name}");
            let rule = schema["properties"].get(name);
            let other = schema.get("additionalProperties").filter(|it| it.is_object());
            let rule = rule.or(other);
            self.fit(rule.ok_or(format!("{place} is not described"))?, field, &place)?;
        }
        Ok(())
    }
}

fn is_of_type(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "null" => value.is_null(),
        other => panic!("there is no type {other}"),
    }
}

fn is_of_format(name: &Value, text: &str) -> bool {
    match name.as_str().unwrap() {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "uuid" => galo::payments::PaymentId::parse(text.as_bytes()).is_some(),
        other => panic!("the checker does not know the format {other}"),
    }
}

#[test]
fn the_document_has_every_route_and_no_other() {
    let document = Document::read();
    let mut routed = BTreeSet::new();
    for route in ROUTES {
        // Where there is GET there is HEAD, which the document says once.
        for method in route.methods.split(", ").filter(|it| *it != "HEAD") {
            routed.insert((name_of(route.door), method.to_owned(), route.path));
        }
    }
    let described = document.operations();
    let described: BTreeSet<_> =
        described.iter().map(|it| (it.door, it.method.clone(), it.path)).collect();
    let missing: Vec<_> = routed.difference(&described).collect();
    assert!(missing.is_empty(), "docs/openapi.json leaves out {missing:?}");
    let invented: Vec<_> = described.difference(&routed).collect();
    assert!(invented.is_empty(), "no router knows {invented:?}");
}

#[test]
fn the_document_is_in_order() {
    let document = Document::read();
    assert_eq!(document.0["openapi"], "3.1.0");
    assert_eq!(document.0["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut ids = BTreeMap::new();
    for Operation { door, path, value, .. } in document.operations() {
        let id = value["operationId"].as_str().unwrap();
        assert_eq!(*ids.entry(id).or_insert(path), path, "{id} is there twice");
        let security = value["security"].as_array().unwrap();
        let is_open = matches!(path, "/" | "/healthz");
        let has = |name: &str| security.iter().any(|it| it.get(name).is_some());
        assert!(door != "admin" || is_open || has("adminToken"), "{id}");
        assert_eq!(security.is_empty(), is_open, "{id}");
        assert!(door != "entry" || is_open || has("entryToken"), "{id}");
        assert!(document.follow(&value["responses"]["default"]).get("content").is_some(), "{id}");
        if let Some(body) = value.get("requestBody") {
            let body = &body["content"]["application/json"];
            document.fit(&body["schema"], &body["example"], id).unwrap();
        }
    }
    // Every reference leads somewhere, and every schema is used.
    let text = document.0.to_string();
    for reference in text.split(r##""$ref":"##).skip(1) {
        document.follow(&json!({ "$ref": reference.split('"').nth(1).unwrap() }));
    }
    for name in document.0["components"]["schemas"].as_object().unwrap().keys() {
        assert!(text.contains(&format!("#/components/schemas/{name}\"")), "nothing uses {name}");
    }
}

#[test]
fn the_checker_tells_what_does_not_fit() {
    let document = Document::read();
    let schema = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let summary = json!({"totalRequests": 1, "totalAmount": 1.5});
    let by_hand = json!({"as": "retry", "by": "ana", "reason": "x", "processor": "default"});
    for (name, value, told) in [
        ("Error", json!({"error": "x"}), ""),
        ("Error", json!({"error": 1}), "body.error is 1, not of type \"string\""),
        ("Error", json!({}), "has no error"),
        ("Error", json!({"error": "x", "why": "y"}), "body.why is not described"),
        ("Error", json!(["x"]), "not of type \"object\""),
        ("Summary", json!({"default": summary, "fallback": {}}), "fallback has no total"),
        ("Summary", json!({"default": summary, "third": 7}), "third is 7, not of type"),
        ("Summary", json!({"default": summary, "third": summary}), ""),
        ("Totals", json!({"totalRequests": 1.5, "totalAmount": 1}), "not of type \"integer\""),
        ("Totals", json!({"totalRequests": -1, "totalAmount": 1}), "not of minimum 0"),
        ("Health", json!({"status": "fine"}), "not of enum"),
        ("Page", json!({"payments": [{}]}), "body.payments[] has no"),
        ("Story", json!({"correlationId": "7", "state": "known"}), "not of format \"uuid\""),
        ("Resolve", by_hand, "not of oneOf"),
        ("Reason", json!(""), "not of minLength 1"),
    ] {
        let fitted = document.fit(&schema(name), &value, "body");
        let error = fitted.err().unwrap_or_default();
        assert!(error.contains(told) && error.is_empty() == told.is_empty(), "{value}: {error}");
    }
}

/// An instance with all three doors, on a journal with rejected payments in it.
struct Scene {
    processors: [Processor; 2],
    instance: Instance,
    admin: SocketAddr,
    document: Document,
    /// The statuses that were seen, of each operation.
    seen: BTreeMap<String, BTreeSet<u16>>,
    scratch: Scratch,
}

impl Scene {
    fn new() -> Scene {
        let scratch = Scratch::new();
        let (token, data) = (scratch.join("token"), scratch.join("data"));
        std::fs::write(&token, TOKEN).unwrap();
        write_rejected(&data, 1..=4);
        let (admin, processors) = (free_address(), Processor::both());
        let door = admin.to_string();
        let own = ["--admin-listen", &door, "--admin-token-file", &token, "--data", &data];
        let args = [&QUICK[..], &own, &["--allow-purge"]].concat();
        let instance = Instance::start(addresses(&processors), &args);
        let (document, seen) = (Document::read(), BTreeMap::new());
        Scene { processors, instance, admin, document, seen, scratch }
    }

    fn client(&self, door: &str) -> Client {
        match door {
            "entry" => self.instance.client(),
            "peer" => Client::connect(self.instance.peer_door),
            _ => Client::connect(self.admin),
        }
    }

    /// A call with the token of the admin door, `path` filled with this id.
    fn call(&mut self, (door, method, path): (&str, &str, &str), id: &str, body: &str) -> Answer {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let target = format!("{}?{query}", path.replace("{id}", id));
        let header = format!("Authorization: Bearer {TOKEN}\r\n");
        let answer = self.client(door).call(request(method, &target, &header, body));
        self.note((door, method, path), &answer);
        answer
    }

    /// It must be as it is described.
    fn note(&mut self, (door, method, path): (&str, &str, &str), answer: &Answer) {
        let operation = self.document.operation(door, method, path);
        let checked = self.document.check_answer(&operation, answer);
        checked.unwrap_or_else(|why| panic!("{door} {method} {path}: {why}: {answer:?}"));
        let id = operation.value["operationId"].as_str().unwrap().to_owned();
        self.seen.entry(id).or_default().insert(answer.status);
    }

    /// Calls and the statuses of their answers.
    fn expect(&mut self, calls: &[(&str, &str, &str, &str, &str, u16)]) {
        for (door, method, path, id, body, status) in calls {
            let answer = self.call((door, method, path), id, body);
            assert_eq!(answer.status, *status, "{door} {method} {path} {id} {body}: {answer:?}");
        }
    }
}

/// Whatever is described is there: no 404 of a path that nobody knows, and no 405.
#[test]
fn every_documented_call_is_answered() {
    let scene = Scene::new();
    for operation in scene.document.operations() {
        let Operation { door, method, path, .. } = &operation;
        let target = scene.document.example_path(path);
        let header = format!("Authorization: Bearer {TOKEN}\r\n");
        let answer = scene.client(door).call(request(method, &target, &header, ""));
        let place = format!("{door} {method} {path}: {answer:?}");
        assert!(answer.status != 405 && !answer.body.contains("nothing at this path"), "{place}");
        let checked = scene.document.check_answer(&operation, &answer);
        checked.unwrap_or_else(|why| panic!("{place}: {why}"));
    }
}

#[test]
fn answers_are_as_documented() {
    let mut scene = Scene::new();
    entry_answers(&mut scene);
    admin_answers(&mut scene);
    answers_of_others(&mut scene);
    events_answer(&mut scene, &["settled", "resolved"]);
    scene.expect(&[("entry", "POST", "/purge-payments", "", "", 200)]);
    events_answer(&mut scene, &["purged"]);
    let operations = scene.document.operations();
    for id in operations.iter().map(|it| it.value["operationId"].as_str().unwrap()) {
        let seen = &scene.seen[id];
        assert!(seen.iter().any(|it| *it < 300), "{id}: no success was looked at");
        assert!(seen.iter().any(|it| *it >= 400), "{id}: no error was looked at");
    }
}

fn entry_answers(scene: &mut Scene) {
    const PAY: (&str, &str, &str) = ("entry", "POST", "/payments");
    const FIND: (&str, &str, &str) = ("entry", "GET", "/payments/{id}");
    const TRANSACT: (&str, &str, &str) = ("entry", "POST", "/clientes/{id}/transacoes");
    let pay = |number| format!(r#"{{"correlationId":"{}","amount":19.9}}"#, id(number));
    assert_eq!(scene.call(PAY, "", &pay(10)).status, 202);
    wait_until("it is settled", || scene.instance.summary("").count() == 1);
    assert!(scene.call(FIND, &id(10), "").body.contains(r#""state":"settled""#));
    scene.processors.iter_mut().for_each(|it| it.set_failing(true));
    assert_eq!(scene.call(PAY, "", &pay(11)).status, 202);
    assert!(scene.call(FIND, &id(11), "").status == 200);
    let debit = r#"{"valor":7,"tipo":"d","descricao":"bread"}"#;
    let bad = r#"{"valor":0,"tipo":"d","descricao":"bread"}"#;
    assert_eq!(scene.call(TRANSACT, "1", debit).status, 200);
    scene.expect(&[
        ("entry", "POST", "/payments", "", "x", 400),
        ("entry", "POST", "/payments", "", "{}", 422),
        ("entry", "GET", "/payments/{id}", &id(1), "", 200),
        ("entry", "GET", "/payments/{id}", "7", "", 400),
        ("entry", "GET", "/payments/{id}", &id(99), "", 404),
        ("entry", "GET", "/payments-summary?from=2025-01-01T00:00:00Z", "", "", 200),
        ("entry", "GET", "/payments-summary?since=1", "", "", 400),
        ("entry", "GET", "/clientes/{id}/extrato", "1", "", 200),
        ("entry", "GET", "/clientes/{id}/extrato", "99", "", 404),
        ("entry", "POST", "/clientes/{id}/transacoes", "1", bad, 422),
        ("entry", "POST", "/clientes/{id}/transacoes", "99", debit, 404),
        ("entry", "GET", "/healthz", "", "", 200),
    ]);
}

fn admin_answers(scene: &mut Scene) {
    let retry = r#"{"as":"retry","by":"ana","reason":"x"}"#;
    let cancel = r#"{"as":"cancelled","by":"ana","reason":"x"}"#;
    let settle = r#"{"as":"settled","processor":"default","by":"ana","reason":"x",
                     "requestedAt":"2025-01-01T00:00:00.000Z"}"#;
    for body in [retry, cancel, settle] {
        let schema = json!({"$ref": "#/components/schemas/Resolve"});
        scene.document.fit(&schema, &serde_json::from_str(body).unwrap(), "body").unwrap();
    }
    let resolution = "/payments/{id}/resolution";
    scene.expect(&[
        ("admin", "GET", "/", "", "", 200),
        ("admin", "GET", "/healthz", "", "", 200),
        ("admin", "GET", "/status.json", "", "", 200),
        ("admin", "GET", "/metrics", "", "", 200),
        ("admin", "GET", "/payments?state=rejected&limit=2", "", "", 200),
        ("admin", "GET", "/payments?state=waiting", "", "", 200),
        ("admin", "GET", "/payments?state=lost", "", "", 400),
        ("admin", "GET", "/payments?state=settled&limit=1", "", "", 200),
        ("admin", "POST", resolution, &id(2), cancel, 200),
        ("admin", "POST", resolution, &id(3), settle, 200),
        ("admin", "POST", resolution, &id(4), retry, 200),
        ("admin", "POST", resolution, &id(3), cancel, 409),
        ("admin", "POST", resolution, &id(2), "x", 400),
        ("admin", "POST", resolution, &id(2), "{}", 422),
        ("admin", "GET", "/payments/{id}", &id(3), "", 200),
        ("admin", "GET", "/payments/{id}", &id(99), "", 404),
        ("admin", "GET", "/payments-summary", "", "", 200),
        ("admin", "GET", "/payments-summary?x=1", "", "", 400),
        ("admin", "GET", "/events?after=x", "", "", 400),
        ("peer", "GET", "/metrics", "", "", 200),
        ("peer", "GET", "/healthz", "", "", 200),
    ]);
    for (method, path) in [
        ("GET", "/status.json"),
        ("GET", "/events"),
        ("GET", "/metrics"),
        ("GET", "/payments"),
        ("GET", "/payments-summary"),
        ("GET", "/payments/{id}"),
        ("POST", resolution),
    ] {
        let target = path.replace("{id}", &id(1));
        let answer = scene.client("admin").call(request(method, &target, "", ""));
        assert_eq!(answer.status, 401, "{path}");
        scene.note(("admin", method, path), &answer);
    }
    let malformed = scene.client("admin").call("GET / HTTP/1.1\r\n\r\n");
    scene.note(("admin", "GET", "/"), &malformed);
}

/// Those of these kinds, when they are on the disk.
fn events_answer(scene: &mut Scene, kinds: &[&str]) {
    const EVENTS: (&str, &str, &str) = ("admin", "GET", "/events?after=0");
    wait_until("they are told", || {
        let told = scene.call(EVENTS, "", "").body;
        kinds.iter().all(|it| told.contains(&format!("\"{it}\"")))
    });
}

/// What only an instance with other settings, or one that ends, answers.
fn answers_of_others(scene: &mut Scene) {
    let bare = Instance::alone(&["--drain-notice", "5s", "--queue-capacity", "1"]);
    let purge = bare.client().call(request("POST", "/purge-payments", "", ""));
    assert_eq!(purge.status, 404);
    scene.note(("entry", "POST", "/purge-payments"), &purge);
    assert_eq!(bare.pay(&id(1), "1").status, 202);
    let full = bare.client().call(payment(&id(2), "1"));
    assert_eq!(full.status, 503);
    scene.note(("entry", "POST", "/payments"), &full);
    let tokens = scene.scratch.join("tokens");
    std::fs::write(&tokens, "a-token-of-the-entry").unwrap();
    let closed = Instance::alone(&["--entry-tokens", &tokens, "--allow-purge"]);
    for route in ROUTES.iter().filter(|it| it.door == Door::Entry && it.path != "/healthz") {
        let method = if route.methods == "POST" { "POST" } else { "GET" };
        let target = scene.document.example_path(route.path);
        let answer = closed.client().call(request(method, &target, "", ""));
        assert_eq!(answer.status, 401, "{route:?}: {answer:?}");
        scene.note(("entry", method, route.path), &answer);
    }
    bare.galo.signal(SIGTERM);
    wait_until("it says that it stops", || bare.get("/healthz").status == 503);
    scene.note(("entry", "GET", "/healthz"), &bare.get("/healthz"));
}
