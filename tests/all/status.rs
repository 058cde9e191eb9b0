//! What an instance says of how things stand: one document over both, whose sentence is true.

use crate::support::journals::Scratch;
use crate::support::system::{
    Instance, Processor, QUICK, addresses, free_address, id, pair_with, see_each_other,
};
use crate::support::{Client, request, wait_until};
use serde_json::Value;
use std::net::SocketAddr;
use std::process::Command;

const SECRET: &str = "correct-horse";

/// A pair on journals, each with an admin door.
struct Scene {
    processors: [Processor; 2],
    instances: [Instance; 2],
    doors: [SocketAddr; 2],
    _scratch: Scratch,
}

impl Scene {
    fn new() -> Scene {
        let scratch = Scratch::new();
        let token = scratch.join("token");
        std::fs::write(&token, SECRET).unwrap();
        let doors = [free_address(), free_address()];
        let processors = Processor::both();
        let args = [0, 1].map(|index: usize| {
            let own = [
                "--data",
                &scratch.join(&index.to_string()),
                "--admin-listen",
                &doors[index].to_string(),
                "--admin-token-file",
                &token,
                "--allow-purge",
            ];
            let own = own.map(str::to_owned);
            QUICK.iter().map(|it| (*it).to_owned()).chain(own).collect::<Vec<_>>()
        });
        let args = args.each_ref().map(|all| all.iter().map(String::as_str).collect::<Vec<_>>());
        let instances = pair_with(addresses(&processors), args.each_ref().map(Vec::as_slice));
        Scene { processors, instances, doors, _scratch: scratch }
    }

    fn status(&self, index: usize) -> Value {
        let authorization = format!("Authorization: Bearer {SECRET}\r\n");
        let call = request("GET", "/status.json", &authorization, "");
        let answer = Client::connect(self.doors[index]).call(call);
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_str(&answer.body).unwrap()
    }

    fn pay(&self, index: usize, number: u64) {
        let answer = self.instances[index].pay(&id(number), "1.00");
        assert_eq!(answer.status, 202, "{answer:?}");
    }

    fn wait_for(&self, index: usize, level: &str, text: &str) {
        wait_until(text, || {
            let verdict = self.status(index)["verdict"].clone();
            verdict["level"] == level && verdict["text"].as_str().unwrap().contains(text)
        });
    }
}

/// Taken here and paid there, adopted by neither, forgotten by a purge, brought back by a journal:
/// whatever happens, what was accepted is somewhere.
#[test]
fn the_sentence_says_how_things_stand() {
    let mut scene = Scene::new();
    for number in 0..10 {
        scene.pay(number as usize / 5, number);
    }
    for index in [0, 1] {
        let all = "Balanced: 10 accepted = 10 default + 0 fallback + 0 on their way";
        scene.wait_for(index, "green", all);
    }
    scene.instances[1].kill();
    scene.wait_for(0, "amber", "The other instance does not answer");
    wait_until("it is away", || scene.instances[0].metric("galo_peer_up") == 0);
    // Its home is away.
    scene.pay(0, 11);
    scene.wait_for(0, "amber", "1 wait at instance 1 for instance 2. ");
    scene.instances[1].start_again();
    see_each_other(&scene.instances);
    scene.wait_for(1, "green", "Balanced: 11 accepted = 11 default + 0 fallback + 0 on");
    for processor in &mut scene.processors {
        processor.set_failing(true);
    }
    scene.pay(1, 12);
    scene.wait_for(
        1,
        "amber",
        "1 wait at instance 1: no processor is up. Balanced: 12 accepted = 11 ",
    );
    scene.instances[0].kill();
    scene.instances[0].start_again();
    see_each_other(&scene.instances);
    scene.wait_for(0, "amber", "Balanced: 12 accepted = 11 default + 0 fallback + 1 on their way");
    let purge = request("POST", "/purge-payments", "", "");
    assert_eq!(scene.instances[0].client().call(purge).status, 200);
    scene.wait_for(1, "green", "Balanced: 0 accepted = 0 default + 0 fallback + 0 on their way");
}

/// Both numbers and words of each instance come from itself.
#[test]
fn one_document_has_both_instances() {
    let mut scene = Scene::new();
    scene.processors[0].set_failing(true);
    for number in 0..4 {
        scene.pay(0, number);
    }
    scene.wait_for(0, "green", "4 fallback");
    wait_until("both know that it is down", || {
        let status = scene.status(1);
        let instances = status["instances"].as_array().unwrap();
        assert_eq!(instances.len(), 2);
        instances.iter().enumerate().all(|(index, it)| {
            assert_eq!(it["instance"], index + 1);
            assert!(it["memoryBytes"].as_u64().unwrap() > 1 << 20, "{it}");
            assert_eq!(it["journal"]["durability"], "process");
            let logged = it["log"].as_array().unwrap();
            assert!(!logged.is_empty() && logged.len() <= 20, "{it}");
            let default = &it["processors"][0];
            default["up"] == false && default["why"] == "failing" && default["settled"] == 0
        })
    });
    assert_eq!(scene.status(0)["instances"][0]["payments"]["accepted"], 4);
    assert_eq!(scene.status(0)["instances"][1]["payments"]["accepted"], 0);
}

/// `galo report` with these arguments: its exit code, and what it says of trouble.
fn report(args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_galo"));
    let output = command.arg("report").args(args).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_a_door_has_said_becomes_a_page_that_asks_nobody() {
    let scene = Scene::new();
    let folder = Scratch::new();
    let path = |name: &str| folder.join(name);
    scene.pay(0, 2);
    scene.pay(0, 3);
    scene.wait_for(0, "green", "Balanced: 2 accepted = 2 default + 0 fallback + 0 on their way");
    let document = scene.status(0).to_string();
    std::fs::write(path("run"), format!("{document}\n\n{document}\n")).unwrap();
    std::fs::write(path("ended"), "A <b>GOOD</b> RUN\n").unwrap();
    let args = [&path("run")[..], "--to", &path("page"), "--ended", &path("ended"), "--badly"];
    assert_eq!(report(&args), (Some(0), String::new()));
    let page = std::fs::read_to_string(path("page")).unwrap();
    for part in ["connect-src 'none'", "Balanced: 2 accepted", "A \\u003cb>GOOD", "\"good\":false"]
    {
        assert!(page.contains(part), "no {part}: {page}");
    }
    let half = &document[..document.len() / 2];
    let long = "x".repeat(2 << 20);
    for lines in ["", "\n", half, "{\"error\":\"The token is missing or wrong.\"}\n", &long] {
        std::fs::write(path("run"), lines).unwrap();
        let (code, said) = report(&[&path("run"), "--to", &path("page")]);
        let expected = format!("galo: {}: there is no status document in it\n", path("run"));
        assert_eq!((code, said), (Some(2), expected));
        assert_eq!(std::fs::read_to_string(path("page")).unwrap(), page, "it is as it was");
    }
    std::fs::write(path("run"), format!("{{}}\n{document}\n{half}")).unwrap();
    let (code, said) = report(&[&path("run"), "--to", &path("page")]);
    let expected = format!("galo: {}: 2 lines are no status document\n", path("run"));
    assert_eq!((code, said), (Some(0), expected));
}
