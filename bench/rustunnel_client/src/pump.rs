//! One stream: its id, then bytes both ways between it and the local service.

use std::io;

use tokio::io::{AsyncReadExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};
use uuid::Uuid;

pub type Piped = Compat<yamux::Stream>;

/// Read the 16 bytes that say which connection a stream is for.
pub async fn read_id(stream: yamux::Stream) -> io::Result<(Uuid, Piped)> {
    let mut stream = stream.compat();
    let mut id = [0; 16];
    stream.read_exact(&mut id).await?;
    Ok((Uuid::from_bytes(id), stream))
}

/// Copy until both directions have ended, or either failed; the stream is dropped then, which resets it
/// unless it has ended.
pub async fn join(mut stream: Piped, local: &str) -> io::Result<()> {
    let mut socket = TcpStream::connect(local).await?;
    socket.set_nodelay(true)?;
    copy_bidirectional(&mut stream, &mut socket).await?;
    Ok(())
}
