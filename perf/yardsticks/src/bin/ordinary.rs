//! The ordinary server: the same job in the way most people would do it. axum on tokio, serde for
//! the body, a set behind a lock for the ids, a channel as the queue, a few workers with reqwest.
//!
//!     ordinary [--listen IP:PORT] [--default-url URL] [--fallback-url URL] [--workers N]
//!
//! It validates, de-duplicates, queues, forwards with retries, and sums. It has no journal and no
//! second instance, and what it promises when a processor is slow or silent is nothing.
//! Prints `listening on ADDRESS` when it takes connections. Runs until it is killed.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use chrono::{DateTime, SecondsFormat, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use uuid::Uuid;

/// How long a worker waits before it tries a payment again that neither processor took.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payment {
    correlation_id: Uuid,
    #[serde(with = "rust_decimal::serde::arbitrary_precision")]
    amount: Decimal,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Attempt {
    correlation_id: Uuid,
    #[serde(with = "rust_decimal::serde::arbitrary_precision")]
    amount: Decimal,
    requested_at: String,
}

/// A payment that a processor has taken.
struct Settled {
    amount: Decimal,
    requested_at: DateTime<Utc>,
    processor: usize,
}

#[derive(Clone)]
struct App {
    queue: mpsc::UnboundedSender<Payment>,
    ids: Arc<Mutex<HashMap<Uuid, Decimal>>>,
    settled: Arc<Mutex<Vec<Settled>>>,
}

struct Arguments {
    listen: String,
    urls: [String; 2],
    workers: usize,
}

fn arguments() -> Option<Arguments> {
    let mut chosen = Arguments {
        listen: "127.0.0.1:0".into(),
        urls: ["http://127.0.0.1:8001".into(), "http://127.0.0.1:8002".into()],
        workers: 32,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--listen" => chosen.listen = words.next()?,
            "--default-url" => chosen.urls[0] = words.next()?,
            "--fallback-url" => chosen.urls[1] = words.next()?,
            "--workers" => chosen.workers = words.next()?.parse().ok()?,
            _ => return None,
        }
    }
    Some(chosen)
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let Some(Arguments { listen, urls, workers }) = arguments() else {
        eprintln!(
            "ordinary [--listen IP:PORT] [--default-url URL] [--fallback-url URL] [--workers N]"
        );
        std::process::exit(2);
    };
    let (queue, jobs) = mpsc::unbounded_channel();
    let app = App { queue, ids: Arc::default(), settled: Arc::default() };
    let jobs = Arc::new(tokio::sync::Mutex::new(jobs));
    let client = reqwest::Client::builder()
        .tcp_nodelay(true)
        .timeout(Duration::from_secs(10))
        .build()
        .map_err(std::io::Error::other)?;
    let urls = Arc::new(urls.map(|url| format!("{}/payments", url.trim_end_matches('/'))));
    for _ in 0..workers {
        tokio::spawn(work(jobs.clone(), client.clone(), urls.clone(), app.settled.clone()));
    }
    let router = Router::new()
        .route("/payments", post(take))
        .route("/payments-summary", get(summary))
        .with_state(app);
    let listener = tokio::net::TcpListener::bind(&listen).await?;
    println!("listening on {}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await
}

/// `POST /payments`
async fn take(State(app): State<App>, Json(payment): Json<Payment>) -> StatusCode {
    if payment.amount < Decimal::new(1, 2) {
        return StatusCode::UNPROCESSABLE_ENTITY;
    }
    let known = app.ids.lock().unwrap().insert(payment.correlation_id, payment.amount);
    match known {
        None => match app.queue.send(payment) {
            Ok(()) => StatusCode::ACCEPTED,
            Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        },
        Some(amount) if amount == payment.amount => StatusCode::ACCEPTED,
        Some(amount) => {
            app.ids.lock().unwrap().insert(payment.correlation_id, amount);
            StatusCode::UNPROCESSABLE_ENTITY
        }
    }
}

/// Sends one payment after the other, the default processor first, until one takes it.
async fn work(
    jobs: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Payment>>>,
    client: reqwest::Client,
    urls: Arc<[String; 2]>,
    settled: Arc<Mutex<Vec<Settled>>>,
) {
    loop {
        let next = jobs.lock().await.recv().await;
        let Some(payment) = next else { return };
        let requested_at = Utc::now();
        let attempt = Attempt {
            correlation_id: payment.correlation_id,
            amount: payment.amount,
            requested_at: requested_at.to_rfc3339_opts(SecondsFormat::Millis, true),
        };
        let mut turn = 0;
        let processor = loop {
            let answer = client.post(&urls[turn % 2]).json(&attempt).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                break turn % 2;
            }
            turn += 1;
            if turn % 2 == 0 {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        };
        let done = Settled { amount: payment.amount, requested_at, processor };
        settled.lock().unwrap().push(done);
    }
}

#[derive(Deserialize)]
struct Window {
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
}

#[derive(Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Totals {
    total_requests: u64,
    #[serde(with = "rust_decimal::serde::arbitrary_precision")]
    total_amount: Decimal,
}

#[derive(Serialize)]
struct Summary {
    default: Totals,
    fallback: Totals,
}

/// `GET /payments-summary`
async fn summary(State(app): State<App>, Query(window): Query<Window>) -> Json<Summary> {
    let mut totals = [Totals::default(); 2];
    for settled in app.settled.lock().unwrap().iter() {
        let at = settled.requested_at;
        if window.from.is_none_or(|from| at >= from) && window.to.is_none_or(|to| at <= to) {
            totals[settled.processor].total_requests += 1;
            totals[settled.processor].total_amount += settled.amount;
        }
    }
    Json(Summary { default: totals[0], fallback: totals[1] })
}
