//! A double of the stock rustunnel client: fast, and independent of moleport's code.
//!
//! It does what the protocol's description says of the stock client, with the libraries that the stock
//! client uses: tokio, tungstenite, rustls and the yamux crate. So it shows what moleport is worth to such
//! a client where a double in Python would itself be the bottleneck. Nagle's algorithm stays on, as there.
//!
//!     rustunnel-client-double SERVER:PORT PROTOCOL SUBDOMAIN LOCAL:PORT TOKEN_FILE CA_FILE
//!
//! One tunnel; `-` for a random name. What happens is told on standard output, one JSON object a line.
//! A lost session is begun anew after 1.0 s, then after about twice as long each time, as the stock client
//! does; the pause never becomes shorter again.

mod bytes;
mod connect;
mod pump;
mod session;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::process::ExitCode;
use std::time::Duration;

use session::{End, Options};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::from_arguments(std::env::args().skip(1).collect()) {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    let mut pause = FIRST_PAUSE;
    loop {
        match session::run(&options).await {
            End::Goodbye => return ExitCode::SUCCESS,
            End::Fatal(text) => {
                eprintln!("fatal: {text}");
                return ExitCode::FAILURE;
            }
            End::Lost(text) => {
                session::tell("lost", &[("reason", text)]);
                tokio::time::sleep(pause).await;
                pause = pause.mul_f64(2.0 * between(0.8, 1.2)).min(LONGEST_PAUSE);
            }
        }
    }
}

/// A random number; the hasher of the standard library has a seed that is good enough for a pause.
fn between(low: f64, high: f64) -> f64 {
    let random = RandomState::new().build_hasher().finish();
    low + (high - low) * (random as f64 / u64::MAX as f64)
}
