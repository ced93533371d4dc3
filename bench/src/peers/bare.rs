//! The peers that are programs of ours: a gateway or a worker reduced to the work itself.
//!
//! They are as good as we can make them: hyper and axum as in the gateway, the same allocator, the same number of
//! threads, and nothing on a request's way that it doesn't need. Each runs as a process of its own.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use async_nats::ConnectOptions;
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use sqlx::Executor as _;
use sqlx::mysql::{MySqlPool, MySqlPoolOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// As many connections as the gateway has to its database.
const DATABASE_CONNECTIONS: u32 = 16;
/// How many connections may wait to be accepted.
const BACKLOG: u32 = 4096;

/// Runs a bare peer
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    peer: Peer,
}

#[derive(Debug, clap::Subcommand)]
enum Peer {
    /// Serves images from its own memory
    Memory {
        #[command(flatten)]
        http: Http,
        /// The images, each file under its key
        #[arg(long)]
        images: PathBuf,
    },
    /// Serves images from a memcached
    Memcached {
        #[command(flatten)]
        http: Http,
        #[arg(long)]
        memcached: u16,
    },
    /// Serves images that it asks for on NATS
    Bus {
        #[command(flatten)]
        http: Http,
        #[command(flatten)]
        nats: Nats,
    },
    /// Serves images by their row and their file, or stores them so
    Origin {
        #[command(flatten)]
        http: Http,
        /// The files that rows name
        #[arg(long)]
        images: PathBuf,
        /// Where files are stored
        #[arg(long)]
        uploads: PathBuf,
        #[arg(long, env = "DATABASE_URL")]
        database: String,
    },
    /// Answers each request on NATS with bytes that it holds
    Echo {
        #[command(flatten)]
        nats: Nats,
        /// The answers to gets, each file under its key
        #[arg(long)]
        images: PathBuf,
        /// The answer to every put
        #[arg(long)]
        stored: String,
    },
}

#[derive(Debug, clap::Args)]
struct Http {
    #[arg(long)]
    port: u16,
    /// The headers of each answer, a line each
    #[arg(long)]
    headers: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Nats {
    #[arg(long)]
    url: String,
    #[arg(long)]
    user: String,
    #[arg(long, env = "NATS_PASSWORD")]
    password: String,
}

/// Runs the peer until its process is ended.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<bool> {
    match arguments.peer {
        Peer::Memory { http, images } => {
            let images = load(&images)?;
            let state = Arc::new((images, http.headers()?));
            serve(http.port, Router::new().route("/images/{key}", get(memory)).with_state(state)).await
        }
        Peer::Memcached { http, memcached } => {
            let state = Arc::new((Memcached { port: memcached, idle: Mutex::default() }, http.headers()?));
            serve(http.port, Router::new().route("/images/{key}", get(from_memcached)).with_state(state))
                .await
        }
        Peer::Bus { http, nats } => {
            let state = Arc::new((nats.connect().await?, http.headers()?));
            serve(http.port, Router::new().route("/images/{key}", get(from_bus)).with_state(state)).await
        }
        Peer::Origin { http, images, uploads, database } => {
            let options = MySqlPoolOptions::new().max_connections(DATABASE_CONNECTIONS);
            // As a gateway: a lock of a row that is not there yet holds up no other insertion.
            let options = options.after_connect(|connection, _| {
                Box::pin(async move {
                    connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
                    Ok(())
                })
            });
            let pool = options.connect(&database).await?;
            std::fs::create_dir_all(&uploads)?;
            let state = Arc::new(Origin { pool, images, uploads, headers: http.headers()? });
            let routes = Router::new()
                .route("/images/{key}", get(from_origin).merge(put(store)))
                .route("/noted/{key}", put(store_noted))
                .layer(DefaultBodyLimit::disable())
                .with_state(state);
            serve(http.port, routes).await
        }
        Peer::Echo { nats, images, stored } => echo(&nats, &images, stored.into()).await,
    }
}

impl Http {
    fn headers(&self) -> anyhow::Result<HeaderMap> {
        let text = std::fs::read_to_string(&self.headers).context("the headers")?;
        let pairs = text.lines().filter_map(|line| line.split_once(": "));
        pairs.map(|(name, value)| Ok((name.parse::<HeaderName>()?, HeaderValue::from_str(value)?))).collect()
    }
}

impl Nats {
    async fn connect(&self) -> anyhow::Result<async_nats::Client> {
        Ok(ConnectOptions::with_user_and_password(self.user.clone(), self.password.clone())
            .custom_inbox_prefix(format!("_INBOX_{}", self.user))
            .connect(&self.url)
            .await?)
    }
}

/// The files of a folder by their names.
fn load(folder: &Path) -> anyhow::Result<HashMap<String, Bytes>> {
    let files = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    files
        .map(|file| {
            let file = file?;
            let name = file.file_name().into_string().ok().context("keys are plain")?;
            Ok((name, std::fs::read(file.path())?.into()))
        })
        .collect()
}

/// Serves `routes`, each connection as a task of its own.
async fn serve(port: u16, routes: Router) -> anyhow::Result<bool> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((std::net::Ipv4Addr::LOCALHOST, port).into())?;
    let listener = socket.listen(BACKLOG)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = TowerToHyperService::new(routes.clone());
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            // The way in which a client disconnects does not matter.
            drop(connection.await);
        });
    }
}

/// An image, with the headers that pixcache sends.
fn image(headers: &HeaderMap, bytes: Bytes) -> Response {
    let mut response = Response::new(Body::from(bytes));
    *response.headers_mut() = headers.clone();
    response
}

fn failure(error: impl std::fmt::Display) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
}

async fn memory(
    State(state): State<Arc<(HashMap<String, Bytes>, HeaderMap)>>,
    UrlPath(key): UrlPath<String>,
) -> Response {
    match state.0.get(&key) {
        Some(bytes) => image(&state.1, bytes.clone()),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The idle connections to a memcached.
struct Memcached {
    port: u16,
    idle: Mutex<Vec<TcpStream>>,
}

impl Memcached {
    async fn get(&self, key: &str) -> anyhow::Result<Option<Bytes>> {
        let idle = self.idle.lock().pop();
        let mut stream = match idle {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        stream.write_all(format!("get {key}\r\n").as_bytes()).await?;
        let bytes = read_value(&mut stream).await?;
        self.idle.lock().push(stream);
        Ok(bytes)
    }
}

/// `VALUE key flags length`, the bytes and `END`, a line each; only `END` when there is none.
async fn read_value(stream: &mut TcpStream) -> anyhow::Result<Option<Bytes>> {
    const END: &[u8] = b"\r\nEND\r\n";
    let mut buffer = BytesMut::with_capacity(16 << 10);
    let line = loop {
        if let Some(end) = buffer.windows(2).position(|pair| pair == b"\r\n") {
            break end;
        }
        anyhow::ensure!(stream.read_buf(&mut buffer).await? > 0, "memcached hung up");
    };
    let head = buffer.split_to(line + 2);
    if head.starts_with(b"END") {
        return Ok(None);
    }
    let length = std::str::from_utf8(&head)?.split_ascii_whitespace().nth(3).context("no VALUE")?;
    let length: usize = length.parse()?;
    buffer.reserve((length + END.len()).saturating_sub(buffer.len()));
    while buffer.len() < length + END.len() {
        anyhow::ensure!(stream.read_buf(&mut buffer).await? > 0, "memcached hung up");
    }
    Ok(Some(buffer.split_to(length).freeze()))
}

/// Stores images in a memcached.
pub(super) async fn fill_memcached(port: u16, images: &[(String, Bytes)]) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    for (key, bytes) in images {
        stream.write_all(format!("set {key} 0 0 {}\r\n", bytes.len()).as_bytes()).await?;
        stream.write_all(bytes).await?;
        stream.write_all(b"\r\n").await?;
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).await?;
        anyhow::ensure!(&answer == b"STORED\r\n", "memcached does not store: {:?}", answer.escape_ascii());
    }
    Ok(())
}

async fn from_memcached(
    State(state): State<Arc<(Memcached, HeaderMap)>>,
    UrlPath(key): UrlPath<String>,
) -> Response {
    match state.0.get(&key).await {
        Ok(Some(bytes)) => image(&state.1, bytes),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => failure(error),
    }
}

async fn from_bus(
    State(state): State<Arc<(async_nats::Client, HeaderMap)>>,
    UrlPath(key): UrlPath<String>,
) -> Response {
    match state.0.request(format!("cache.get.{key}"), Bytes::new()).await {
        Ok(reply) => image(&state.1, reply.payload),
        Err(error) => failure(error),
    }
}

/// A server of images by row and file.
struct Origin {
    pool: MySqlPool,
    images: PathBuf,
    uploads: PathBuf,
    headers: HeaderMap,
}

/// The columns that a gateway reads.
type Columns = (Vec<u8>, String, String, u64, u32, u32, Vec<u8>, time::OffsetDateTime, time::OffsetDateTime);

async fn from_origin(State(state): State<Arc<Origin>>, UrlPath(key): UrlPath<String>) -> Response {
    let row: Result<Option<Columns>, sqlx::Error> = sqlx::query_as(
        "SELECT image_key, location, content_type, size, width, height, sha256, created_at, updated_at \
         FROM images WHERE image_key = ?",
    )
    .bind(key.as_bytes())
    .fetch_optional(&state.pool)
    .await;
    match row {
        Ok(Some((_, location, ..))) => match tokio::fs::read(state.images.join(location)).await {
            Ok(bytes) => image(&state.headers, bytes.into()),
            Err(error) => failure(error),
        },
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => failure(error),
    }
}

/// Stores the file durably, then the row.
async fn store(State(state): State<Arc<Origin>>, UrlPath(key): UrlPath<String>, bytes: Bytes) -> Response {
    let size = bytes.len() as u64;
    let written = tokio::task::spawn_blocking({
        let (folder, key) = (state.uploads.clone(), key.clone());
        move || write(&folder, &key, &bytes)
    });
    if let Err(error) = written.await.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
        return failure(error);
    }
    let stored = sqlx::query(
        "INSERT INTO images \
         (image_key, location, content_type, size, width, height, sha256, created_at, updated_at) \
         VALUES (?, ?, 'image/gif', ?, 1, 1, REPEAT('x', 32), UTC_TIMESTAMP(6), UTC_TIMESTAMP(6)) \
         ON DUPLICATE KEY UPDATE size = VALUES(size), updated_at = VALUES(updated_at)",
    )
    .bind(key.as_bytes())
    .bind(format!("bare/{key}"))
    .bind(size)
    .execute(&state.pool)
    .await;
    match stored {
        Ok(_) => StatusCode::OK.into_response(),
        Err(error) => failure(error),
    }
}

/// Stores the file durably, then the row in a transaction that also notes the change and locks what is there: the statements
/// without which a crash could leave an old image in a cache.
async fn store_noted(
    State(state): State<Arc<Origin>>,
    UrlPath(key): UrlPath<String>,
    bytes: Bytes,
) -> Response {
    let (size, hash) = (bytes.len() as u64, Sha256::digest(&bytes));
    let written = tokio::task::spawn_blocking({
        let (folder, key) = (state.uploads.clone(), key.clone());
        move || write(&folder, &key, &bytes)
    });
    if let Err(error) = written.await.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
        return failure(error);
    }
    match state.change(&key, size, &hash).await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => failure(error),
    }
}

impl Origin {
    async fn change(&self, key: &str, size: u64, hash: &[u8]) -> sqlx::Result<()> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query(
            "INSERT INTO pending_invalidations (image_key, token, noted_at) VALUES (?, 1, UTC_TIMESTAMP(6)) \
             ON DUPLICATE KEY UPDATE token = VALUES(token), noted_at = VALUES(noted_at)",
        )
        .bind(key.as_bytes())
        .execute(&mut *transaction)
        .await?;
        let _: Option<Columns> = sqlx::query_as(
            "SELECT image_key, location, content_type, size, width, height, sha256, created_at, updated_at \
             FROM images WHERE image_key = ? FOR UPDATE",
        )
        .bind(key.as_bytes())
        .fetch_optional(&mut *transaction)
        .await?;
        sqlx::query(
            "INSERT INTO images \
             (image_key, location, content_type, size, width, height, sha256, created_at, updated_at) \
             VALUES (?, ?, 'image/gif', ?, 1, 1, ?, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6)) \
             ON DUPLICATE KEY UPDATE size = VALUES(size), sha256 = VALUES(sha256), updated_at = VALUES(updated_at)",
        )
        .bind(key.as_bytes())
        .bind(format!("bare/{key}"))
        .bind(size)
        .bind(hash)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        sqlx::query("DELETE FROM pending_invalidations WHERE image_key = ? AND token = 1")
            .bind(key.as_bytes())
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// Writes a file so that it exists whole or not at all, even after a loss of power.
fn write(folder: &Path, key: &str, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(folder.join(key))?;
    std::fs::File::open(folder)?.sync_all()
}

/// Answers requests as fast as they come: no service, no headers, one look into a table.
async fn echo(nats: &Nats, images: &Path, stored: Bytes) -> anyhow::Result<bool> {
    let client = nats.connect().await?;
    let images = load(images)?;
    let images: HashMap<String, Bytes> =
        images.into_iter().map(|(key, bytes)| (format!("cache.get.{key}"), bytes)).collect();
    let mut puts = client.subscribe(wire::subject::PUT).await?;
    let mut gets = client.subscribe(wire::subject::GET).await?;
    let answers = client.clone();
    tokio::spawn(async move {
        while let Some(message) = puts.next().await {
            if let Some(reply) = message.reply
                && answers.publish(reply, stored.clone()).await.is_err()
            {
                return;
            }
        }
    });
    while let Some(message) = gets.next().await {
        if let (Some(reply), Some(bytes)) = (message.reply, images.get(message.subject.as_str())) {
            client.publish(reply, bytes.clone()).await?;
        }
    }
    anyhow::bail!("the connection to NATS has ended")
}
