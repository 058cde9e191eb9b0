//! What templates become, for any payment.

use super::*;
use proptest::prelude::*;

const EXAMPLE: Filling = Filling {
    id: PaymentId(0x4a79_01b8_7d26_4d9d_aa19_4dc1_c7cf_60b3),
    amount: Cents(1_990),
    requested_at: Timestamp(1_594_384_496_123),
};

fn written(template: &Template, filling: &Filling) -> String {
    let mut out = Vec::new();
    template.write(&mut out, filling);
    assert_eq!(out.len(), template.length(filling));
    String::from_utf8(out).unwrap()
}

#[test]
fn places_are_filled_and_white_space_between_is_dropped() {
    let body = " {\n \"ref\" : \"p {id} \\\" {cents}\", \"sum\": [ {cents} , {amount}, true ],\n\
        \"at\": \"{requestedAt}\", \"é\": { } }\n";
    let template = Template::json(body).unwrap();
    assert_eq!(
        written(&template, &EXAMPLE),
        r#"{"ref":"p 4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3 \" 1990","sum":[1990 ,19.90,true ],"at":"2020-07-10T12:34:56.123Z","é":{}}"#
    );
    let form = Template::form("amount={cents}&metadata[at]={requestedAt}&a%20b=c+d\n").unwrap();
    assert_eq!(
        written(&form, &EXAMPLE),
        "amount=1990&metadata[at]=2020-07-10T12%3A34%3A56.123Z&a%20b=c+d"
    );
    let path = Template::path("/v1/charges/{id}?expand[]=x", &[Place::Id]).unwrap();
    assert_eq!(
        written(&path, &EXAMPLE),
        "/v1/charges/4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3?expand[]=x"
    );
    assert!(path.has(Place::Id) && !path.has(Place::Amount));
}

#[test]
fn what_would_not_be_json_for_some_payment_is_refused() {
    for (body, named) in [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[{cents}]", "a JSON object"),
        ("{\"a\":{cents}", "no JSON"),
        ("{\"a\":{ammount}}", "{ammount} is no place"),
        ("{\"a\":\"{ID}\"}", "{ID} is no place"),
        ("{\"a\":{id}}", "{id} must stand in quotes"),
        ("{\"a\":1{cents}}", "must stand alone"),
        ("{\"a\":-{cents}}", "must stand alone"),
        ("{\"a\":{cents}{cents}}", "must stand alone"),
        ("{\"a\":{cents}0}", "must stand alone"),
        ("{\"a\":{cents}.5}", "must stand alone"),
        ("{{cents}:1}", "must stand alone"),
        ("{\"a\":\"\\{id}\"}", "unfinished escape"),
        ("{\"a\":\"\\u00{id}\"}", "unfinished escape"),
        ("{\"a\":\"\n{id}\"}", "no JSON"),
        ("{\"a\":1 2}", "no JSON"),
        ("{\"a\":tr ue}", "no JSON"),
        ("{\"a\":\"b\" \"c\"}", "no JSON"),
        ("{'a':1}", "no JSON"),
        ("{\"a\":1,}", "no JSON"),
        ("{\"a\":1 {cents}}", "no JSON"),
    ] {
        let refused = Template::json(body).unwrap_err();
        assert!(refused.contains(named), "{body}: {refused}");
    }
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(40), "]".repeat(40));
    assert!(Template::json(&deep).unwrap_err().contains("deeper"));
}

#[test]
fn what_cannot_be_in_a_path_a_header_or_a_form_is_refused() {
    for path in [
        "",
        "x",
        "//x",
        "/ ",
        "/a b",
        "/\r\nX: y",
        "/é",
        "/%",
        "/%4",
        "/%zz",
        "/#x",
        "/\"",
        "/{x}",
        "/{amount}",
        "/{",
        "/}",
        "/\0",
    ] {
        assert!(Template::path(path, &[Place::Id]).is_err(), "{path:?}");
    }
    for value in ["", " a", "a ", "a\r\nb", "a\nb", "a\tb", "é", "\u{7f}", "{x}", "{amount}"] {
        assert!(Template::header(value, &[Place::Id]).is_err(), "{value:?}");
    }
    for form in ["a b", "a=é", "a=%2", "a={x}", "a=\"", "a={", "a=b\nc"] {
        assert!(Template::form(form).is_err(), "{form:?}");
    }
}

fn filling() -> impl Strategy<Value = Filling> {
    (any::<u128>(), any::<i64>(), 0..253_402_300_800_000_i64).prop_map(|(id, cents, at)| Filling {
        id: PaymentId(id),
        amount: Cents(cents),
        requested_at: Timestamp(at),
    })
}

/// Bits of documents, of which some are JSON.
fn bits() -> impl Strategy<Value = String> {
    let bit = prop_oneof![
        Just("{cents}"),
        Just("{amount}"),
        Just("{id}"),
        Just("{requestedAt}"),
        Just("\""),
        Just("\\"),
        Just("\\u00"),
        Just(","),
        Just(":"),
        Just("["),
        Just("]"),
        Just("{"),
        Just("}"),
        Just(" "),
        Just("1"),
        Just("-"),
        Just("."),
        Just("e"),
        Just("true"),
        Just("\"a\":"),
        Just("\"{id}\""),
        Just("é"),
    ];
    proptest::collection::vec(bit, 0..12).prop_map(|bits| bits.concat())
}

proptest! {
    /// Whatever is let pass is JSON for every payment, and means the same as with its white space.
    #[test]
    fn what_is_json_once_is_json_always(inner in bits(), filling in filling()) {
        for text in [inner.clone(), format!("{{\"a\":{inner}}}"), format!("{{\"a\":[{inner}]}}")] {
            let Ok(template) = Template::json(&text) else { continue };
            let body = written(&template, &filling);
            let read: serde_json::Value = serde_json::from_str(&body)
                .map_err(|error| TestCaseError::fail(format!("{text}: {body}: {error}")))?;
            prop_assert!(read.is_object());
            let plain = Template::parse(&text, &Place::ALL).unwrap();
            let spaced = written(&plain, &filling);
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&spaced).unwrap(), read);
        }
    }

    #[test]
    fn any_text_is_refused_or_fits(text: String, filling in filling()) {
        if let Ok(path) = Template::path(&text, &Place::ALL) {
            prop_assert_eq!(path_fault(&written(&path, &filling)), None);
        }
        if let Ok(value) = Template::header(&text, &Place::ALL) {
            prop_assert!(is_header_value(&written(&value, &filling)));
        }
        let _ = Template::json(&text);
        let _ = Template::form(&text);
    }
}
