//! One session: login, one tunnel, the data channel, and the loop that pairs streams with announcements.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{json, Value};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{interval_at, timeout, Instant};
use tokio_tungstenite::tungstenite::{Error, Message};
use uuid::Uuid;
use yamux::{Config, Connection, Mode};

use crate::bytes::Bytes;
use crate::connect::{Failure, Server, Socket};
use crate::pump::{self, Piped};

const ANSWER: Duration = Duration::from_secs(10);
const PING_EVERY: Duration = Duration::from_secs(30);
const RELEASE: &str = "0.3.6";

pub struct Options {
    server: Server,
    protocol: String,
    subdomain: Option<String>,
    local: Arc<str>,
    token_file: PathBuf,
}

impl Options {
    pub fn from_arguments(arguments: Vec<String>) -> Result<Self, String> {
        let [address, protocol, subdomain, local, token_file, ca_file] =
            <[String; 6]>::try_from(arguments).map_err(|_| {
                "usage: SERVER:PORT PROTOCOL SUBDOMAIN|- LOCAL:PORT TOKEN_FILE CA_FILE".to_owned()
            })?;
        let server = Server::new(address, ca_file.as_ref()).map_err(|error| error.to_string())?;
        Ok(Self {
            server,
            protocol,
            subdomain: (subdomain != "-").then_some(subdomain),
            local: local.into(),
            token_file: token_file.into(),
        })
    }
}

/// How a session ended, and so what comes next.
pub enum End {
    /// A close frame and an orderly end: stay away.
    Goodbye,
    /// The server does not want this client.
    Fatal(String),
    /// Anything else: come back.
    Lost(String),
}

impl<E: Into<Failure>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Lost(error.into().to_string())
    }
}

pub async fn run(options: &Options) -> End {
    match serve(options).await {
        Ok(()) => End::Goodbye,
        Err(end) => end,
    }
}

pub fn tell(event: &str, fields: &[(&str, String)]) {
    let mut line = json!({ "event": event });
    for (key, value) in fields {
        line[key] = value.as_str().into();
    }
    println!("{line}");
}

async fn serve(options: &Options) -> Result<(), End> {
    let mut control = options.server.open("/_control").await?;
    let session = log_in(&mut control, options).await?;
    let url = register(&mut control, options).await?;
    let data = options.server.open(&format!("/_data/{session}")).await?;
    tell("tunnel_opened", &[("url", url)]);
    pair(control, data, options).await
}

async fn log_in(control: &mut Socket, options: &Options) -> Result<String, End> {
    let token = std::fs::read_to_string(&options.token_file)?;
    let auth = json!({"type": "auth", "token": token.trim(), "client_version": RELEASE});
    let answer = ask(control, &auth).await?;
    match answer["type"].as_str() {
        Some("auth_ok") => Ok(answer["session_id"].as_str().unwrap_or_default().to_owned()),
        Some("auth_error") => Err(End::Fatal(answer["message"].to_string())),
        _ => Err(End::Lost(format!("not an answer to a login: {answer}"))),
    }
}

async fn register(control: &mut Socket, options: &Options) -> Result<String, End> {
    let request = json!({
        "type": "register_tunnel",
        "request_id": "00000000-0000-4000-8000-000000000001",
        "protocol": options.protocol,
        "subdomain": options.subdomain,
        "local_addr": &*options.local,
    });
    let answer = ask(control, &request).await?;
    match answer["type"].as_str() {
        Some("tunnel_registered") => {
            Ok(answer["public_url"].as_str().unwrap_or_default().to_owned())
        }
        _ => Err(End::Lost(format!("no tunnel: {answer}"))),
    }
}

/// Send and take the very next message for the answer.
async fn ask(control: &mut Socket, message: &Value) -> Result<Value, End> {
    send(control, message).await?;
    match timeout(ANSWER, control.next()).await? {
        Some(Ok(Message::Binary(answer))) => Ok(serde_json::from_slice(&answer)?),
        other => Err(End::Lost(format!("no answer: {other:?}"))),
    }
}

async fn send(control: &mut Socket, message: &Value) -> Result<(), Error> {
    control.send(Message::Binary(message.to_string().into_bytes())).await
}

/// Serve until the control channel or the data channel ends.
async fn pair(mut control: Socket, data: Socket, options: &Options) -> Result<(), End> {
    let connection = Connection::new(Bytes::new(data), Config::default(), Mode::Server);
    let (found, mut streams) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new(); // all are aborted when the session ends
    tasks.spawn(accept(connection, found));
    let mut announced: HashSet<Uuid> = HashSet::new();
    let mut unannounced: HashMap<Uuid, Piped> = HashMap::new();
    let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    loop {
        tokio::select! {
            biased;
            _ = pings.tick() => send(&mut control, &json!({"type": "ping", "timestamp": 1})).await?,
            stream = streams.recv() => {
                let Some((id, stream)) = stream else {
                    return Err(End::Lost("yamux data connection closed".into()));
                };
                if announced.remove(&id) {
                    start(&mut tasks, stream, options);
                } else {
                    unannounced.insert(id, stream);
                }
            }
            message = control.next() => {
                let Some(message) = message else { return Ok(()) };
                let Message::Binary(message) = message? else { continue };
                let Ok(message) = serde_json::from_slice::<Value>(&message) else { continue };
                match message["type"].as_str() {
                    Some("ping") => {
                        let pong = json!({"type": "pong", "timestamp": message["timestamp"]});
                        send(&mut control, &pong).await?;
                    }
                    Some("new_connection") => {
                        let id = message["conn_id"].as_str().and_then(|id| id.parse().ok());
                        let Some(id) = id else { continue };
                        match unannounced.remove(&id) {
                            Some(stream) => start(&mut tasks, stream, options),
                            None => _ = announced.insert(id),
                        }
                    }
                    _ => {}
                }
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}

fn start(tasks: &mut JoinSet<()>, stream: Piped, options: &Options) {
    let local = options.local.clone();
    tasks.spawn(async move {
        // An error of either side ends the stream, and dropping it says so to the server.
        let _ = pump::join(stream, &local).await;
    });
}

/// Drive the connection; streams are handed over once their ids are read.
async fn accept(mut connection: Connection<Bytes>, found: mpsc::UnboundedSender<(Uuid, Piped)>) {
    let mut readers = JoinSet::new();
    while let Some(Ok(stream)) = poll_fn(|context| connection.poll_next_inbound(context)).await {
        let found = found.clone();
        readers.spawn(async move {
            if let Ok(pair) = pump::read_id(stream).await {
                let _ = found.send(pair);
            }
        });
        while readers.try_join_next().is_some() {}
    }
}
