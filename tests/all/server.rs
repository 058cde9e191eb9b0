//! An instance as a process: how it starts, what it refuses, where it listens, what it tells about
//! itself, and how it ends. On the real binary over raw sockets.

use crate::support::system::{
    Instance, Processor, QUICK, SIGKILL, SIGTERM, Summary, TOKEN, addresses, free_address, id,
    payment,
};
use crate::support::{Client, Galo, PATIENCE, request, wait_until, wait_until_within};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A directory of one test, removed with what is in it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("galo-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("galo.sock")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn serve(args: &[&str]) -> Galo {
    // Where no processor is: nobody listens on a port of 1 there.
    let urls = ["--default-url", "http://127.0.0.1:1", "--fallback-url", "http://127.0.0.1:1"];
    Galo::start(["serve"].iter().chain(&urls).chain(args))
}

fn listen_on(path: &Path) -> String {
    format!("unix:{}", path.display())
}

fn is_served(path: &Path) -> bool {
    let mut client = Client::connect_unix(path).unwrap();
    client.call(request("GET", "/healthz", "", "")).status == 200
}

#[test]
fn it_listens_on_any_number_of_addresses_and_tells_them_in_order() {
    let directory = Directory::new("many");
    let unix = listen_on(&directory.socket());
    let listen = format!("127.0.0.1:0,{unix},[::1]:0");
    let mut galo = serve(&["--listen", &listen, "--peer-listen", "127.0.0.1:0"]);
    let first = galo.address();
    assert!(first.ip().is_loopback() && first.is_ipv4() && first.port() > 0);
    assert_eq!(galo.endpoint(), unix);
    let third = galo.address();
    assert!(third.is_ipv6());
    let peer_door = galo.address();
    for address in [first, third] {
        assert_eq!(Client::connect(address).call(payment(&id(1), "1")).status, 202);
    }
    let mut client = Client::connect_unix(&directory.socket()).unwrap();
    assert_eq!(client.call(payment(&id(1), "2")).status, 422, "one instance behind all of them");
    assert_eq!(Client::connect(peer_door).call(payment(&id(1), "1")).status, 404);
}

/// As people write it for nginx and HAProxy, in either order; and `[::]` alone takes both.
#[test]
fn both_families_may_have_the_same_port() {
    let answers = |host: &str, port: u16| {
        let client = Client::try_connect(SocketAddr::new(host.parse().unwrap(), port));
        client.is_ok_and(|mut client| client.call(payment(&id(1), "1")).status == 202)
    };
    let port = free_port_of_both_families();
    for listen in [
        format!("0.0.0.0:{port},[::]:{port}"),
        format!("[::]:{port},0.0.0.0:{port}"),
        format!("[::1]:{port},127.0.0.1:{port}"),
        format!("[::]:{port}"),
    ] {
        for threads in ["1", "3"] {
            let mut galo = serve(&["--listen", &listen, "--threads", threads]);
            for address in listen.split(',') {
                assert_eq!(galo.endpoint(), address);
            }
            assert!(answers("127.0.0.1", port) && answers("::1", port), "{listen}");
        }
    }
}

/// A port that nobody uses, in no family: of one that the kernel has just given for both.
fn free_port_of_both_families() -> u16 {
    std::net::TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn one_event_loop_or_several_serve_alike() {
    let directory = Directory::new("threads");
    for threads in ["1", "3"] {
        let mut processors = Processor::both();
        let unix = listen_on(&directory.socket());
        let args = ["--threads", threads, "--allow-purge", "--listen", &unix];
        let mut all: Vec<String> = ["serve", "--listen", "127.0.0.1:0"].map(String::from).to_vec();
        let urls = addresses(&processors).map(|address| format!("http://{address}"));
        all.extend(["--default-url", &urls[0], "--fallback-url", &urls[1]].map(String::from));
        all.extend(args.map(String::from));
        let mut galo = Galo::start(&all);
        let entry = galo.address();
        galo.endpoint();
        for number in 0..40 {
            // On connections of their own: the kernel spreads them over the threads.
            let payment = payment(&id(number), "1.00");
            let answer = match number % 2 {
                0 => Client::connect(entry).call(payment),
                _ => Client::connect_unix(&directory.socket()).unwrap().call(payment),
            };
            assert_eq!(answer.status, 202, "{threads} threads");
        }
        let mut client = Client::connect(entry);
        let mut summary =
            || Summary::read(&client.call(request("GET", "/payments-summary", "", "")).body);
        wait_until("all are settled", || summary().count() == 40);
        assert_eq!(summary().cents(), 4_000);
        assert_eq!(client.call(request("POST", "/purge-payments", "", "")).status, 200);
        assert!(processors[0].counters().contains(r#""payments":40"#));
        galo.signal(SIGTERM);
        let (status, stderr) = galo.wait();
        assert!(status.success(), "{threads} threads: {status}\n{stderr}");
    }
}

#[test]
fn a_stale_unix_socket_is_replaced_and_a_live_one_refused() {
    let directory = Directory::new("stale");
    let path = directory.socket();
    let mut first = serve(&["--listen", &listen_on(&path)]);
    first.endpoint();
    assert!(is_served(&path));

    let mut second = serve(&["--listen", &listen_on(&path)]);
    let (status, stderr) = second.wait();
    assert_refused(status, &stderr, &listen_on(&path));
    assert!(is_served(&path), "the first one is none the worse for it");

    first.signal(SIGKILL);
    first.wait();
    assert!(path.exists(), "killed, it could not clean up");
    wait_until("nobody listens any more", || Client::connect_unix(&path).is_err());
    let mut third = serve(&["--listen", &listen_on(&path)]);
    third.endpoint();
    assert!(is_served(&path));
}

#[test]
fn what_is_no_socket_is_never_replaced() {
    let directory = Directory::new("file");
    let path = directory.socket();
    std::fs::write(&path, "precious").unwrap();
    let (status, stderr) = serve(&["--listen", &listen_on(&path)]).wait();
    assert_refused(status, &stderr, &listen_on(&path));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

/// Exit code 2, and one line on standard error that names what was wrong.
fn assert_refused(status: std::process::ExitStatus, stderr: &str, named: &str) {
    assert_eq!(status.code(), Some(2), "{stderr}");
    let lines: Vec<_> = stderr.lines().collect();
    assert!(matches!(lines[..], [line] if line.starts_with("galo: ")), "one line:\n{stderr}");
    assert!(stderr.contains(named), "{named}: {stderr}");
}

#[test]
fn a_port_in_use_is_refused() {
    let instance = Instance::alone(&[]);
    let taken = instance.entry.to_string();
    let free = "127.0.0.1:0";
    for (listen, peer_listen) in [(&*taken, free), (free, &*taken)] {
        let (status, stderr) = serve(&["--listen", listen, "--peer-listen", peer_listen]).wait();
        assert_refused(status, &stderr, &taken);
    }
    assert_eq!(instance.get("/healthz").status, 200);
    // Unless it is shared on purpose.
    let first_port = free_address().to_string();
    let mut sharing = [0, 1].map(|_| serve(&["--listen", &first_port, "--share-port"]));
    for galo in &mut sharing {
        assert_eq!(galo.endpoint(), first_port);
    }
    // An address that is none of this machine's.
    let (status, stderr) = serve(&["--listen", "192.0.2.1:0"]).wait();
    assert_refused(status, &stderr, "192.0.2.1:0");
}

#[test]
fn it_has_its_port_back_at_once_after_any_end() {
    let mut instance = Instance::start(
        [free_address(), free_address()],
        &["--listen", &free_address().to_string()],
    );
    // The second of its addresses is the fixed one, so that is where the peer's door was read.
    let fixed = instance.peer_door;
    for signal in [SIGTERM, SIGKILL, SIGTERM, SIGKILL] {
        let mut client = Client::connect(fixed);
        assert_eq!(client.call(request("GET", "/healthz", "", "")).status, 200);
        instance.galo.signal(signal);
        instance.start_again();
        assert_eq!(instance.peer_door, fixed);
    }
}

#[test]
fn impossible_settings_are_refused_by_name() {
    let peer = ["--peer-listen", "127.0.0.1:0", "--peer", "http://127.0.0.1:1"];
    let ours: [(&[&str], &str); 6] = [
        (&peer, "--peer-token"),
        (&[&peer[..], &["--peer-token", "short"]].concat(), "--peer-token"),
        (&["--peer-token", "with a space"], "--peer-token"),
        (&["--queue-capacity", "2000", "--ids-remembered", "1000"], "--ids-remembered"),
        (&["--processor-timeout", "1s"], "--processor-timeout"),
        (&["--idle-timeout", "0s"], "--idle-timeout"),
    ];
    for (args, named) in ours {
        let (status, stderr) = serve(&[args, &["--listen", "127.0.0.1:0"]].concat()).wait();
        assert_refused(status, &stderr, named);
    }
    let typed: [(&[&str], &str); 8] = [
        (&["--listen", "nowhere"], "--listen"),
        (&["--listen", "unix:"], "--listen"),
        (&["--threads", "0"], "--threads"),
        (&["--default-fee", "2"], "--default-fee"),
        (&["--peer", "http://127.0.0.1:1"], "--peer-listen"),
        (&["--patience", "soon"], "--patience"),
        (&["--durability", "perhaps"], "--durability"),
        (&["--unheard-of"], "--unheard-of"),
    ];
    for (args, named) in typed {
        let (status, stderr) = serve(args).wait();
        assert_eq!(status.code(), Some(2), "{args:?}\n{stderr}");
        assert!(stderr.contains(named), "{args:?}: {stderr}");
    }
}

#[test]
fn settings_may_come_from_the_environment() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_galo"));
    command.arg("serve").env("GALO_LISTEN", "127.0.0.1:0").env("GALO_QUEUE_CAPACITY", "1");
    let urls = ["GALO_DEFAULT_URL", "GALO_FALLBACK_URL"];
    command.envs(urls.map(|name| (name, "http://127.0.0.1:1")));
    let mut galo = Galo::spawn(command);
    let mut client = Client::connect(galo.address());
    assert_eq!(client.call(payment(&id(1), "1")).status, 202);
    assert_eq!(client.call(payment(&id(2), "1")).status, 503);
}

#[test]
fn metrics_tell_what_happened() {
    let mut processors = Processor::both();
    let instance = Instance::start(addresses(&processors), &["--threads", "2"]);
    let mut client = instance.client();
    for (payment, status) in [
        (payment(&id(1), "19.90"), 202),
        (payment(&id(1), "19.90"), 202),
        (payment(&id(1), "19.91"), 422),
        (payment(&id(2), "0.10"), 202),
        (payment(&id(3), "0"), 422),
    ] {
        assert_eq!(client.call(payment).status, status);
    }
    instance.settle();
    for (series, value) in [
        (r#"galo_payments_total{outcome="accepted"}"#, 2),
        (r#"galo_payments_total{outcome="repeated"}"#, 1),
        (r#"galo_payments_total{outcome="refused"}"#, 2),
        (r#"galo_payments_total{outcome="turned_away"}"#, 0),
        (r#"galo_settled_total{processor="default"}"#, 2),
        (r#"galo_settled_total{processor="fallback"}"#, 0),
        (r#"galo_settled_cents_total{processor="default"}"#, 2_000),
        (r#"galo_attempt_seconds_count{processor="default"}"#, 2),
        (r#"galo_processor_up{processor="default"}"#, 1),
        ("galo_entry_seconds_count", 5),
        ("galo_outstanding", 0),
        ("galo_waiting", 0),
        ("galo_in_flight", 0),
        ("galo_in_doubt", 0),
        ("galo_connections{door=\"entry\"}", 1),
        ("galo_event_loops", 2),
    ] {
        wait_until(series, || instance.metric(series) == value);
    }
    assert!(instance.metric("process_open_fds") > 5);
    let answer = Client::connect(instance.peer_door).call(request("GET", "/metrics", "", ""));
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4"));
    // The exposition format: each metric is introduced before its samples.
    let mut known = "";
    for line in answer.body.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(introduced) => known = introduced.split(' ').next().unwrap(),
            None if line.starts_with("# HELP ") => {}
            None => assert!(line.starts_with(known), "{line} under {known}"),
        }
    }
    assert_eq!(processors[0].books().len(), 2);
}

/// A crowd of clients takes no descriptor from the processors, the journal and the peer's door:
/// whoever comes beyond is told so, and what was taken in is settled.
#[test]
fn where_files_are_few_a_crowd_is_turned_away_and_payments_go_on() {
    const CLIENTS: usize = 300;
    let directory = Directory::new("files");
    let data = directory.0.join("data");
    let processors = Processor::both();
    let urls = addresses(&processors).map(|address| format!("http://{address}"));
    let mut command = std::process::Command::new("sh");
    command.args([
        "-c",
        "ulimit -n 200 && exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_galo"),
        "serve",
    ]);
    command.args(["--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"]);
    command.args(["--default-url", &urls[0], "--fallback-url", &urls[1]]).arg("--data").arg(&data);
    let mut galo = Galo::spawn(command);
    let (entry, peer_door) = (galo.address(), galo.address());
    let mut inside = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Client::connect(entry);
        match client.call(request("GET", "/healthz", "", "")).status {
            200 => inside.push(client),
            status => assert_eq!(status, 503),
        }
    }
    assert!((20..CLIENTS / 2).contains(&inside.len()), "{} are inside", inside.len());
    for (number, client) in inside.iter_mut().enumerate() {
        assert_eq!(client.call(payment(&id(number as u64), "1.00")).status, 202);
    }
    let expected = format!("galo_settled_total{{processor=\"default\"}} {}\n", inside.len());
    let mut watcher = Client::connect(peer_door);
    wait_until("all are settled", || {
        watcher.call(request("GET", "/metrics", "", "")).body.contains(&expected)
    });
    let stderr = galo.stderr();
    let warnings: Vec<&str> = stderr.lines().filter(|line| line.contains("WARN")).collect();
    assert!(matches!(warnings[..], [line] if line.contains("only 200 files")), "{stderr}");
    assert!(!stderr.contains("ERROR"), "{stderr}");

    let (status, stderr) = {
        let mut command = std::process::Command::new("sh");
        let galo = env!("CARGO_BIN_EXE_galo");
        command.args(["-c", "ulimit -n 60 && exec \"$0\" \"$@\"", galo, "serve"]);
        Galo::spawn(command).wait()
    };
    assert_refused(status, &stderr, "ulimit -n");
}

#[test]
fn a_full_queue_turns_payments_away_and_stores_nothing_of_them() {
    let down = [free_address(), free_address()];
    let args = [&QUICK[..], &["--queue-capacity", "10"]].concat();
    let instance = Instance::start(down, &args);
    let mut client = instance.client();
    for number in 0..10 {
        assert_eq!(client.call(payment(&id(number), "1.00")).status, 202);
    }
    for number in 10..15 {
        let answer = client.call(payment(&id(number), "1.00"));
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
        assert_eq!(answer.body, r#"{"error":"The queue is full."}"#);
    }
    assert_eq!(instance.outstanding(), 10);
    assert_eq!(instance.metric(r#"galo_payments_total{outcome="turned_away"}"#), 5);

    let mut processors = down.map(Processor::at);
    wait_until_within(PATIENCE, "there is room again", || {
        match client.call(payment(&id(14), "2.00")).status {
            202 => Ok(()),
            503 => Err(instance.galo.stderr()),
            other => panic!("an amount that was turned away is remembered: {other}"),
        }
    });
    instance.settle();
    let books = processors.each_mut().map(|processor| processor.books()).concat();
    let mut ids: Vec<_> = books.iter().map(|row| row.id.clone()).collect();
    ids.sort();
    let expected: Vec<_> = (0..10).chain([14]).map(id).collect();
    assert_eq!(ids, expected, "what was turned away was not paid");
    assert_eq!(instance.summary("").cents(), 1_200);
}

#[test]
fn sigterm_settles_what_was_accepted_and_exits_0() {
    let mut processors = Processor::both();
    processors.iter_mut().for_each(|processor| processor.set_delay_ms(1_000));
    let mut instance = Instance::start(addresses(&processors), &[]);
    let mut client = instance.client();
    for number in 0..50 {
        assert_eq!(client.call(payment(&id(number), "1.00")).status, 202);
    }
    instance.galo.signal(SIGTERM);
    // While it drains it takes no more, and says so.
    wait_until("it drains", || instance.galo.stderr().contains("stopping"));
    let answer = wait_until_within(PATIENCE, "nothing more is taken", || {
        let answer = client.call(payment(&id(99), "1.00"));
        if answer.status == 503 { Ok(answer) } else { Err(format!("{answer:?}")) }
    });
    assert!(answer.body.contains("stopping"), "{answer:?}");
    assert_eq!(client.call(request("GET", "/healthz", "", "")).status, 503);
    let (status, stderr) = instance.galo.wait();
    assert_eq!(status.code(), Some(0), "{stderr}");
    let booked = processors.each_mut().map(|processor| processor.books().len());
    let late = client_was_late(&mut processors);
    assert_eq!(booked[0] + booked[1], 50 + late, "{stderr}");
}

/// Whether the payment that was to be refused came before the draining began.
fn client_was_late(processors: &mut [Processor; 2]) -> usize {
    let all = processors.each_mut().map(|processor| processor.books()).concat();
    all.iter().filter(|row| row.id == id(99)).count()
}

#[test]
fn while_the_balancer_is_given_notice_work_is_still_taken() {
    let processors = Processor::both();
    let args = ["--drain-notice", "1s"];
    let mut instance = Instance::start(addresses(&processors), &args);
    let mut client = instance.client();
    assert_eq!(client.call(request("GET", "/healthz", "", "")).status, 200);
    let started = Instant::now();
    instance.galo.signal(SIGTERM);
    wait_until("it says so", || client.call(request("GET", "/healthz", "", "")).status == 503);
    assert_eq!(client.call(payment(&id(1), "1.00")).status, 202);
    assert_eq!(Client::connect(instance.entry).call(payment(&id(2), "1.00")).status, 202);
    let (status, stderr) = instance.galo.wait();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(started.elapsed() >= Duration::from_secs(1));
    let [mut default, mut fallback] = processors;
    assert_eq!(default.books().len() + fallback.books().len(), 2);
}

#[test]
fn what_cannot_be_settled_is_named_and_not_a_success() {
    let mut instance = Instance::alone(&["--drain-timeout", "200ms"]);
    assert_eq!(instance.pay(&id(1), "1").status, 202);
    instance.galo.signal(SIGTERM);
    let (status, stderr) = instance.galo.wait();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("1 payments accepted and not settled"), "{stderr}");
    // A second signal ends the waiting.
    let mut instance = Instance::alone(&[]);
    assert_eq!(instance.pay(&id(1), "1").status, 202);
    let started = Instant::now();
    instance.galo.signal(SIGTERM);
    wait_until("it drains", || instance.galo.stderr().contains("stopping"));
    instance.galo.signal(SIGTERM);
    assert_eq!(instance.galo.wait().0.code(), Some(1));
    assert!(started.elapsed() < Duration::from_secs(10));
}

/// The peer's door alone has the token; without one nobody is let in.
#[test]
fn without_a_token_the_peers_door_stays_shut() {
    let mut galo = serve(&["--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"]);
    let (_, door): (SocketAddr, SocketAddr) = (galo.address(), galo.address());
    for token in ["", TOKEN] {
        let authorization = format!("Authorization: Bearer {token}\r\n");
        let call = request("GET", "/peer/totals", &authorization, "");
        assert_eq!(Client::connect(door).call(call).status, 401);
    }
    assert_eq!(Client::connect(door).call(request("GET", "/metrics", "", "")).status, 200);
}
